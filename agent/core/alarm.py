"""One alarm as configured, and one change of it (ISA-18.2 vocabulary)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.condition import Condition

Kind = Literal[
    "high_high",
    "high",
    "low",
    "low_low",
    "deviation",
    "rate",
    "state",
    "stale",
    "bad_too_long",
    "communication",
]

Gate = Callable[[Condition], NDArray[np.float64]]
"""State of a condition at each row: 1.0, 0.0, or NaN while it is not known."""


@dataclass(frozen=True, slots=True)
class AlarmSpec:
    """One alarm as configured.

    Attributes:
        name: Unique within the agent; the topic level of its events.
        tag: Full name of the tag it watches; the device, for ``communication``.
        limit: Engineering units; of a ``rate`` per ``per_ns``; s without a sample of its own, for
            ``stale``; ignored by ``state``, ``bad_too_long`` and ``communication``.
        deadband: Units of the limit the value must come back beyond it before the alarm clears.
        on_delay_ns, off_delay_ns: How long the condition must hold (or be gone), ns.
        priority: 1 (urgent) .. 4 (journal only), as ISA-18.2 counts.
        code: ``A1xx`` for alarms that the agent itself makes (docs/operations.md).
        when: Outside it there is no alarm: one that stands is cleared, a delay begins anew.
        setpoint: What ``deviation`` is measured from: a number, or a tag of the same stream.
        states: The values that are an alarm, for ``state``.
        of: (k, n): beyond the limit is who was it in k of the last n samples that count.
        advice: What to do, for the person who sees it.
        group: Alarms of one group tell which of them came first.
        dated: An event bears the time of its sample, or of the oldest row of the window that the
            sample is the result of.
    """

    name: str
    tag: str
    kind: Kind
    limit: float = 0.0
    deadband: float = 0.0
    on_delay_ns: int = 0
    off_delay_ns: int = 0
    priority: int = 2
    text: str = ""
    code: str = ""
    when: Condition | None = None
    setpoint: float | str = 0.0
    states: tuple[float, ...] = ()
    per_ns: int = 1_000_000_000
    of: tuple[int, int] = (1, 1)
    advice: str = ""
    group: str = ""
    dated: Literal["sample", "window"] = "sample"


@dataclass(frozen=True, slots=True)
class AlarmEvent:
    """One change of one alarm.

    Attributes:
        stream: Stream of the sample that caused it; with ``row`` it names that sample.
        t_ns: Source timestamp of that sample.
        value: What was compared with the limit; NaN when the sample is Bad.
        q: Quality code of the sample.
        by: ``agent``, or who acknowledged or shelved it.
        first_out: Was it the first of its group; None when it has none.
        label: ``confirmed`` or ``dismissed``, once somebody has said so.
        t_by: Who made ``t_ns``; only times made by the agent are ever corrected.
    """

    alarm: str
    tag: str
    stream: str
    t_ns: int
    active: bool
    priority: int
    value: float
    limit: float
    q: int
    code: str = ""
    text: str = ""
    by: str = "agent"
    acked: bool = False
    shelved: bool = False
    first_out: bool | None = None
    label: str = ""
    t_by: Literal["agent", "device"] = "agent"


def bad_alarm(tag: str) -> str:
    """The name of the alarm that *tag* gets when it is Bad for too long."""
    return f"{tag.replace('/', '.')}.bad"


def comm_alarm(device: str) -> str:
    """The name of the one alarm of a device that does not answer at all."""
    return f"{device}.comm"
