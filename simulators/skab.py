"""Score SKAB files with the real agent: Modbus in, journal, ONNX model, MQTT out.

Rows from 400 on of every file are played, faster than real time, behind a Modbus server; an agent
polls them, scores them with the file's model, and publishes; what arrives at the broker becomes
the predictions. A result belongs to the newest row of its window: both carry the same timestamp.
"""

import argparse
import asyncio
import contextlib
import csv
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulators.agent_process import AgentEnded, AgentProcess
from simulators.broker import Broker, Collector
from simulators.messages import Row, rows
from simulators.modbus_server import ModbusServer
from simulators.replay import Recording, RecordingError, Replay, read_csv

FIRST: Final = 400
"""Rows before this one are the models' training rows (the leaderboard's protocol)."""

WINDOW: Final = 5
ABOVE: Final = 1.0
AHEAD: Final = 40
"""Rows that may be played before the results of earlier ones have arrived."""

NOT_YET: Final = "no version in service"
STALLED_S: Final = 20.0
EXIT_OK, EXIT_PROBLEMS, EXIT_USAGE = 0, 1, 2


@dataclass(slots=True)
class Case:
    """One file on its way through an agent.

    Attributes:
        key: Path below the data folder without ending: ``valve1/0``.
        name: Name of its device, model and instance: ``valve1_0``.
        row_at: Source timestamp -> row number, from the data messages.
        score_at: Source timestamp -> score, from the result messages.
        refused: Why the agent does not run the model; empty when it does.
    """

    key: str
    name: str
    recording: Recording
    model: Path
    replay: Replay
    row_at: dict[int, int] = field(default_factory=dict)
    score_at: dict[int, float] = field(default_factory=dict)
    refused: str = ""

    def scores(self) -> dict[int, float]:
        """Row number -> score, of what has arrived."""
        both = self.score_at.keys() & self.row_at.keys()
        return dict(sorted((self.row_at[t], self.score_at[t]) for t in both))

    def missing(self) -> list[int]:
        """Rows that should have a score and have none yet."""
        have = self.scores()
        return [r for r in range(FIRST + WINDOW - 1, len(self.recording)) if r not in have]

    @property
    def complete(self) -> bool:
        """Whether every row after the first full window has its score."""
        due = max(0, len(self.recording) - FIRST - WINDOW + 1)
        return len(self.score_at) >= due and not self.missing()

    def take(self, row: Row) -> None:
        """Note a measurement or a result that arrived."""
        if row.kind == "data" and (number := row.values.get("row")) is not None:
            self.row_at[row.ts_ns] = int(number)
        elif row.kind == "model" and (score := row.values.get("score")) is not None:
            self.score_at[row.ts_ns] = float(score)
            self.replay.bound = max(
                self.replay.bound, FIRST + WINDOW - 1 + len(self.score_at) + AHEAD
            )


def collect(data: Path, models: Path) -> tuple[list[Case], list[str]]:
    """The files under *data* that can be scored, and what is wrong with the others."""
    cases: list[Case] = []
    problems: list[str] = []
    found = sorted(p for p in data.rglob("*") if p.name.endswith((".csv", ".csv.gz")))
    if not found:
        problems.append(f"{data}: there is no .csv or .csv.gz file")
    for path in found:
        key = re.sub(r"\.csv(\.gz)?$", "", path.relative_to(data).as_posix())
        model = models / f"{key.replace('/', '_')}.onnx"
        try:
            recording = read_csv(path)
            if not recording.labelled and not model.is_file():
                print(f"{key}: no labels and no model, left out", file=sys.stderr)
                continue
            cases.append(_case(key, len(cases), recording, model))
        except RecordingError as e:
            problems.append(str(e))
    return cases, problems


def _case(key: str, number: int, recording: Recording, model: Path) -> Case:
    if not model.is_file():
        raise RecordingError(f"{recording.path}: its model {model} is missing")
    if len(recording) < FIRST + WINDOW:
        raise RecordingError(
            f"{recording.path}: {len(recording)} rows; scoring begins at row {FIRST} "
            f"and needs {WINDOW}"
        )
    replay = Replay(recording, first=FIRST)
    replay.bound = FIRST
    name = f"f{number}_{re.sub(r'[^A-Za-z0-9_-]', '_', key)}"
    return Case(key, name, recording, model, replay)


def shares(cases: Sequence[Case], jobs: int) -> list[list[Case]]:
    """Deal the files out to *jobs* agents, about as many rows to each."""
    hands: list[list[Case]] = [[] for _ in range(max(1, min(jobs, len(cases))))]
    for case in sorted(cases, key=lambda c: -len(c.recording)):
        min(hands, key=lambda hand: sum(len(c.recording) for c in hand)).append(case)
    return hands


def config(cases: Sequence[Case], gateway: str, folder: Path, modbus: str, mqtt: str) -> str:
    """The configuration of one agent that scores *cases*; Modbus unit = place in the list + 1."""
    document: dict[str, Any] = {
        "version": 1,
        "gateway": {"id": gateway, "prefix": "skab"},
        "data_dir": str(folder),
        "devices": {},
        "models": {},
        "journal": {"commit": "1s"},
        "sinks": {"plant": {"type": "mqtt_json", "connect": mqtt, "report": "all"}},
    }
    for unit, case in enumerate(cases, 1):
        columns = case.replay.registers()
        tags = {
            f"c{i}" if i else "row": {"reg": register, "as": kind, "order": "ABCD"}
            for i, (_name, register, kind) in enumerate(columns)
        }
        document["devices"][case.name] = {
            "type": "modbus",
            "connect": modbus,
            "unit": unit,
            "addressing": "zero_based",
            "poll": "2ms",
            "once_per": "row",
            "tags": tags,
        }
        inputs = [f"{case.name}/{tag}" for tag in tags if tag != "row"]
        document["models"][case.name] = {
            "file": str(case.model.resolve()),
            "window": {"kind": "count", "rows": WINDOW},
            "decide": {"output": "score", "above": ABOVE},
            "instances": {case.name: {"inputs": inputs}},
        }
    return json.dumps(document, indent=1)  # JSON is YAML


def prepare(folder: Path, text: str) -> Path:
    """A folder for one agent with its configuration in it."""
    folder.mkdir()
    path = folder / "edge-agent.yaml"
    path.write_text(text, encoding="utf-8")
    return path


async def play(cases: Sequence[Case], gateway: str, folder: Path, broker: str) -> list[str]:
    """Run one agent over *cases* until every result has arrived; what went wrong."""
    for case in cases:
        case.replay.arm()
    images = {unit: case.replay.image for unit, case in enumerate(cases, 1)}
    collector = Collector(broker, f"skab/{gateway}/#")
    async with ModbusServer(images) as server:
        url = f"tcp://127.0.0.1:{server.port}"
        path = prepare(folder, config(cases, gateway, folder / "data", url, broker))
        with collector:
            try:
                async with AgentProcess(path) as agent:
                    await _serving(agent, cases)
                    served = [case for case in cases if not case.refused]
                    for case in served:
                        case.replay.bound = FIRST + WINDOW - 1 + AHEAD
                    await _drain(served, lambda at: collector.messages[at:])
                    tail = agent.tail(1500)
            except AgentEnded as e:
                return [f"{gateway}: {e}"]
    problems = [_shortfall(case) for case in cases if not case.complete]
    return [*problems, f"{gateway}: the end of the agent's log:\n{tail}"] if problems else []


async def _serving(agent: AgentProcess, cases: Sequence[Case]) -> None:
    """Return when every model is in service or refused: no row may pass before."""
    until_s = time.monotonic() + STALLED_S
    waiting = {case.name: case for case in cases}
    while waiting and time.monotonic() < until_s:
        status = await agent.ask("status")
        for name, model in status["models"].items():
            if model["state"] == "active":
                waiting.pop(name, None)
        for reason in status["reasons"]:
            name, _, why = reason.removeprefix("model ").partition(": ")
            if name in waiting and why != NOT_YET:
                waiting.pop(name).refused = why
        await asyncio.sleep(0.05)
    for case in waiting.values():
        case.refused = f"{NOT_YET} after {STALLED_S:g} s"


async def _drain(cases: Sequence[Case], news: Callable[[int], Sequence[Any]]) -> None:
    """Take in what arrives until all is there, or nothing has moved for `STALLED_S`."""
    by_name = {case.name: case for case in cases}
    at, moved_s = 0, time.monotonic()
    while not all(case.complete for case in cases):
        new = news(at)
        at += len(new)
        for message in new:
            for row in rows(message.topic, message.payload):
                if (case := by_name.get(row.name)) is not None:
                    case.take(row)
        if new:
            moved_s = time.monotonic()
        elif time.monotonic() - moved_s > STALLED_S:
            return
        await asyncio.sleep(0.02)


def _shortfall(case: Case) -> str:
    if case.refused:
        return f"{case.key}: the agent refuses {case.model}: {case.refused}"
    missing = case.missing()
    last = len(case.recording) - 1
    return (
        f"{case.key}: no score for {len(missing)} rows, the first is {missing[0]}; "
        f"played to row {case.replay.row} of {last}, "
        f"{len(case.row_at)} rows and {len(case.score_at)} results arrived"
    )


def predictions(cases: Sequence[Case]) -> Iterator[tuple[str, str, int, float, int]]:
    """File, timestamp, row, score and flag of every scored row."""
    for case in sorted(cases, key=lambda c: c.key):
        for row, score in case.scores().items():
            yield case.key, case.recording.times[row], row, score, int(score > ABOVE)


def write(out: Path, cases: Sequence[Case]) -> int:
    """Write the predictions; how many."""
    count = 0
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("file", "timestamp", "row", "score", "flag"))
        for line in predictions(cases):
            table.writerow(line)
            count += 1
    return count


async def score(cases: Sequence[Case], jobs: int, folder: Path) -> list[str]:
    """Score *cases* with *jobs* agents at a time on one private broker; what went wrong."""
    with Broker() as broker:
        hands = shares(cases, jobs)
        runs = [play(hand, f"skab{i}", folder / str(i), broker.url) for i, hand in enumerate(hands)]
        return [problem for one in await asyncio.gather(*runs) for problem in one]


def main(argv: Sequence[str] | None = None) -> int:
    """Score a folder; 0 when every file was scored, 1 when some were not, 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m simulators.skab", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of CSV files")
    parser.add_argument("--models", type=Path, required=True, help="valve1/0 -> valve1_0.onnx")
    parser.add_argument("--out", type=Path, required=True, help="predictions for eval_skab.py")
    parser.add_argument("--jobs", type=int, default=2, help="agents at a time")
    args = parser.parse_args(argv)
    for folder in (args.data, args.models):
        if not folder.is_dir():
            print(f"{folder}: no such folder", file=sys.stderr)
            return EXIT_USAGE
    begun_s = time.monotonic()
    cases, problems = collect(args.data, args.models)
    with tempfile.TemporaryDirectory(prefix="edge-agent-skab-") as folder:
        if cases:
            problems += asyncio.run(score(cases, args.jobs, Path(folder)))
    count = write(args.out, cases)
    print(f"{count} rows of {len(cases)} files scored in {time.monotonic() - begun_s:.0f} s")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return EXIT_PROBLEMS if problems else EXIT_OK


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
