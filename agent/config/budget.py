"""The time budget of shared lines: can what the file asks for be done at all?"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.config.report import Problem
from agent.config.schema import Settings

CATCH_UP_S: Final = 0.5
"""Arrears that a device makes up by scans without a pause, s (`agent.links.pace`): the machine
gives a process nothing for tens, sometimes hundreds of ms, and a neighbour may be slow for once.
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one scan class of one device asks of its line.

    Attributes:
        line: Who shares it has the same. label: As the file writes it.
        need_s: Line time of one scan. period_s: Between two scans.
        timeout_s: What a unit that does not answer costs.
        measured: The device's latency is what the agent has seen, not what the file says.
    """

    line: Hashable
    label: str
    need_s: float
    period_s: float
    timeout_s: float
    measured: bool = False


@dataclass(slots=True)
class Line:
    """A line and all that is asked of it; *device* is the first of its devices."""

    label: str
    device: str
    loads: list[Load] = field(default_factory=list)
    units: int = 0

    @property
    def period_s(self) -> float:
        """The shortest period: what a technician calls the cycle."""
        return min(load.period_s for load in self.loads)

    @property
    def need_s(self) -> float:
        """Line time per cycle; a slower class counts for the share that falls into one."""
        return sum(load.need_s * self.period_s / load.period_s for load in self.loads)

    @property
    def dead_s(self) -> float:
        """The same in a cycle in which one unit has just died."""
        return self.need_s + max(load.timeout_s for load in self.loads)

    @property
    def loses(self) -> bool:
        """Do its other units miss points in such a cycle?"""
        return self.units > 1 and self.dead_s > self.period_s + CATCH_UP_S

    def says(self) -> str:
        """One line for people."""
        seen = ", with the latency that was measured" if any(x.measured for x in self.loads) else ""
        return (
            f"{self.label} needs {_s(self.need_s)} per cycle of {_s(self.period_s)}, "
            f"{_s(self.dead_s)} when a unit has just died{seen}"
        )


def lines(settings: Settings, latencies: Mapping[str, float] | None = None) -> list[Line]:
    """Every line of the file, in its order. *latencies*: What the agent has kept of its devices,
    in s.
    """
    found: dict[Hashable, Line] = {}
    device: Any
    for name, device in settings.devices.items():
        if hasattr(device, "loads"):
            loads: list[Load] = device.loads((latencies or {}).get(device.learnt_as(name)))
            line = found.setdefault(loads[0].line, Line(loads[0].label, name))
            line.loads += loads
            line.units += 1
    return list(found.values())


def overloads(found: Iterable[Line]) -> list[Problem]:
    """Advice W301 for each line that cannot keep its period, or whose units miss points when one
    of them has just died.
    """
    return [
        Problem(
            "W301",
            f"{line.label} needs {_s(line.need_s)} per cycle, you asked for {_s(line.period_s)}",
            fix="Raise `poll`, move tags to a slower class, or use a faster line or another one.",
            at=("devices", line.device, "poll"),
        )
        if line.need_s > line.period_s
        else Problem(
            "W301",
            f"{line.label} needs {_s(line.dead_s)} in a cycle in which one of its {line.units} "
            f"units does not answer, you asked for {_s(line.period_s)}: the others miss points",
            fix="Lower `timeout`: a few times what the devices take to answer is enough "
            "(`edge-agent explain TAG` tells it). Or raise `poll`.",
            at=("devices", line.device, "timeout"),
        )
        for line in found
        if line.need_s > line.period_s or line.loses
    ]


def _s(seconds: float) -> str:
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s"
