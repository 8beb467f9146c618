"""What tests of the whole agent share: a gateway on loopback, devices that count, the far end."""

import asyncio
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from simulators.agent_process import AgentProcess, Refused
from simulators.broker import Collector, Message
from simulators.messages import levels
from simulators.modbus_server import RegisterImage
from tests.contracts import problems
from tests.tools import until

QUIET = {"sinks": {}, "devices": {}}
"""Sections that a configuration has at least."""


class Counting(RegisterImage):
    """A device that counts how often it was read, in a uint32 at register 0: no row is like
    another, and a row that is missing or doubled is seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.on_read = self._count

    def _count(self, *_: int) -> None:
        self.reads += 1
        self.set_uint32(0, self.reads)

    async def read(self, times: int, within_s: float = 15.0) -> None:
        """Return when it was read *times* more: the clock of these tests is the collection."""
        wanted = self.reads + times
        await until(lambda: self.reads >= wanted, within_s)


def device(url: str, **more: Any) -> dict[str, Any]:
    """A device with the counter ``n`` and a float ``temp`` at register 2, 20 rows a second."""
    tags = {"n": {"reg": 0, "as": "uint32"}, "temp": {"reg": 2, "as": "float32"}}
    return {"type": "modbus", "connect": url, "unit": 1, "addressing": "zero_based",
            "poll": "50ms", "timeout": "300ms", "tags": tags} | more  # fmt: skip


def sink(url: str, **more: Any) -> dict[str, Any]:
    """A broker whose silence is noticed within seconds."""
    return {"type": "mqtt_json", "connect": url, "keepalive": "5s", "ack_timeout": "2s"} | more


def configure(folder: Path, **sections: Any) -> Path:
    """Write ``edge.yaml`` into *folder*; its data go to ``folder/data``."""
    document = {
        "version": 1,
        "gateway": {"id": "gw"},
        "data_dir": str(folder / "data"),
        "journal": {"commit": "200ms"},
        "self": {"period": "1s"},
    }
    path = folder / "edge.yaml"
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document | QUIET | sections, indent=1), encoding="utf-8")
    draft.replace(path)
    return path


async def told(
    agent: AgentProcess, wanted: Callable[[Any], object], within_s: float = 15.0
) -> dict[str, Any]:
    """The first status for which *wanted* is true; fails after *within_s* with the last one."""
    status: dict[str, Any] = {}

    async def look() -> bool:
        nonlocal status
        try:
            status = await agent.ask("status")
        except (OSError, Refused) as e:
            status = {"refused": str(e)}
            return False
        return bool(wanted(status))

    await until(look, within_s, lambda: f"{status}\n{agent.tail()}")
    return status


async def command(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One run of the command line against the agent of *config*."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "agent", *words, "-c", str(config)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arrival:
    """One row, or one alarm event, as it came to the far end.

    Attributes:
        lane: ``live`` | ``history`` | ``alarm``.
        key: (lineage, stream, epoch): whose numbers ``seq`` counts.
        values: Tag -> (value, quality word).
        window: Of a result: source times of the oldest and the newest row used.
    """

    lane: str
    key: tuple[str, str, int]
    seq: int
    ts: str
    clock: str
    values: dict[str, tuple[float | None, str]]
    window: tuple[str, ...] = ()


class FarEnd:
    """The consumer upstream: every message, held against the contract, row by row."""

    def __init__(self, collector: Collector) -> None:
        self._collector, self._read = collector, 0
        self._arrivals: list[Arrival] = []
        self._first: dict[tuple[tuple[str, str, int], int], Arrival] = {}
        self.broken: list[str] = []
        self.doubled = 0

    def arrivals(self) -> list[Arrival]:
        """Everything so far, in order of arrival."""
        messages = self._collector.messages
        for message in messages[self._read :]:
            self.broken += problems(message.topic, message.payload)
            for arrival in _arrivals(message):
                self._arrivals.append(arrival)
                self._notice(arrival)
        self._read = len(messages)
        return self._arrivals

    def rows(self, stream: str) -> list[Arrival]:
        """The rows of one stream, each once, in the order of their numbers."""
        self.arrivals()
        found = [a for (key, _), a in self._first.items() if key[1] == stream]
        return sorted(found, key=lambda a: (a.key[2], a.seq))

    def values(self, stream: str, tag: str = "n") -> list[float]:
        """The usable values of one tag, in the order of the rows."""
        pairs = [a.values[tag][0] for a in self.rows(stream)]
        return [v for v in pairs if v is not None]

    def alarms(self, name: str) -> list[bool]:
        """The changes of one alarm: True for raised."""
        self.arrivals()
        found = [a for a in self._first.values() if a.key[1] == f"alarm/{name}"]
        return [
            a.values["active"][0] == 1.0 for a in sorted(found, key=lambda a: (a.key[2], a.seq))
        ]

    def _notice(self, new: Arrival) -> None:
        known = self._first.setdefault((new.key, new.seq), new)
        if known is new:
            return
        self.doubled += 1
        if known.values != new.values:
            self.broken.append(f"one id, two rows: {known} and {new}")

    def disorder(self) -> list[str]:
        """Rows that came in their lane after a younger one without having come before."""
        found: list[str] = []
        newest: dict[tuple[str, str, str], tuple[int, int]] = {}
        seen: set[tuple[tuple[str, str, int], int]] = set()
        for a in self.arrivals():
            lane, at = (a.lane, a.key[0], a.key[1]), (a.key[2], a.seq)
            if at < newest.get(lane, at) and (a.key, a.seq) not in seen:
                found.append(f"{a.lane} {a.key} {a.seq} after {newest[lane]}")
            newest[lane] = max(at, newest.get(lane, at))
            seen.add((a.key, a.seq))
        return found

    def facts(self, topic: str) -> list[Any]:
        """Everything that came on one topic below the root."""
        return [m.json() for m in self._collector.messages if levels(m.topic) == (topic,)]

    def gaps(self) -> list[str]:
        """Numbers that are missing between the first and the last that came."""
        numbers: dict[tuple[str, str, int], list[int]] = {}
        self.arrivals()
        for key, seq in self._first:
            if not key[1].startswith("alarm/"):
                numbers.setdefault(key, [0]).append(seq)
        return [
            f"{key}: {b} follows {a}"
            for key, some in numbers.items()
            for a, b in pairwise(sorted(some))
            if b != a + 1
        ]

    def missing(self, rows: set[tuple[str, int, int]]) -> set[tuple[str, int, int]]:
        """Which of these (stream, epoch, seq) have not come."""
        self.arrivals()
        return rows - {(key[1], key[2], seq) for key, seq in self._first}

    async def complete(self, rows: set[tuple[str, int, int]], within_s: float = 15.0) -> None:
        """Return when these rows have come; the broker may still have to hand them on."""
        await until(
            lambda: not self.missing(rows),
            within_s,
            lambda: f"never came: {sorted(self.missing(rows))[:20]}",
        )

    def sound(self) -> None:
        """Contract, order, numbers: what holds at any time after any fault."""
        self.arrivals()
        assert self.broken == []
        assert self.disorder() == []
        assert self.gaps() == []


def committed(data_dir: Path) -> set[tuple[str, int, int]]:
    """(stream, epoch, seq) of every row in the journal of an agent that does not run."""
    with tempfile.TemporaryDirectory() as folder:
        for part in data_dir.glob("journal.db*"):
            shutil.copy(part, folder)
        db = sqlite3.connect(Path(folder, "journal.db"))
        try:
            blocks = db.execute(
                "SELECT text, epoch, first, last FROM blocks JOIN names ON names.id = stream"
            ).fetchall()
        finally:
            db.close()
    return {(stream, e, seq) for stream, e, first, last in blocks for seq in range(first, last + 1)}


def _arrivals(message: Message) -> Iterator[Arrival]:
    match levels(message.topic):
        case ("data", _) | ("_model", _) | ("_metrics",):
            yield _row(message.json())
        case ("history", *_):
            yield from _history(message.json())
        case ("_alarm", name):
            body = message.json()
            lineage, epoch, seq = body["id"]
            values = {"active": (float(body["active"]), body["q"])}
            yield Arrival("alarm", (lineage, f"alarm/{name}", epoch), seq, body["ts"], "", values)


def _key(body: dict[str, Any]) -> tuple[str, str, int]:
    return body["lineage"], body["stream"], body["epoch"]


def _row(body: dict[str, Any]) -> Arrival:
    bad = body.get("bad", {})
    values = {n: (v, bad.get(n, body["q"])) for n, v in body["values"].items()}
    window = tuple(body.get("window", ()))
    return Arrival("live", _key(body), body["seq"], body["ts"], body["clock"], values, window)


def _history(body: dict[str, Any]) -> Iterator[Arrival]:
    words = {
        (name, row): word
        for name, runs in body.get("bad", {}).items()
        for word, rows in runs.items()
        for row in rows
    }
    windows = body.get("window") or [()] * len(body["ts"])
    for i, ts in enumerate(body["ts"]):
        values = {n: (c[i], words.get((n, i), body["q"])) for n, c in body["values"].items()}
        yield Arrival(
            "history", _key(body), body["from"] + i, ts, body["clock"], values, tuple(windows[i])
        )


class Manager:
    """systemd's ear: notes when the agent said what.

    Attributes:
        said: (monotonic seconds, message) of everything so far.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notify"
        self.said: list[tuple[float, str]] = []

    def environment(self, watchdog_s: float) -> dict[str, str]:
        """What systemd gives a service that it watches."""
        return {"NOTIFY_SOCKET": str(self._path), "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._thread = threading.Thread(target=self._listen, name="manager")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self._path))
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while text := self._socket.recv(4096).decode():
            self.said.append((time.monotonic(), text))

    def lines(self) -> list[str]:
        """Every line said so far."""
        return [line for _, text in self.said for line in text.splitlines()]

    def longest_silence_s(self) -> float:
        """The longest time between two pulses: above the watchdog's, systemd would have killed."""
        pulses = [at for at, text in self.said if "WATCHDOG=1" in text]
        assert pulses, "no pulse at all"
        return max(b - a for a, b in pairwise([*pulses, self.said[-1][0]]))
