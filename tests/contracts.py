"""The published contract as a check: docs/topics.schema.json."""

import json
import zlib
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from simulators.messages import levels

SCHEMA = Path(__file__).parents[1] / "docs" / "topics.schema.json"
_KINDS = {
    "data": "data", "_metrics": "data", "_model": "result", "history": "history",
    "_birth": "birth", "_status": "status", "_alarm": "alarm", "_alarms": "alarms",
    "_gap": "gap", "_ledger": "ledger",
}  # fmt: skip


@cache
def _validator(kind):
    definitions = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]
    return Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": definitions})


def problems(topic, payload):
    """Where a published message breaks the schema of its topic; empty when it keeps it."""
    parts = levels(topic)
    kind = _KINDS.get(parts[0] if parts else "")
    if parts and parts[0] == "_cmd":
        kind = "reply" if len(parts) == 4 else "request"
    if kind == "result" and parts[2:] in {("stale",), ("state",)}:
        kind = parts[2]
        if not payload and kind == "state":  # taken back
            return []
    if kind is None:
        return [f"{topic}: no topic of the contract"]
    text = zlib.decompress(payload) if kind == "history" else payload
    errors = _validator(kind).iter_errors(json.loads(text))
    return [f"{topic}: {e.json_path}: {e.message}" for e in errors]
