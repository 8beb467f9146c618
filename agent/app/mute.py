"""Devices of which a recording has nothing: what names their tags still holds."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.config.base import Context
from agent.core.ports import Emit
from agent.core.tag import TagSet


@dataclass(frozen=True)
class Mute:
    """In place of a device's section: its tags are known, and it never says anything."""

    section: Any

    def tag_sets(self, device: str) -> dict[str, TagSet]:
        """Those of the device."""
        found: dict[str, TagSet] = self.section.tag_sets(device)
        return found

    def build(self, name: str, ctx: Context) -> "MuteSource":
        """A source that gives no row."""
        del ctx
        return MuteSource(self.tag_sets(name))


class MuteSource:
    """Port `Source`."""

    def __init__(self, streams: Mapping[str, TagSet]) -> None:
        self.streams = streams

    def facts(self) -> dict[str, Any]:
        """Why there is nothing."""
        return {"connected": False, "last_error": "the recording has nothing of this device"}

    async def run(self, emit: Emit) -> None:
        """Until cancelled."""
        del emit
        await asyncio.get_running_loop().create_future()
