"""One retained document for each model instance, kept true at every broker."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from agent.codecs.json import timestamp
from agent.core.ports import Clock, Sink, StateStore

LOOK_S: Final = 2.0
"""A change is told so soon."""

EVIDENCE_S: Final = 300.0
"""Numbers that grow with every window are told with a change, and so often by themselves."""

NAMESPACE: Final = "state_documents"

Facts = Mapping[str, Any]


class Documents(Protocol):
    """Who knows the instances."""

    def outlines(self) -> Mapping[str, Facts]:
        """Instance -> its document without what grows with every window."""
        ...

    def document(self, instance: str) -> Facts | None:
        """The whole document, without ``ts``; None when a reload has taken the instance away."""
        ...


async def tell(
    documents: Documents,
    name: str,
    sink: Sink,
    state: StateStore,
    clock: Clock,
    look_s: float = LOOK_S,
) -> None:
    """Publish what the sink *name* does not have yet, for as long as it is connected.

    The document of an instance that is gone is taken back, also after a restart.
    """
    told: dict[str, tuple[Facts, Facts]] = {}
    at_s: dict[str, float] = {}
    known = set(state.get(NAMESPACE, name) or ())
    while True:
        now = documents.outlines()
        for instance, outline in now.items():
            outlined, whole = told.get(instance, (None, None))
            if outline == outlined and clock.mono_s() - at_s[instance] < EVIDENCE_S:
                continue
            document, at_s[instance] = documents.document(instance), clock.mono_s()
            if document is None:
                continue
            if document != whole:
                facts = {"ts": timestamp(clock.wall_ns()), **document}
                await sink.publish_facts(f"_model/{instance}/state", facts, retain=True)
            told[instance] = outline, document
        for instance in known - now.keys():
            await sink.publish_facts(f"_model/{instance}/state", None, retain=True)
            told.pop(instance, None)
        if known != now.keys():
            known = set(now)
            state.set(NAMESPACE, name, sorted(known))
        await asyncio.sleep(look_s)
