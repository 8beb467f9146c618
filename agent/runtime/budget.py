"""A sink's bytes per day: what may still be sent, and who has to wait for it."""

from collections.abc import Callable
from typing import Any, Final

from agent.core.ports import TRUSTED, Clock, StateStore

NAMESPACE: Final = "budget"
"""Of the state store: sink -> what is left, and when."""

DAY_S: Final = 86_400.0

NEVER_S: Final = 1e9
"""Nothing of this kind goes out."""

_STEP: Final = 1 / 16
"""Share of an hour's bytes that is written off in advance: a crash costs no more, and the flash
hardly notices.
"""

_RUNGS: Final = (0.5, 0.375, 0.25, 0.125, 0.0)
"""Down to which share of an hour's bytes each rung goes."""

_EVERY_S: Final = (
    (0.0, 0.0, 0.0),
    (60.0, 0.0, 0.0),
    (300.0, 10.0, 0.0),
    (900.0, 60.0, 10.0),
    (3600.0, 300.0, 60.0),
    (NEVER_S, NEVER_S, NEVER_S),
)
"""Seconds between messages of a stream, by rung: the agent's own numbers, what is measured,
results of models.
"""


class Budget:
    """A bucket that fills by the second and holds an hour's bytes.

    Alarms, births and status are paid from it, too, but never wait. Over any day no more than
    the budget and one bucket goes out, beside them.
    """

    def __init__(
        self,
        per_day: int,
        now_s: float,
        left: float | None = None,
        keep: Callable[[float], None] | None = None,
    ) -> None:
        """*left* bytes to begin with (None: an hour's); *keep* writes them down now and then."""
        self.per_day = per_day
        self._room = per_day / 24.0
        self._level, self._at_s = self._room if left is None else min(left, self._room), now_s
        self._keep, self._kept = keep, self._level

    def spend(self, count: int, now_s: float) -> None:
        """*count* bytes went over the line."""
        self._level, self._at_s = self._filled(now_s) - count, now_s
        self._remember(self._room * _STEP)

    def _filled(self, now_s: float) -> float:
        return min(self._room, self._level + (now_s - self._at_s) * self.per_day / DAY_S)

    def spare(self, now_s: float) -> int:
        """Bytes that may go before anything has to wait for them."""
        return max(0, int(self._filled(now_s) - self._room * _RUNGS[0]))

    @property
    def most_spare(self) -> int:
        """What `spare` can be at most."""
        return int(self._room * (1 - _RUNGS[0]))

    def _remember(self, step: float) -> None:
        """Write down less than there is, before it is spent: a crash never brings bytes back."""
        least = self._kept if self._level > 0 else self._kept - step
        if self._keep is not None and not least <= self._level <= self._kept + 2 * step:
            self._kept = max(self._level - step, min(self._level, 0.0))
            self._keep(self._kept)

    @property
    def rung(self) -> int:
        """0: nobody waits; 1 to 4: more and more do; 5: only alarms go out."""
        share = self._level / self._room
        return next((i for i, least in enumerate(_RUNGS) if share > least), len(_RUNGS))

    def every_s(self, stream: str) -> float:
        """Seconds that lie between two messages of *stream* at least."""
        kind = 0 if stream == "agent" else 2 if stream.startswith("model/") else 1
        return _EVERY_S[self.rung][kind]

    @property
    def backlog_waits(self) -> bool:
        """What was missed is sent only while there is plenty."""
        return self.rung > 0


def resumed(sink: str, per_day: int, clock: Clock, state: StateStore) -> Budget:
    """The budget of *sink* as an earlier run left it; the time since then counts if the clock can
    be believed.
    """

    def keep(left: float) -> None:
        state.set(NAMESPACE, sink, {"left": round(left), "at_ns": clock.wall_ns()})

    found: Any = state.get(NAMESPACE, sink)
    left = None
    if found is not None:
        away_s = max(0.0, (clock.wall_ns() - found["at_ns"]) / 1e9)
        left = found["left"] + (away_s * per_day / DAY_S if clock.state in TRUSTED else 0.0)
    return Budget(per_day, clock.mono_s(), left, keep)
