"""A pump house in software: pumps with physics, wear and faults, behind Modbus registers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from simulators.modbus_server import RegisterImage

Kind = Literal[
    "bearing", "cavitation", "leak", "blocked_filter", "sensor_drift", "sensor_stuck", "duty"
]
KINDS: Final[tuple[Kind, ...]] = (
    "bearing",
    "cavitation",
    "leak",
    "blocked_filter",
    "sensor_drift",
    "sensor_stuck",
    "duty",
)

SENSORS: Final = (
    ("speed", "rpm", 0.0, 3600.0),
    ("flow", "m3/h", 0.0, 60.0),
    ("pressure_in", "bar", -1.0, 5.0),
    ("pressure_out", "bar", 0.0, 16.0),
    ("current", "A", 0.0, 40.0),
    ("vibration", "mm/s", 0.0, 45.0),
    ("bearing_temp", "degC", -20.0, 150.0),
    ("motor_temp", "degC", -20.0, 180.0),
    ("valve", "%", 0.0, 100.0),
)
"""Name, unit and plausible range of each measured quantity, in the order of the registers."""

NOISE: Final = np.array([2.0, 0.12, 0.01, 0.02, 0.08, 0.06, 0.05, 0.05, 0.1])
"""Standard deviation of each sensor's noise, in its unit."""

_COLUMN: Final = {name: i for i, (name, _unit, _lo, _hi) in enumerate(SENSORS)}
_STEP_S: Final = 1.0


def registers() -> list[tuple[str, int, str, float, float]]:
    """The register map of every pump: (name, register, unit, lowest, highest plausible value).

    Each quantity is a float32 in two registers, high word first (``ABCD``), zero-based, the same
    in the holding and in the input registers. Coil 0 and discrete input 0: the pump runs.
    """
    return [(name, 2 * i, unit, lo, hi) for i, (name, unit, lo, hi) in enumerate(SENSORS)]


@dataclass(frozen=True, slots=True)
class Event:
    """One fault of one pump, or another duty, which is none.

    Attributes:
        at_s: When it begins, plant seconds.
        pump: 0-based number of the pump.
        kind: ``bearing`` roughness, ``cavitation``, ``leak`` behind the pump, ``blocked_filter``
            before it, ``sensor_drift`` (the sensor reads too much), ``sensor_stuck``. ``duty``: all
            is well, but the pump works against a valve that is 25 points further closed.
        severity: 1.0 is a plain fault, 0.1 an early one.
        ramp_s: It grows linearly to its severity over this time; 0 at once.
        until_s: When it is repaired, plant seconds.
        sensor: Which sensor drifts or is stuck.
    """

    at_s: float
    pump: int
    kind: Kind
    severity: float = 1.0
    ramp_s: float = 0.0
    until_s: float = inf
    sensor: str = "flow"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.sensor not in _COLUMN:
            raise ValueError(f"no such fault: {self.kind} of {self.sensor}")

    def level(self, now_s: float) -> float:
        """How severe it is at *now_s*: 0 before and after, growing over the ramp."""
        if not self.at_s <= now_s < self.until_s:
            return 0.0
        grown = min(1.0, (now_s - self.at_s) / self.ramp_s) if self.ramp_s > 0 else 1.0
        return self.severity * grown


@dataclass(frozen=True, slots=True)
class Timeline:
    """What goes wrong, and when."""

    events: Sequence[Event] = ()

    def levels(self, kind: Kind, pumps: int, now_s: float) -> NDArray[np.float64]:
        """Severity of one kind of fault per pump, float64 (pumps,)."""
        found = np.zeros(pumps)
        for event in self.events:
            if event.kind == kind:
                found[event.pump] += event.level(now_s)
        return found

    def sensor_faults(self, now_s: float) -> list[tuple[Event, float]]:
        """The sensors that lie at *now_s*, and by how much."""
        wrong = [e for e in self.events if e.kind in ("sensor_drift", "sensor_stuck")]
        return [(e, level) for e in wrong if (level := e.level(now_s)) > 0]


@dataclass(slots=True)
class Plant:
    """Pumps on one water main, each a Modbus unit (1, 2, ...) with a register image of its own.

    Centrifugal pumps of 7.5 kW: the operating point is where the pump curve meets the system
    curve; temperatures follow with the thermal inertia of bearing and motor. The machines differ
    a little from each other by *seed*; *noise_seed* makes another run of the same machines.

    Attributes:
        now_s: Plant time.
        images: Modbus unit -> registers, see `registers`.
        values: float64 (n, 9), what the sensors show, columns as `SENSORS`.
    """

    n: int = 3
    seed: int = 1
    timeline: Timeline = Timeline()
    noise_seed: int = 0
    now_s: float = 0.0
    images: dict[int, RegisterImage] = field(init=False)
    values: NDArray[np.float64] = field(init=False)
    _rng: np.random.Generator = field(init=False)
    _build: NDArray[np.float64] = field(init=False)
    _phase: NDArray[np.float64] = field(init=False)
    _bearing_temp: NDArray[np.float64] = field(init=False)
    _motor_temp: NDArray[np.float64] = field(init=False)
    _stuck: dict[Event, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        machines = np.random.default_rng(self.seed)
        self._build = 1.0 + 0.01 * machines.standard_normal((4, self.n))
        self._phase = machines.uniform(0.0, 2 * np.pi, self.n)
        self._rng = np.random.default_rng([self.seed, self.noise_seed])
        self.images = {unit: RegisterImage() for unit in range(1, self.n + 1)}
        self._bearing_temp = np.full(self.n, np.nan)
        self._motor_temp = np.full(self.n, np.nan)
        self._move(0.0)
        self._write()

    def advance(self, dt: float) -> NDArray[np.float64]:
        """Let *dt* plant seconds pass and write the registers; returns `values`."""
        while dt > 0:
            step = min(dt, _STEP_S)
            self.now_s += step
            self._move(step)
            dt -= step
        self._write()
        return self.values

    async def run(self, speed: float = 1.0, period_s: float = 0.1) -> None:
        """Advance with the clock, *speed* times as fast, until cancelled."""
        loop = asyncio.get_running_loop()
        begun_s, from_s = loop.time(), self.now_s
        while True:
            await asyncio.sleep(period_s)
            self.advance(from_s + speed * (loop.time() - begun_s) - self.now_s)

    def record(self, seconds: float, period_s: float = 1.0) -> NDArray[np.float64]:
        """A history: float64 (steps, n, 9), one row every *period_s* plant seconds."""
        return np.stack([self.advance(period_s).copy() for _ in range(int(seconds / period_s))])

    def _move(self, dt: float) -> None:
        """One step of the physics, then the sensors' view of it."""
        line, n, now = self.timeline, self.n, self.now_s
        bearing = line.levels("bearing", n, now)
        head_build, resistance, friction, cooling = self._build
        demand = np.sin(2 * np.pi * now / 240.0 + self._phase)
        speed = 2900.0 + 60.0 * demand
        s = speed / 2900.0
        valve = 80.0 + 5.0 * np.sin(2 * np.pi * now / 333.0 + 2 * self._phase)
        valve = np.maximum(valve - 25.0 * line.levels("duty", n, now), 10.0)

        suction = 2e-4 * (1.0 + 5.0 * line.levels("blocked_filter", n, now))
        pipe = resistance * (1.2e-3 + 0.9e-3 / (valve / 100.0) ** 2)
        outflow = 12.0 * line.levels("leak", n, now)
        open_ = 1.0 / np.sqrt(pipe) + outflow
        curve = 1.6e-3
        shut_off = 6.0 * head_build * s**2
        total = np.sqrt(shut_off / (curve + suction + 1.0 / open_**2))
        pressure_in = 0.6 - suction * total**2
        bubbles = line.levels("cavitation", n, now) + np.clip(0.15 - pressure_in, 0.0, 1.0)
        total = total * (1.0 - 0.10 * np.tanh(bubbles))
        rise = shut_off - curve * total**2 - 0.6 * np.tanh(bubbles)
        flow = total * (1.0 - outflow / open_)

        efficiency = 0.72 * (1.0 - 0.6 * (total / (32.0 * s) - 1.0) ** 2)
        shaft_kw = total * rise / 36.0 / efficiency * (1.0 + 0.04 * bearing)
        current = np.hypot(5.0, shaft_kw / (np.sqrt(3.0) * 0.4 * 0.86 * 0.88))
        off_best = np.abs(total / (32.0 * s) - 1.0)
        vibration = friction * s**2 * (1.4 + 2.0 * off_best + 3.5 * bearing) + 2.5 * bubbles

        ambient = 22.0 + 4.0 * np.sin(2 * np.pi * now / 86400.0)
        warm = ambient + 24.0 * s * friction * (1.0 + 1.5 * bearing)
        self._bearing_temp = _approach(self._bearing_temp, warm, dt / 90.0)
        hot = ambient + 0.19 * cooling * current**2
        self._motor_temp = _approach(self._motor_temp, hot, dt / 600.0)
        self._measure(
            np.stack(
                (
                    speed,
                    flow,
                    pressure_in,
                    pressure_in + rise,
                    current,
                    vibration,
                    self._bearing_temp,
                    self._motor_temp,
                    valve,
                ),
                axis=1,
            ),
            bubbles,
        )

    def _measure(self, true: NDArray[np.float64], bubbles: NDArray[np.float64]) -> None:
        """What the sensors show: noise, turbulence, drift, and sensors that are stuck."""
        noise = NOISE * self._rng.standard_normal(true.shape)
        rough = 1.0 + 6.0 * bubbles[:, None]
        noise[:, _COLUMN["flow"] : _COLUMN["vibration"] + 1] *= rough
        shown = true + noise
        for event, level in self.timeline.sensor_faults(self.now_s):
            column = _COLUMN[event.sensor]
            if event.kind == "sensor_drift":
                _name, _unit, lo, hi = SENSORS[column]
                shown[event.pump, column] += 0.1 * level * (hi - lo)
            else:
                held = self._stuck.setdefault(event, shown[event.pump, column])
                shown[event.pump, column] = held
        self.values = shown

    def _write(self) -> None:
        """Put the values into the registers, a whole pump at once."""
        words = self.values.astype(">f4").view(">u2").astype(np.uint16)
        for unit, image in self.images.items():
            image.holding[: words.shape[1]] = words[unit - 1]
            image.input[: words.shape[1]] = words[unit - 1]
            image.coils[0] = image.discrete[0] = True


def _approach(
    now: NDArray[np.float64], target: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """First-order lag, exact for any step; an unknown state (NaN) starts at its target."""
    return np.where(np.isnan(now), target, now + (target - now) * -np.expm1(-share))
