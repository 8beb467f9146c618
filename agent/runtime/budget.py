"""A sink's bytes per day: what may still be sent, and who has to wait for it."""

from typing import Final

DAY_S: Final = 86_400.0

NEVER_S: Final = 1e9
"""Nothing of this kind goes out."""

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

    def __init__(self, per_day: int, now_s: float) -> None:
        self.per_day = per_day
        self._room = per_day / 24.0
        self._level, self._at_s = self._room, now_s

    def spend(self, count: int, now_s: float) -> None:
        """*count* bytes went over the line."""
        filled = self._level + (now_s - self._at_s) * self.per_day / DAY_S
        self._level, self._at_s = min(self._room, filled) - count, now_s

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
