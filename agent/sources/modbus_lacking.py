"""What a device lacks: shared by its scan classes, kept on disk, tried again now and then."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from agent.core.ports import Clock, StateStore
from agent.sources.modbus_holes import Known, read, written
from agent.sources.modbus_plan import Span, Table

if TYPE_CHECKING:
    from agent.sources.modbus import ModbusConfig

NAMESPACE: Final = "hole"

ASK_AGAIN_S: Final = 600.0
"""A quarantined tag or hole is tried again this often: devices get new firmware."""

DOUBT_AGAIN_S: Final = 60.0
"""Pause between two bisections because of a device failure."""


class Holes:
    """What a device lacks, shared by its scan classes and kept on disk.

    Kept under the device's name together with where it is: another device in its place is
    learnt anew.

    Attributes:
        version: Another number whenever more is known: plans of before are not the best any more.
    """

    def __init__(
        self, device: str, config: "ModbusConfig", state: StateStore | None, clock: Clock
    ) -> None:
        self._state, self._device = state, device
        self.version = 0
        self._key = config.learnt_as(device)
        self.tables: dict[Table, Known] = read(state.get(NAMESPACE, self._key) if state else None)
        self._doubt_at_s = -inf
        early = crc32(self._key.encode()) / 2**33  # half of the time at most: no two in step
        self._try_at_s, self._tried = clock.mono_s() + (1.0 - early) * ASK_AGAIN_S, 0

    async def keep(self) -> None:
        """More is known now: write it down."""
        self.version += 1
        if self._state is not None:
            await self._state.put(NAMESPACE, self._key, written(self.tables) or None)

    def may_doubt(self, now_s: float) -> bool:
        """Is it time to look whether a device failure is only that of some registers?"""
        if now_s < self._doubt_at_s:
            return False
        self._doubt_at_s = now_s + DOUBT_AGAIN_S
        return True

    def due(self, now_s: float) -> Iterator[tuple[Table, Span]]:
        """One thing to try again, when it is time: over all of them once per `ASK_AGAIN_S`."""
        if now_s < self._try_at_s:
            return
        lacking = [(t, s) for t, k in self.tables.items() for s in sorted(k.barriers())]
        if lacking:
            self._try_at_s = now_s + ASK_AGAIN_S / len(lacking)
            self._tried += 1
            yield lacking[self._tried % len(lacking)]

    def memory(self) -> dict[str, Any]:
        """What the next scan depends on, as JSON."""
        return {
            "lacks": written(self.tables),
            "doubt_at": None if self._doubt_at_s == -inf else self._doubt_at_s,
            "try_at": self._try_at_s,
            "tried": self._tried,
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """What `memory` gave. What is known already makes no plan anew: its scans would begin at
        another request.
        """
        lacks = read(memory["lacks"])
        if written(lacks) != written(self.tables):
            self.version += 1
            self.tables.update(lacks)
        self._doubt_at_s = -inf if memory["doubt_at"] is None else float(memory["doubt_at"])
        self._try_at_s, self._tried = float(memory["try_at"]), int(memory["tried"])
