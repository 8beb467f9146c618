"""The time budget of shared lines: can what the file asks for be done at all?"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from agent.config.report import Problem
from agent.config.schema import Settings


@dataclass(frozen=True, slots=True)
class Load:
    """What one scan class of one device asks of its line.

    Attributes:
        line: Who shares it has the same. label: As the file writes it.
        need_s: Line time of one scan. period_s: Between two scans.
        timeout_s: What a unit that does not answer costs.
    """

    line: Hashable
    label: str
    need_s: float
    period_s: float
    timeout_s: float


@dataclass(slots=True)
class Line:
    """A line and all that is asked of it."""

    label: str
    loads: list[Load] = field(default_factory=list)

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

    def says(self) -> str:
        """One line for people."""
        return (
            f"{self.label} needs {_s(self.need_s)} per cycle of {_s(self.period_s)}, "
            f"{_s(self.dead_s)} when a unit has just died"
        )


def lines(settings: Settings) -> list[Line]:
    """Every line of the file, in its order."""
    found: dict[Hashable, Line] = {}
    for device in settings.devices.values():
        loads: Iterable[Load] = device.loads() if hasattr(device, "loads") else ()
        for load in loads:
            found.setdefault(load.line, Line(load.label)).loads.append(load)
    return list(found.values())


def overloads(found: Iterable[Line]) -> list[Problem]:
    """Advice W301 for each line that cannot keep its period."""
    return [
        Problem(
            "W301",
            f"{line.label} needs {_s(line.need_s)} per cycle, you asked for {_s(line.period_s)}",
            fix="Raise `poll`, move tags to a slower class, or use a faster line or another one.",
        )
        for line in found
        if line.need_s > line.period_s
    ]


def _s(seconds: float) -> str:
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s"
