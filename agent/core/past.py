"""Past alarms of a model, out of the events that the journal has of them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from agent.core.alarm import AlarmEvent
from agent.core.report import PastAlarm


def past_alarms(
    events: Iterable[AlarmEvent], machines: Mapping[str, str], most: int
) -> tuple[PastAlarm, ...]:
    """The newest *most* that somebody has judged, and those that stand; in order of time.

    *machines* says of which instance each alarm is; other alarms are passed over. *events* come
    in the order in which they were made.
    """
    now: dict[str, PastAlarm] = {}
    over: list[PastAlarm] = []
    for e in events:
        instance = machines.get(e.alarm)
        if instance is None:
            continue
        one = now.get(e.alarm)
        if e.active and (one is None or one.end_ns is not None):
            if one is not None:
                over.append(one)
            now[e.alarm] = one = PastAlarm(e.alarm, instance, e.t_ns, None, "")
        elif not e.active and one is not None and one.end_ns is None:
            now[e.alarm] = one = replace(one, end_ns=e.t_ns)
        if e.label and one is not None:
            now[e.alarm] = replace(one, label=e.label)
    some = [p for p in (*over, *now.values()) if p.label or p.end_ns is None]
    return tuple(sorted(some, key=lambda p: p.begin_ns)[-most:])
