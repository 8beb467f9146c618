"""A recording as a file: its records one after the other, and a clock that follows them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import orjson

from agent.core.errors import PermanentError
from agent.links.recorder import VERSION

Record = Mapping[str, Any]

STEP_S: Final = 0.5
"""As of the clock of a machine: a move of the wall clock by more than this is a step."""


def records(path: Path) -> Iterator[Record]:
    """Every record; the first one is the head. Raises E361 when it is no recording, E362 at one
    that is damaged: nothing behind it is read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") and number > 1:
                    return  # whoever recorded was ended in the middle of this line
                yield _record(line, path, number)
    except OSError as e:
        raise PermanentError(
            f"the recording cannot be read ({e.strerror})",
            where=str(path),
            fix="Check the path and its permissions.",
            code="E361",
        ) from e


def _record(line: bytes, path: Path, number: int) -> Record:
    body = line[9:].rstrip(b"\n")
    sound = line[:8] == b"%08x" % crc32(body)
    record: Record = orjson.loads(body) if sound else {}
    if number == 1 and record.get("r") != "head":
        raise PermanentError(
            "this is no recording of edge-agent",
            where=str(path),
            fix="Give a file that `edge-agent record` wrote.",
            code="E361",
        )
    if number == 1 and record["v"] != VERSION:
        raise PermanentError(
            f"the recording has version {record['v']}, this agent reads version {VERSION}",
            where=str(path),
            fix="Use the edge-agent that wrote it, or a newer one.",
            code="E361",
        )
    if not sound:
        raise PermanentError(
            "a record is damaged: its checksum is wrong",
            where=f"{path}:{number}",
            fix=f"Copy the file again; `head -n {number - 1}` keeps what stands before it.",
            code="E362",
        )
    return record


class RecordedClock:
    """Port `Clock` that stands where the recording is."""

    state = "synced"

    def __init__(self, head: Record) -> None:
        self._wall_ns, self._mono_s = int(head["wall"]), 0.0
        self._offset_s: float | None = None

    def follow(self, record: Record) -> None:
        """It is as late as a record says."""
        self._wall_ns, self._mono_s = int(record["wall"]), float(record["mono"])

    def wall_ns(self) -> int:
        return self._wall_ns

    def mono_s(self) -> float:
        return self._mono_s

    def boot_ns(self) -> int:
        return round(self._mono_s * 1e9)

    def check_step(self) -> float:
        """A step that the recorded clock made."""
        if not self._mono_s:
            return 0.0
        offset_s = self._wall_ns / 1e9 - self._mono_s
        before_s, self._offset_s = self._offset_s, offset_s
        step_s = 0.0 if before_s is None else offset_s - before_s
        return 0.0 if -STEP_S <= step_s <= STEP_S else step_s
