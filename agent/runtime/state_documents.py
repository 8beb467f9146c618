"""One retained document for each model instance, kept true at every broker."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from agent.codecs.json import timestamp
from agent.core.ports import Clock, Sink, StateStore

LOOK_S: Final = 2.0
"""A change is told so soon."""

EVIDENCE_S: Final = 300.0
"""Numbers that grow with every window are told with a change, and so often by themselves."""

NAMESPACE: Final = "state_documents"

Documents = Mapping[str, Mapping[str, Any]]
"""Instance -> its document, without ``ts``; what grows with every window stands under
``evidence`` and ``agreement``.
"""

_GROWING: Final = frozenset({"evidence", "agreement"})


async def tell(
    documents: Callable[[], Documents],
    name: str,
    sink: Sink,
    state: StateStore,
    clock: Clock,
    look_s: float = LOOK_S,
) -> None:
    """Publish what the sink *name* does not have yet, for as long as it is connected.

    The document of an instance that is gone is taken back, also after a restart.
    """
    told: dict[str, Mapping[str, Any]] = {}
    at_s: dict[str, float] = {}
    known = set(state.get(NAMESPACE, name) or ())
    while True:
        now = documents()
        for instance, document in now.items():
            if not _due(told.get(instance), document, clock.mono_s() - at_s.get(instance, 0.0)):
                continue
            facts = {"ts": timestamp(clock.wall_ns()), **document}
            await sink.publish_facts(f"_model/{instance}/state", facts, retain=True)
            told[instance], at_s[instance] = document, clock.mono_s()
        for instance in known - now.keys():
            await sink.publish_facts(f"_model/{instance}/state", None, retain=True)
            told.pop(instance, None)
        if known != now.keys():
            known = set(now)
            state.set(NAMESPACE, name, sorted(known))
        await asyncio.sleep(look_s)


def _due(told: Mapping[str, Any] | None, document: Mapping[str, Any], age_s: float) -> bool:
    if told is None or _lasting(told) != _lasting(document):
        return True
    return age_s >= EVIDENCE_S and told != document


def _lasting(value: Any) -> Any:
    """*value* without what grows with every window."""
    if isinstance(value, Mapping):
        return {k: _lasting(v) for k, v in value.items() if k not in _GROWING}
    return value
