"""JSON of a server, read as if it came from an enemy."""

import json
from typing import Any, Final, NoReturn

from agent.core.errors import PermanentError

_REPUBLISH: Final = "Publish it again; docs/models.md shows what is expected."


def load(data: bytes, limit: int, where: str) -> dict[str, Any]:
    """The JSON object in *data*; keys that stand twice are refused."""
    if len(data) > limit:
        lie(f"the answer has more than {limit} bytes", where, "E610")
    try:
        index = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_constant)
    except (ValueError, RecursionError) as e:
        raise PermanentError(
            f"the answer is no JSON ({short(str(e))})", where=where, fix=_REPUBLISH, code="E611"
        ) from e
    if not isinstance(index, dict):
        lie("the answer is no JSON object", where, "E611")
    return index


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def short(value: object) -> str:
    """A value as it stands, cut off."""
    return repr(value)[:80]


def lie(what: str, where: str, code: str) -> NoReturn:
    """Refuse an answer that is none."""
    raise PermanentError(what, where=where, fix=_REPUBLISH, code=code)
