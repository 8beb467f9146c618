"""Whose epochs are whose: a journal that went on under another lineage still holds rows of the one
before, and tells losses of it.
"""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

Lineages = list[tuple[int, str]]
"""(last epoch, lineage), oldest first. Epochs only rise, whatever the lineage."""

KEY: Final = "lineages"
"""In the table ``meta``: the lineages of before, as JSON."""


def read_lineages(conn: sqlite3.Connection, meta: Mapping[str, Any]) -> Lineages:
    """As they are remembered; of tables that are new, as the rows in the files say."""
    if "lineage" in meta:
        return [(epoch, lineage) for epoch, lineage in json.loads(meta.get(KEY, "[]"))]
    made = conn.execute(
        "SELECT max(epoch), text FROM sealed JOIN names ON id = made GROUP BY epoch ORDER BY epoch"
    )
    return [(epoch, json.loads(text)["lineage"]) for epoch, text in made]


def lineage_of(epoch: int, before: Lineages, now: str) -> str:
    """The lineage that *epoch* belongs to; *now* is the one after all of *before*."""
    return next((lineage for last, lineage in before if epoch <= last), now)
