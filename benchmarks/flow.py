"""The whole agent: CPU per delivered sample, and how much one core sustains."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import proc
from benchmarks.cores import placed, split
from benchmarks.figure import Figure
from benchmarks.native import Missing
from benchmarks.rig import REGISTERS, Rig, flowing, rig
from simulators.agent_process import AgentProcess
from simulators.models import tiny

SETTLE_S: Final = 5.0
WINDOW_S: Final = 30.0
SUSTAINED_S: Final = 60.0
MODEL_INPUTS: Final = 8


@dataclass(frozen=True, slots=True)
class Seen:
    """What happened between two instants, each the source timestamp of a row that was delivered.

    Attributes:
        samples: Delivered at the broker, each row counted once.
        cpu_s: Of the agent and its children.
        owed: Rows that wait for their PUBACK at the end.
    """

    samples: int
    seconds: float
    cpu_s: float
    owed: int

    @property
    def us_per_sample(self) -> float:
        """CPU per delivered sample, us."""
        return 1e6 * self.cpu_s / max(self.samples, 1)

    @property
    def per_s(self) -> float:
        """Delivered samples per second."""
        return self.samples / self.seconds


async def _watch(made: Rig, agent: AgentProcess, seconds: float) -> Seen:
    """Two instants of steady state, *seconds* apart."""
    await asyncio.sleep(SETTLE_S)
    (rows, at_s), cpu = made.arrivals.seen(), proc.cpu_s(agent.pid)
    await asyncio.sleep(seconds)
    (rows_then, then_s), cpu_then = made.arrivals.seen(), proc.cpu_s(agent.pid)
    owed = sum(sink["owed"] for sink in await agent.ask("outbox"))
    return Seen((rows_then - rows) * REGISTERS, then_s - at_s, cpu_then - cpu, owed)


def _run(poll: str, seconds: float, *, model: bool, command: tuple[str, ...] = ()) -> Seen:
    async def run(made: Rig) -> Seen:
        async with flowing(made, command) as agent:
            return await _watch(made, agent, seconds)

    with rig(poll) as made:
        if model:
            made.serve(tiny(), MODEL_INPUTS)
        return asyncio.run(run(made))


def cpu() -> Sequence[Figure]:
    """CPU per delivered sample; beside it the same with a worker that scores every row."""
    seen = _run("100ms", WINDOW_S, model=False)
    scored = _run("100ms", WINDOW_S, model=True)
    return [
        Figure(
            "cpu_per_sample",
            round(seen.us_per_sample, 3),
            "us",
            "<= 2.0",
            {
                "every_row_scored_us": round(scored.us_per_sample, 3),
                "samples_per_s": round(seen.per_s),
                "window_s": round(seen.seconds, 1),
                "owed_rows": seen.owed,
                "field_us": {"node_red": [8.3, 9.5], "thingsboard_gateway": [165, 236]},
            },
        )
    ]


def sustained() -> Sequence[Figure]:
    """Samples per second with the agent on one core; device, broker and consumer on another."""
    mine, others = split()
    if mine == others:
        raise Missing("two cores are needed: one for the agent, one for its peers")
    with placed(others):
        seen = _run("4ms", SUSTAINED_S, model=False, command=("taskset", "-c", str(*mine)))
    return [
        Figure(
            "sustained",
            round(seen.per_s),
            "samples/s",
            ">= 250000",
            {
                "offered_per_s": 250 * REGISTERS,
                "rows_left_out": round(250 * seen.seconds) - seen.samples // REGISTERS,
                "core_busy": round(seen.cpu_s / seen.seconds, 3),
                "cpu_us_per_sample": round(seen.us_per_sample, 3),
                "window_s": round(seen.seconds, 1),
                "owed_rows": seen.owed,
                "field_per_s": {"node_red": 120_000, "thingsboard_gateway": 6_000},
            },
        )
    ]
