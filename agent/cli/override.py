"""What `maintenance` and `force` show."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.cli.args import OK
from agent.cli.client import ask


def standing(path: Path, *, as_json: bool) -> int:
    """Every override that holds now."""
    answer = ask(path, "overrides")
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        print("\n".join(show(one) for one in answer) or "nothing is overridden")
    return OK


def show(one: Mapping[str, Any]) -> str:
    """One override in words."""
    if "ended" in one:
        return f"{one['target']}: {'ended' if one['ended'] else 'nothing to end'}"
    until = datetime.fromtimestamp(one["until_ns"] / 1e9, UTC).astimezone()
    what = "out of service" if one["value"] is None else f"said to be {one['value']:g}"
    why = f" ({one['why']})" if one["why"] else ""
    return f"{one['target']}: {what} until {until:%Y-%m-%d %H:%M:%S %z}, by {one['by']}{why}"
