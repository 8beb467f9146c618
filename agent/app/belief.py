"""Which manifests are believed: by the keyring, or by the gateway's own key for what it learned."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from agent.config.schema import Settings
from agent.core.ports import Clock, StateStore
from agent.core.registry import Judged, Offer
from agent.registries.ownkey import OwnKey
from agent.registries.trust import Trust


class Belief:
    """Port `Judge` by what the configuration trusts now."""

    def __init__(
        self, settings: Callable[[], Settings], state: StateStore, clock: Clock, own: OwnKey
    ) -> None:
        self._settings, self._state, self._clock = settings, state, clock
        self._own = own

    def _trust(self, own: bytes | None = None) -> Trust:
        section = self._settings().trust
        if section is None:
            return Trust(None, "", self._state, self._clock, own)
        return Trust(Path(section.keyring), section.root, self._state, self._clock, own)

    async def judge(self, offer: Offer, data: bytes, *, unsigned: bool) -> Judged:
        section = self._settings().models.get(offer.name)
        own = None
        if section is not None and section.learned:
            own = await asyncio.to_thread(self._own.public)
        return await self._trust(own).judge(offer, data, unsigned=unsigned)

    def now_ns(self) -> int:
        return self._trust().now_ns()
