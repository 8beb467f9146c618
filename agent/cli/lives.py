"""What `edge-agent models list` and `history` show to people; `--json` has all of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.cli.table import records

Facts = Mapping[str, Any]


def models(entries: Sequence[Facts]) -> str:
    """One line for each model."""
    return records([_model(one) for one in entries], "no model is configured")


def _model(one: Facts) -> dict[str, Any]:
    serves, newest, stage = one.get("version"), one.get("newest"), one.get("stage")
    return {
        "name": one["name"],
        "serves": f"{serves} (probation)" if one.get("probation") else serves,
        "before": one.get("previous"),
        "newest": None if newest in {None, serves} else f"{newest} ({stage})",
        "waits_for": one.get("waits"),
        "signed_by": one.get("signed_by"),
        "channel": one.get("channel"),
        "notes": list(_notes(one)),
        "last_check": one.get("last_check"),
        "last_error": one.get("last_error"),
    }


def _notes(one: Facts) -> list[str]:
    notes = [word for word in ("pinned", "held") if one.get(word)]
    if one.get("taken_out"):
        notes.append(f"{one['taken_out']} taken out")
    if one.get("learning") == "collecting":
        notes.append(f"learning, {one['healthy_s']:.0f} of {one['of_s']:.0f} s")
    if one.get("learning_error"):
        notes.append(str(one["learning_error"]))
    return notes


def history(moves: Sequence[Facts]) -> str:
    """One line for each move and each decision."""
    shown = ("what", "version", "release", "digest", "who", "why")
    rows = [{"time_ns": m["at_ns"]} | {k: m.get(k) for k in shown} for m in moves]
    return records(rows, "nothing yet")
