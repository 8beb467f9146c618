"""What stands at a broker: retained messages, read once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agent.core.errors import TransientError
from agent.core.ports import Clock
from agent.links.mqtt import MqttLink
from agent.links.mqtt_peer import Incoming, Listening, Peer, Receipt
from agent.links.names import Lookup

MOST_S: Final = 60.0
ATTEMPTS: Final = 2
"""A document that is new between two looks is no reason to give up."""

BATCH: Final = 100
"""Filters that are asked for at once: what they match is below what a broker queues."""

RECEIVE: Final = 1000
"""Messages without acknowledgement that we take (MQTT 5: Receive Maximum)."""

Found = dict[str, bytes]
"""Topic -> payload."""


async def retained(peer: Peer, topic_filter: str, clock: Clock, quiet_s: float) -> Found:
    """Everything retained that matches *topic_filter*; *quiet_s* without a message is the end.

    Raises:
        TransientError: E666, when the broker holds some of it back: it queues only so many
            messages for one client (Mosquitto: `max_queued_messages`, 1000) and drops the others
            without a word. That shows when other ones arrive at QoS 1, where a queue is what
            limits them, than at QoS 0, where the socket does.
        PermanentError: The broker does not let us listen.
    """
    for _ in range(ATTEMPTS):
        queued, at_once = await asyncio.gather(
            *(
                _read(
                    replace(peer, client_id=f"{peer.client_id}-{qos}"),
                    [[topic_filter]],
                    qos,
                    clock,
                    quiet_s,
                )
                for qos in (1, 0)
            )
        )
        if queued.keys() == at_once.keys():
            return queued
    came, known = min(len(queued), len(at_once)), len(queued.keys() | at_once.keys())
    raise TransientError(
        f"the broker holds messages back: {came} of at least {known} came",
        where=peer.where,
        fix="Raise `max_queued_messages` at the broker, or name the gateways: `--gateways FILE`.",
        code="E666",
    )


async def retained_by_part(
    peer: Peer, filters: Sequence[str], clock: Clock, quiet_s: float
) -> Found:
    """Everything retained that matches one of *filters*, a few of them at a time."""
    parts = [filters[i : i + BATCH] for i in range(0, len(filters), BATCH)]
    return await _read(peer, parts, 1, clock, quiet_s)


async def _read(
    peer: Peer, parts: Sequence[Sequence[str]], qos: int, clock: Clock, quiet_s: float
) -> Found:
    """One connection: a broker sends what is retained to whoever subscribes."""
    found: Found = {}
    came = asyncio.Event()

    def take(message: Incoming, _receipt: Receipt) -> None:
        if message.payload:
            found[message.topic] = message.payload
        came.set()

    listening = Listening(take, 0, RECEIVE)
    async with MqttLink(peer, None, Lookup(peer.host), clock, v5=True, listening=listening) as link:
        for filters in parts:
            await link.inbox.listen(filters, qos)
            if link.inbox.refused:
                raise link.inbox.why_not(list(link.inbox.refused))
            await _quiet(came, peer, clock, quiet_s)
    return found


async def _quiet(came: asyncio.Event, peer: Peer, clock: Clock, quiet_s: float) -> None:
    """Return when nothing has come for a while."""
    ends_s = clock.mono_s() + MOST_S
    while clock.mono_s() < ends_s:
        came.clear()
        try:
            async with asyncio.timeout(quiet_s):
                await came.wait()
        except TimeoutError:
            return
    raise TransientError(
        f"messages still came after {MOST_S:g} s",
        where=peer.where,
        fix="Name fewer gateways: `--gateways FILE`.",
        code="E666",
    )
