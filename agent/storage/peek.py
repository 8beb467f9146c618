"""Small facts that an agent has kept, for commands that only look."""

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from agent.storage.database import FILE


def kept(data_dir: Path, ns: str) -> dict[str, Any]:
    """Everything of one namespace, as the disk has it; empty when no agent has run there, or when
    its journal cannot be read now.
    """
    uri = f"{(data_dir / FILE).resolve().as_uri()}?mode=ro"
    with (
        suppress(sqlite3.Error, OSError),
        closing(sqlite3.connect(uri, uri=True, timeout=1)) as conn,
    ):
        rows = conn.execute("SELECT key, json FROM state WHERE ns = ?", (ns,)).fetchall()
        return {key: json.loads(value) for key, value in rows}
    return {}
