"""Lines that answer from a recording: the checks of real ones, and no time of their own."""

from typing import Any, Final

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.client.base import ModbusBaseClient

from agent.core.errors import PermanentError
from agent.links.modbus_line import Line
from agent.links.modbus_rtu import Request, RtuLine, Timing
from agent.links.modbus_scan import Job
from agent.links.recorder import HEARD, SENT
from agent.links.recording import Record

READ_SIZE: Final = 12
"""Bytes of a read request: MBAP 7, function, first, count (V1.1b3, 6.3)."""


class PlayedLine(Line):
    """A connection with MBAP framing, from the file; *more* is for RTU."""

    def __init__(self) -> None:
        super().__init__(_nowhere())
        self.more = True

    def play(self, job: Job, record: Record, *, resumed: bool) -> None:
        """What passed when *job* was run; its verdicts are those of then."""
        play(self, job, record, resumed=resumed)

    def begin(self, job: Job, tid: int, *, resumed: bool) -> None:
        """*job* is under way."""
        self._tid = tid
        self._begin(job, 0.0, resumed=resumed)

    def sends(self, job: Job, size: int) -> bytes:
        """What *job* sends next, *size* bytes of it."""
        return job.requests(size // READ_SIZE)

    def over(self) -> None:
        """No more answers to the job."""
        self._job = None

    def _look_at(self, at_s: float) -> None:
        """The file says when a request timed out."""

    def _send(self, job: Job, count: int) -> bool:
        """The file says when a request was sent."""
        del job, count
        return True


class PlayedRtuLine(RtuLine):
    """A connection with RTU framing, from the file.

    Attributes:
        more: The job goes on to its next request: it does not step back now.
    """

    def __init__(self, timing: Timing) -> None:
        super().__init__(_nowhere(), timing, {}, stream=False)
        self.more = True

    def play(self, job: Job, record: Record, *, resumed: bool) -> None:
        """What passed when *job* was run; its verdicts are those of then."""
        play(self, job, record, resumed=resumed)

    def begin(self, job: Job, tid: int, *, resumed: bool) -> None:
        """*job* is under way, its next request waits for silence."""
        self._tid = tid
        self._begin(job, 0.0, resumed=resumed)
        self._send(job, 1)

    def sends(self, job: Job, size: int) -> bytes:
        """The request that waited."""
        del job, size
        self._rest = b""
        request = self._open
        if request is None:
            return b""
        if self._timing.local_echo:
            request.to_skip = request.frame
        return request.frame

    def over(self) -> None:
        """No more answers to the job."""
        self._job = self._open = None

    def _look_at(self, at_s: float) -> None:
        """The file says when a request timed out."""

    def _send(self, job: Job, count: int) -> bool:
        return self.more and super()._send(job, count)

    def _when_free(self, request: Request) -> None:
        """The file says when the line was free."""


def play(line: PlayedLine | PlayedRtuLine, job: Job, record: Record, *, resumed: bool) -> None:
    """Feed *line* what passed. Raises E363 when *job* asks something else than was recorded."""
    io: list[list[Any]] = record["io"]
    begun = int(record["begun"])
    last = max((i for i, piece in enumerate(io) if piece[0] == SENT), default=-1)
    for i in range(len(io) + 1):
        line.more = "paused" not in record or i <= last
        if i == begun:
            line.begin(job, int(record["tid"]), resumed=resumed)
        if i == len(io):
            break
        data = bytes.fromhex(io[i][3])
        if io[i][0] == HEARD:
            line.data_received(data)
        elif 0 <= begun <= i and line.sends(job, len(data)) != data:
            raise PermanentError(
                f"{record['s']} asks for other registers than were recorded",
                where=f"unit {record['unit']} on {record['line']}, request {data.hex(' ')}",
                fix="Replay with the configuration of the recording, or change only what does "
                "not change the requests: scaling, limits, alarms, models.",
                code="E363",
            )
    line.over()


def _nowhere() -> ModbusBaseClient:
    """pymodbus' client, never connected."""
    return AsyncModbusTcpClient("recording", retries=0, reconnect_delay=0)
