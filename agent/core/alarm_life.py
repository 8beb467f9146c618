"""The life of an alarm after it was raised: acknowledged, shelved, first of its group (ISA-18.2).

Values only; whoever holds them decides when they change and where they are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

from agent.core.alarm import AlarmEvent, AlarmSpec

JOURNAL_ONLY: Final = 4
"""Priority of alarms that nobody has to acknowledge."""

Label = Literal["", "confirmed", "dismissed"]

State = Literal["unacked_active", "acked_active", "unacked_cleared", "shelved", "normal"]


@dataclass(frozen=True, slots=True)
class Standing:
    """An alarm that is not in its normal state.

    Attributes:
        since_ns: Source timestamp of the sample that raised it last.
        value, q: Of that sample; None where it has no value.
        acked_by, shelved_by: Who; empty for nobody.
        shelved_until_ns: Wall clock; 0 while it is not shelved.
        first_out: It was the first of its group.
        label: What somebody says of this occurrence: a true alarm, or a false one.
        told: Is it active as far as the consumers know.
    """

    alarm: str
    tag: str
    since_ns: int
    priority: int
    value: float | None
    limit: float
    text: str = ""
    q: int = 192
    stream: str = ""
    code: str = ""
    advice: str = ""
    group: str = ""
    active: bool = True
    acked: bool = False
    acked_by: str = ""
    shelved_until_ns: int = 0
    shelved_by: str = ""
    first_out: bool = False
    label: Label = ""
    told: bool = True

    @property
    def shelved(self) -> bool:
        return self.shelved_until_ns > 0

    @property
    def normal(self) -> bool:
        """Nothing to show, nothing to remember."""
        return not self.active and self.acked and not self.shelved

    @property
    def state(self) -> State:
        """The word of ISA-18.2 for it."""
        if self.shelved:
            return "shelved"
        if self.active:
            return "acked_active" if self.acked else "unacked_active"
        return "normal" if self.acked else "unacked_cleared"

    def acknowledged(self, by: str) -> "Standing":
        """Somebody has seen it."""
        return self if self.acked else replace(self, acked=True, acked_by=by)

    def shelve(self, until_ns: int, by: str) -> "Standing":
        """Out of sight until *until_ns*."""
        return replace(self, shelved_until_ns=until_ns, shelved_by=by)

    def unshelve(self) -> "Standing":
        """Back in sight."""
        return replace(self, shelved_until_ns=0, shelved_by="")

    def cleared(self) -> "Standing":
        """It is over; it stays until it is acknowledged."""
        return replace(self, active=False)

    def facts(self) -> dict[str, Any]:
        """As JSON, for the state store."""
        return {name: getattr(self, name) for name in _FIELDS}


_FIELDS: Final = tuple(f.name for f in fields(Standing))


def raised(before: Standing | None, event: AlarmEvent, spec: AlarmSpec | None) -> Standing:
    """A new occurrence: nobody has seen it yet. One that is shelved stays so."""
    one = Standing(
        event.alarm,
        event.tag,
        event.t_ns,
        event.priority,
        None if event.value != event.value else event.value,
        event.limit,
        event.text,
        event.q,
        event.stream,
        event.code,
        spec.advice if spec else "",
        spec.group if spec else "",
        acked=event.priority >= JOURNAL_ONLY,
    )
    if before is None or not before.shelved:
        return one
    return one.shelve(before.shelved_until_ns, before.shelved_by)


def quiet(spec: AlarmSpec) -> Standing:
    """An alarm in its normal state, as it is before somebody shelves it."""
    return Standing(
        spec.name, spec.tag, 0, spec.priority, None, spec.limit, spec.text, code=spec.code,
        advice=spec.advice, group=spec.group, active=False, acked=True, told=False,
    )  # fmt: skip


def standing_from(facts: Mapping[str, Any]) -> Standing | None:
    """What `Standing.facts` wrote; None when it is nothing of the kind."""
    try:
        return Standing(**{k: v for k, v in facts.items() if k in _FIELDS})
    except TypeError:
        return None
