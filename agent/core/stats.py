"""Counters and gauges: plain numbers that units count and the source ``internal`` reads."""

from collections import deque
from math import nan


class Stats:
    """Named numbers. One dictionary, no locks: everything that counts runs on the loop.

    Attributes:
        counted: Names of ``values`` that only ever grow.
        observed: Name -> how often it was observed, and the sum of that, since the start.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.counted: set[str] = set()
        self.observed: dict[str, tuple[int, float]] = {}
        self._samples: dict[str, deque[float]] = {}

    def add(self, name: str, amount: float = 1.0) -> None:
        """Count *amount* more of *name*."""
        if name not in self.values:
            self.values[name] = 0.0
            self.counted.add(name)
        self.values[name] += amount

    def set(self, name: str, value: float) -> None:
        """Set the gauge *name*."""
        self.values[name] = value

    def observe(self, name: str, value: float) -> None:
        """Keep one of the last 512 observations of *name*, for its percentiles."""
        if name not in self._samples:
            self._samples[name] = deque(maxlen=512)
            self.observed[name] = (0, 0.0)
        self._samples[name].append(value)
        count, total = self.observed[name]
        self.observed[name] = (count + 1, total + value)

    def percentile(self, name: str, percent: float) -> float:
        """Percentile of the last observations of *name*, interpolated; NaN when there is none.

        Plain Python: the first ``np.percentile`` imports for 10 to 17 ms, on the loop.
        """
        samples = sorted(self._samples.get(name, ()))
        if not samples:
            return nan
        below, part = divmod(percent / 100.0 * (len(samples) - 1), 1.0)
        low, high = samples[int(below)], samples[min(int(below) + 1, len(samples) - 1)]
        return low + part * (high - low)

    def snapshot(self) -> dict[str, float]:
        """Every number by name, in order; observations as ``name.p50`` and ``name.p99``."""
        numbers = dict(self.values)
        for name in self._samples:
            numbers[f"{name}.p50"] = self.percentile(name, 50)
            numbers[f"{name}.p99"] = self.percentile(name, 99)
        return dict(sorted(numbers.items()))


class Part(Stats):
    """The numbers of a part that runs twice: in *whole*, under names that begin with *name*."""

    def __init__(self, whole: Stats, name: str) -> None:
        super().__init__()
        self._whole, self._name = whole, name

    def add(self, name: str, amount: float = 1.0) -> None:
        self._whole.add(self._name + name, amount)

    def set(self, name: str, value: float) -> None:
        self._whole.set(self._name + name, value)

    def observe(self, name: str, value: float) -> None:
        self._whole.observe(self._name + name, value)
