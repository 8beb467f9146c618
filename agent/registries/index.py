"""The index of a model: what is on which channel, read as if it came from an enemy."""

import re
from collections.abc import Callable
from typing import Any, Final

from agent.codecs.envelope import MAX_ENVELOPE
from agent.core.errors import PermanentError
from agent.core.registry import Offer, Piece
from agent.registries.answers import lie, load, short

FILE: Final = "index.json"
MAX_INDEX: Final = 1 << 20
"""Bytes an index may have."""

MAX_MODEL: Final = 500_000_000
"""Bytes a model file may have."""

_SEGMENT: Final = r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*"
_RELATIVE: Final = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MODEL: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def check_name(name: str) -> str:
    """*name* if it can stand in a path; `PermanentError` for ``..`` and the like."""
    if not _MODEL.fullmatch(name):
        raise PermanentError(
            f"`{name}` cannot be the name of a model in a registry",
            fix="Use letters, digits, `_`, `-`, and `.` but not as the first character.",
            code="E616",
        )
    return name


def parse(
    data: bytes, name: str, channel: str, *, where: str, locate: Callable[[str], str], token: str
) -> Offer:
    """What the index *data* of the model *name* says is on *channel*.

    *where* is the address of the index, for errors; *locate* makes the url of the offer from the
    checked relative path of a file; *token* goes into the offer.

    Raises:
        PermanentError: Any entry is not what the format says, or the channel does not exist.
    """
    index = load(data, MAX_INDEX, where)
    if type(index.get("schema")) is not int or index["schema"] != 1:
        lie(f"schema is {short(index.get('schema'))}, this agent reads schema 1", where, "E612")
    channels, versions = _table(index, "channels", where), _table(index, "versions", where)
    offers = {v: _offer(name, v, e, where, locate, token) for v, e in versions.items()}
    if len({o.release for o in offers.values()}) < len(offers):
        lie("two versions have the same release number", where, "E614")
    for word, version in channels.items():
        if not isinstance(version, str) or version not in offers:
            lie(
                f"channel `{short(word)}` names version {short(version)}, which is not there",
                where,
                "E613",
            )
    if channel not in channels:
        known = ", ".join(sorted(channels)[:10]) or "none"
        raise PermanentError(
            f"model `{name}` has no channel `{channel}` (channels: {known})",
            where=where,
            fix="Correct `channel` of the model, or publish to that channel.",
            code="E613",
        )
    return offers[channels[channel]]


def _table(index: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    table = index.get(key)
    if not isinstance(table, dict):
        lie(f"`{key}` is no object", where, "E612")
    for word in table:
        if not _WORD.fullmatch(word):
            lie(f"`{short(word)}` cannot be a key of `{key}`", where, "E612")
    return table


def _offer(
    name: str, version: str, entry: object, where: str, locate: Callable[[str], str], token: str
) -> Offer:
    """One entry of ``versions``, checked."""
    if not isinstance(entry, dict):
        lie(f"version `{version}` is no object", where, "E614")
    release, size = entry.get("release"), entry.get("size")
    file, sha256 = entry.get("file"), entry.get("sha256")
    if type(release) is not int or not 1 <= release < 2**53:
        lie(f"version `{version}`: release {short(release)} is no number from 1", where, "E614")
    if type(size) is not int or not 1 <= size <= MAX_MODEL:
        lie(f"version `{version}`: size {short(size)} is not 1 to {MAX_MODEL} bytes", where, "E614")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        lie(
            f"version `{version}`: sha256 {short(sha256)} is not 64 lower-case hex digits",
            where,
            "E614",
        )
    if not isinstance(file, str) or len(file) > 300 or not _RELATIVE.fullmatch(file):
        lie(
            f"version `{version}`: file {short(file)} is no plain path below the index",
            where,
            "E615",
        )
    piece = _manifest(version, entry.get("manifest"), where, locate)
    return Offer(name, version, release, sha256, size, locate(file), token, piece)


def _manifest(
    version: str, entry: object, where: str, locate: Callable[[str], str]
) -> Piece | None:
    """Where the signed manifest of a version is; None when it has none."""
    if entry is None:
        return None
    file = entry.get("file") if isinstance(entry, dict) else None
    size = entry.get("size") if isinstance(entry, dict) else None
    if not isinstance(file, str) or len(file) > 300 or not _RELATIVE.fullmatch(file):
        lie(f"version `{version}`: manifest {short(file)} is no plain path", where, "E615")
    if type(size) is not int or not 1 <= size <= MAX_ENVELOPE:
        lie(
            f"version `{version}`: its manifest has {short(size)}, not 1 to {MAX_ENVELOPE} bytes",
            where,
            "E614",
        )
    return Piece(locate(file), size)
