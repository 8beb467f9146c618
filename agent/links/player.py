"""Runs sources from a recording: record after record, each scan given what was heard then."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from agent.core.batch import Batch
from agent.core.errors import AgentError, PermanentError
from agent.core.quality import Quality
from agent.links.modbus import Endpoint, Recall
from agent.links.modbus_dial import Dial, RtuTcpDial, SerialDial
from agent.links.modbus_scan import Scan
from agent.links.pace import Pace
from agent.links.played_line import PlayedLine, PlayedRtuLine
from agent.links.recorder import Recorder, fingerprint
from agent.links.recording import Record, RecordedClock

log = structlog.get_logger()

PATIENCE_S: Final = 30.0
"""A source that takes longer for one record has ended: it only computes."""


@dataclass(slots=True)
class _Turn:
    """A device that waits for what was recorded of it.

    Attributes:
        rows: Stream and fingerprint of what it made since its last record.
    """

    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    inbox: deque[Record] = field(default_factory=deque)
    given: asyncio.Event = field(default_factory=asyncio.Event)
    rows: deque[tuple[str, int]] = field(default_factory=deque)
    misfit: AgentError | None = None

    async def next(self) -> Record:
        """The next record of the device; called by its source."""
        self.waiting.set()
        await self.given.wait()
        self.given.clear()
        return self.inbox.popleft()

    async def give(self, record: Record) -> None:
        """Let the source go on with *record*, until it waits again."""
        await self._ready()
        self.waiting.clear()
        self.inbox.append(record)
        self.given.set()
        await self._ready()

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.waiting.wait()
        except TimeoutError as e:
            raise PermanentError(
                "a device ended in the middle of the recording",
                fix="See what was logged before this message.",
                code="E363",
            ) from e
        if self.misfit is not None:
            raise self.misfit


@dataclass(slots=True)
class Outcome:
    """How the rows of a stream compare with those of the recording."""

    same: int = 0
    different: int = 0


class Player(Recorder):
    """Stands where the recorder would, and compares the rows with those of the recording.

    Attributes:
        outcomes: Stream -> how its rows compare. left_out: Records of streams that do not run.
    """

    def __init__(self, clock: RecordedClock) -> None:
        super().__init__(clock)
        self._file_clock = clock
        self._turns: dict[str, _Turn] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.left_out: Counter[str] = Counter()

    def turn(self, stream: str) -> _Turn:
        """Where the device of *stream* waits."""
        return self._turns.setdefault(_device(stream), _Turn())

    def row(self, batch: Batch) -> None:
        """A source made a row."""
        self.turn(batch.stream).rows.append((batch.stream, fingerprint(batch)))

    async def play(self, tape: Iterable[Record], streams: Iterable[str]) -> AsyncIterator[Record]:
        """Play the records behind the head to *streams*; each is given back when it is done."""
        for stream in streams:
            self.turn(stream)
        for record in tape:
            stream = record.get("s", "")
            turn = self._turns.get(_device(stream))
            if turn is None:
                self.left_out[stream] += record["r"] == "row"
            elif record["r"] == "row":
                self._compare(turn, record)
            else:
                if record["r"] == "begin":
                    self._surplus(turn)
                self._file_clock.follow(record)
                await turn.give(record)
            yield record
        for turn in self._turns.values():
            self._surplus(turn)

    def _compare(self, turn: _Turn, record: Record) -> None:
        outcome = self.outcomes.setdefault(record["s"], Outcome())
        if turn.rows and turn.rows.popleft() == (record["s"], record["crc"]):
            outcome.same += 1
        else:
            outcome.different += 1

    def _surplus(self, turn: _Turn) -> None:
        """Rows that the recording does not have."""
        for stream, _ in turn.rows:
            self.outcomes.setdefault(stream, Outcome()).different += 1
        turn.rows.clear()


def _device(stream: str) -> str:
    """``pump1~slow`` -> ``pump1``: its streams are scanned in turn, or together."""
    return stream.partition("~")[0]


class PlayedPace(Pace):
    """Scans when the recording did."""

    def __init__(self, turn: _Turn, streams: Iterable[str], recall: Recall) -> None:
        self._turn, self._recall = turn, recall
        self._numbers = {stream: i for i, stream in enumerate(streams)}

    async def due(self) -> tuple[int, ...]:
        """Wait for the record of the next beginning."""
        record = await self._turn.next()
        streams = [record["s"], *record.get("with", ())]
        due = tuple(sorted(self._numbers[s] for s in streams if s in self._numbers))
        self._recall(due, record)
        return due

    def missed(self, number: int) -> int:
        del number
        return 0


class PlayedEndpoint(Endpoint):
    """An endpoint whose connections are in the recording."""

    def __init__(self, dial: Dial, player: Player, clock: RecordedClock) -> None:
        super().__init__(dial, clock, player)
        self._player = player
        self._lines: dict[int, PlayedLine | PlayedRtuLine] = {}
        self._there = False

    @property
    def connected(self) -> bool:
        """Was there a connection."""
        return self._there

    @asynccontextmanager
    async def used(self, unit: int, timeout_s: float) -> AsyncIterator[None]:
        """Nothing is connected."""
        del unit, timeout_s
        yield

    def pace(self, device: str, periods_s: Mapping[str, float], recall: Recall) -> Pace:
        """When the streams of *device* were scanned."""
        return PlayedPace(self._player.turn(device), periods_s, recall)

    async def scan(self, scan: Scan, timeout_s: float, window: int, stream: str = "") -> int:
        """What the recording has of this scan."""
        del timeout_s, window
        turn = self._player.turn(stream)
        record = await turn.next()
        try:
            self._answer(scan, record, resumed=False)
            while "paused" in record:
                record = await turn.next()
                self._answer(scan, record, resumed=True)
        except AgentError as e:
            turn.misfit = e
            turn.waiting.set()
            await asyncio.get_running_loop().create_future()  # whoever plays ends it all
        return int(record["wall"])

    def _answer(self, scan: Scan, record: Record, *, resumed: bool) -> None:
        if record["r"] != "job":
            raise PermanentError(
                f"{record['s']} asks more often than was recorded",
                where=f"a request for {scan.reads[0]}",
                fix="Replay with the configuration of the recording.",
                code="E363",
            )
        lost, self.error = Quality(record["lost"]), record["error"]
        self._there = "conn" in record
        if record.get("begun", -1) < 0 and not resumed:
            scan.fail(lost)
        if record.get("io"):
            self._line_of(record["conn"]).play(scan, record, resumed=resumed)
        scan.quality[scan.quality == Quality.BAD_COMM] = lost

    def _line_of(self, number: int) -> PlayedLine | PlayedRtuLine:
        line = self._lines.get(number)
        if line is None:
            self._lines.clear()  # an older connection says nothing more
            dial = self._dial
            if isinstance(dial, RtuTcpDial | SerialDial):
                line = PlayedRtuLine(dial.timing)
            else:
                line = PlayedLine()
            self._lines[number] = line
        return line
