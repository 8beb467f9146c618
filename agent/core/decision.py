"""When a result is an alarm: said once, for alarms, shadow, back-test, batch and packing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.alarm import AlarmEvent, AlarmSpec
from agent.core.alarms import AlarmTable
from agent.core.batch import Batch
from agent.core.condition import Condition
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet


@dataclass(frozen=True, slots=True)
class Decision:
    """When a result is an alarm: above ``above`` in k of the last n, gone at or below ``off``.

    Attributes:
        output: Column of the results that is judged.
        of: (k, n).
        row: The row of the window that a flag belongs to: an alarm bears its time.
        priority, text, advice: Of the alarm.
    """

    output: str
    above: float
    off: float | None = None
    of: tuple[int, int] = (1, 1)
    row: Literal["newest", "oldest"] = "newest"
    priority: int = 2
    text: str = ""
    advice: str = ""

    def spec(self, alarm: str, tag: str, when: Condition | None = None) -> AlarmSpec:
        """The alarm *alarm* on the result *tag*."""
        return AlarmSpec(
            alarm,
            tag,
            "high",
            self.above,
            0.0 if self.off is None else self.above - self.off,
            priority=self.priority,
            text=self.text,
            when=when,
            of=self.of,
            advice=self.advice,
            dated="window" if self.row == "oldest" else "sample",
        )


_TAG: Final = "model/r/score"


class Decider:
    """Says of the results of one machine, as they come, whether their alarm would stand."""

    def __init__(self, decision: Decision) -> None:
        self._table = AlarmTable("model/r", TagSet((Tag(_TAG),)), [decision.spec("r", _TAG)])
        self._on = False

    def resume(self, scores: NDArray[np.float64], q: NDArray[np.uint8], *, stood: bool) -> None:
        """Go on behind results that were decided before, and a state that was known then."""
        self._table.restore({"r": stood})
        self._on = stood
        self(scores, q)

    def __call__(
        self, scores: NDArray[np.float64], q: NDArray[np.uint8] | None = None
    ) -> NDArray[np.bool_]:
        """The next results: scores (n,) and the quality of their windows (n,) -> flags (n,).

        What is no number, or of a Bad window, changes nothing; a window outside ``when:``
        (`Quality.NOT_APPLICABLE`) ends the alarm.
        """
        given = np.full(len(scores), Quality.GOOD, np.uint8) if q is None else q
        told = np.isfinite(scores) | (given < Quality.UNCERTAIN)
        given = np.where(told, given, Quality.BAD_SENSOR).astype(np.uint8)
        rows = np.arange(len(scores), dtype=np.int64)
        found = np.full(len(scores), self._on)
        for event in self._table.scan(rows, scores.reshape(-1, 1), given.reshape(-1, 1)):
            found[event.t_ns :] = event.active
        if len(found):
            self._on = bool(found[-1])
        return found


def flags(
    scores: NDArray[np.float32] | NDArray[np.float64],
    decision: Decision,
    q: NDArray[np.uint8] | None = None,
) -> NDArray[np.bool_]:
    """Does the alarm of a model stand after each of its results, from the first one: bool (n,)."""
    return Decider(decision)(scores.astype(np.float64), q)


def dated(
    events: Iterable[AlarmEvent], results: Batch, specs: Sequence[AlarmSpec]
) -> list[AlarmEvent]:
    """*events* of *results* with the time of the row that each flag belongs to."""
    starts = {s.name for s in specs if s.dated == "window"}
    if results.window is None or not starts:
        return list(events)
    first = dict(zip(results.t.tolist(), results.window.tolist(), strict=True))
    return [replace(e, t_ns=first[e.t_ns]) if e.alarm in starts else e for e in events]
