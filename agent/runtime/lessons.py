"""What a retrained version must not have learned: that a fault is normal. Pure criteria.

Slow wear looks like drift. So a version that was trained from what the plant measured goes into
service by itself only when nothing speaks for a fault: every row it learned from is vouched for, no
alarm that stands or was confirmed would be silenced, and the configuration lets it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

RETRAINED: Final = "retrained_from"
EVENT: Final = "event"
"""Facts of a manifest's provenance: what it is to replace, and the stale event whose sample it was
trained on."""

HERE: Final = "learned_on"
"""The gateway that has learned it itself, which leaves suspect rows out."""


def retrained(provenance: Mapping[str, str]) -> bool:
    """Was it trained from what a plant measured in service."""
    return RETRAINED in provenance or EVENT in provenance


def suspect(
    provenance: Mapping[str, str], suspects: Callable[[str], Sequence[str]], gateway: str
) -> str | None:
    """Why its rows may have been a fault: then a person must want it, whatever is configured.

    *suspects* gives the alarms in or after which the rows of an event were made, and that nobody
    has dismissed.
    """
    if not retrained(provenance):
        return None
    event = provenance.get(EVENT, "")
    if not event:
        if provenance.get(HERE) == gateway:
            return None
        return "it was retrained, and nothing says on which rows"
    alarms = suspects(event)
    if not alarms:
        return None
    return f"it was trained on rows in or after {_named(alarms)}, which nobody has dismissed"


def stands(alarms: Sequence[str]) -> str | None:
    """Alarms of its machines that stand now, and that nobody has dismissed, also if they came
    later than its rows: what it learned may have been their beginning.
    """
    if not alarms:
        return None
    return f"{_named(alarms)} of its machines: it stands, and nobody has dismissed it"


def silences(past: Iterable[Mapping[str, Any]]) -> str | None:
    """Which alarms that stand or were confirmed it would not raise, by its back-test (the ``past``
    of a report): a person must want that, too.
    """
    found = [
        f"{p['alarm']} ({p['label'] or 'it stands'})"
        for p in past
        if p["label"] != "dismissed" and p["candidate"] is False
    ]
    return f"it silences {_named(found)}" if found else None


def concerns(tag: str, instance: str, inputs: Collection[str]) -> bool:
    """Is an alarm on *tag* one of the machine *instance*: of what it gives, or of its results."""
    return tag in inputs or tag.startswith(f"model/{instance}/")


def _named(alarms: Sequence[str]) -> str:
    words = ", ".join(dict.fromkeys(alarms))
    return f"the alarm{'s' if len(set(alarms)) > 1 else ''} {words}"
