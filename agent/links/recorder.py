"""Writes down what Modbus lines say, while somebody takes it: enough to run the agent from it.

One record a line: CRC-32 of the JSON (8 hex digits), a space, the JSON. docs/recordings.md has
the fields. What a scan depends on is in the record of its beginning and in those of its requests;
nothing else is asked when it is run again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

import numpy as np
import orjson

from agent.core.batch import Batch
from agent.core.ports import Clock
from agent.core.quality import Quality
from agent.links.modbus_scan import Job

VERSION: Final = 2

PIECES: Final = 1000
"""Pieces kept of what a line says while nobody asks it; the oldest go first."""

SENT: Final = ">"
HEARD: Final = "<"


def line_of(record: Mapping[str, Any]) -> bytes:
    """One record as it stands in the file."""
    body = orjson.dumps(record)
    return b"%08x %s\n" % (crc32(body), body)


def fingerprint(batch: Batch) -> int:
    """CRC-32 over times, values and qualities, to the last bit."""
    return crc32(batch.q.tobytes(), crc32(batch.v.tobytes(), crc32(batch.t.tobytes())))


@dataclass(slots=True, eq=False)
class Tap:
    """What one connection says: pieces as they pass, with both times.

    Attributes:
        number: Of the connection, within the recording.
        pieces: ``[way, monotonic seconds, wall clock ns, hex]`` since the last record.
        begun: Pieces before the job under way began; -1: it was not begun. tid: its first one.
    """

    number: int
    clock: Clock
    pieces: list[list[Any]] = field(default_factory=list)
    begun: int = -1
    tid: int = 0
    _job: Job | None = None

    def expect(self, job: Job) -> None:
        """The next job; what else is sent before it (an echo) is not it."""
        self._job, self.begun = job, -1

    def began(self, job: Job, tid: int) -> None:
        """A job begins."""
        if job is self._job:
            self.begun, self.tid = len(self.pieces), tid

    def passed(self, way: str, data: bytes) -> None:
        """Bytes went out, or came in."""
        if len(self.pieces) >= PIECES and self.begun < 0:
            del self.pieces[0]
        self.pieces.append([way, self.clock.mono_s(), self.clock.wall_ns(), data.hex()])


class Recorder:
    """One recording at a time, of every Modbus line of the agent.

    Attributes:
        on: Does somebody take it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self.on = clock, False
        self._out: Callable[[bytes], None] = lambda _line: None
        self._told: set[str] = set()
        self._begun: set[tuple[str, ...]] = set()
        self._taps = self._first = 0

    def start(self, out: Callable[[bytes], None], head: Mapping[str, Any]) -> None:
        """Every record from now on goes to *out*, a *head* first."""
        self._out, self.on, self._first = out, True, self._taps
        self._told.clear()
        self._begun.clear()
        self._put({"r": "head", "v": VERSION, "wall": self._clock.wall_ns(), **head})

    def stop(self, why: str) -> None:
        """The end of the recording; nothing when there is none."""
        if self.on:
            self.on = False
            self._put({"r": "end", "wall": self._clock.wall_ns(), "why": why})

    def _put(self, record: Mapping[str, Any]) -> None:
        self._out(line_of(record))

    def tap(self, old: Tap | None) -> Tap | None:
        """The tap of a connection: none while nothing is recorded, else *old* if it is ours."""
        if not self.on:
            return None
        if old is None or old.number < self._first:
            old = Tap(self._taps, self._clock)
            self._taps += 1
        return old

    def begin(
        self,
        streams: tuple[str, ...],
        mono_s: float,
        latency_s: float,
        memory: Callable[[], Mapping[str, Any]],
    ) -> None:
        """A scan begins, for *streams*, the first of which names it, planned for a device that
        answers within *latency_s*; the first time with what it remembers from before.
        """
        if not self.on:
            return
        facts = {"r": "begin", "s": streams[0], "mono": mono_s, "wall": self._clock.wall_ns()}
        facts["latency"] = latency_s
        if len(streams) > 1:
            facts["with"] = streams[1:]
        if streams not in self._begun:
            facts["memory"] = memory()
        self._begun.add(streams)
        self._told.update(streams)
        self._put(facts)

    def job(
        self,
        job: Job,
        stream: str,
        place: tuple[str, Tap | None, str],
        ended_ns: int,
        *,
        paused: bool = False,
    ) -> None:
        """A job ended, or steps back (*paused*). *place*: the line, its tap, and what is wrong.

        A scan that was under way when the recording began is none of it.
        """
        if stream and stream not in self._told:
            return
        line, tap, error = place
        record: dict[str, Any] = {
            "r": "job",
            "s": stream,
            "line": line,
            "unit": job.unit,
            "mono": self._clock.mono_s(),
            "wall": ended_ns,
            "lost": int(_without_answer(job)),
            "error": error,
        }
        if tap is not None:
            record |= {"conn": tap.number, "begun": tap.begun, "tid": tap.tid, "io": tap.pieces}
            tap.pieces, tap.begun = [], -1
        if paused:
            record["paused"] = True
        self._put(record)

    def row(self, batch: Batch) -> None:
        """A scan gave a row."""
        if self.on and batch.stream in self._told:
            facts = {"r": "row", "s": batch.stream, "t": int(batch.t[-1])}
            self._put(facts | {"crc": fingerprint(batch)})


def _without_answer(job: Job) -> Quality:
    """The quality of those requests of a job that were not answered."""
    silent = bool(np.any(job.quality == Quality.BAD_COMM))
    return Quality.BAD_COMM if silent else Quality.BAD_NOT_CONNECTED
