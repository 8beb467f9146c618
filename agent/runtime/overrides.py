"""By hand and for a time: devices out of service, tags with a substituted value."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any, Final

import numpy as np
import structlog

from agent.core.batch import Batch
from agent.core.errors import PermanentError
from agent.core.ports import AuditTrail, Clock, StateStore
from agent.core.quality import Quality

log = structlog.get_logger()

NAMESPACE: Final = "override"

LONGEST_S: Final = 30 * 86400.0
"""No override is longer: what is forgotten must end."""


@dataclass(frozen=True, slots=True)
class Override:
    """One hand on a device (``pump1``) or a tag (``pump1/flow``).

    Attributes:
        value: What the tag is said to be; None: the device is out of service.
        until_ns: Wall clock at which it ends by itself.
    """

    target: str
    value: float | None
    until_ns: int
    by: str
    why: str

    def facts(self) -> dict[str, Any]:
        """As JSON, for the state store and for people."""
        return {
            "target": self.target,
            "value": self.value,
            "until_ns": self.until_ns,
            "by": self.by,
            "why": self.why,
        }


class Overrides:
    """Every override that holds; kept over restarts, audited, ended by their time."""

    def __init__(self, state: StateStore, audit: AuditTrail, clock: Clock) -> None:
        self._state, self._audit, self._clock = state, audit, clock
        self.standing: dict[str, Override] = {}
        for target, value in state.items(NAMESPACE).items():
            if (one := _read(target, value)) is not None:
                self.standing[target] = one

    def apply(self, batch: Batch) -> Batch:
        """The batch as people want it seen: out of service, or with substituted values."""
        if not self.standing:
            return batch
        device = batch.stream.partition("~")[0]
        q = v = None
        for one in self.standing.values():
            if one.value is None and one.target == device:
                q = np.full_like(batch.q, Quality.OUT_OF_SERVICE)
                v = np.full_like(batch.v, nan)
                break
            column = batch.tags.column.get(one.target)
            if one.value is not None and column is not None:
                q = batch.q.copy() if q is None else q
                v = batch.v.copy() if v is None else v
                q[:, column], v[:, column] = Quality.SUBSTITUTED, one.value
        return batch if q is None or v is None else replace(batch, v=v, q=q)

    async def set(
        self, target: str, value: float | None, for_s: float, by: str, why: str
    ) -> Override:
        """Begin, or replace what stands for *target*. Raises `PermanentError`."""
        if not (isfinite(for_s) and 0 < for_s <= LONGEST_S):
            raise PermanentError(
                f"{for_s:g} s is no time for an override",
                fix=f"Give more than 0 and at most {LONGEST_S / 86400:g} days.",
                code="E780",
            )
        if value is not None and not isfinite(value):
            raise PermanentError(f"{value} is no value", fix="Give a number.", code="E780")
        one = Override(target, value, self._clock.wall_ns() + round(for_s * 1e9), by, why)
        self.standing[target] = one
        await self._keep(one)
        await self._audit.write("override.set", by, one.facts())
        log.warning("override.set", **one.facts())
        return one

    async def end(self, target: str, by: str) -> bool:
        """End it before its time; False when nothing stood."""
        one = self.standing.pop(target, None)
        if one is None:
            return False
        await self._state.put(NAMESPACE, target, None)
        await self._audit.write("override.ended", by, one.facts())
        log.info("override.ended", target=target, by=by)
        return True

    async def run(self) -> None:
        """End what is over, each second; for ever."""
        while True:
            await asyncio.sleep(1.0)
            now_ns = self._clock.wall_ns()
            for target in [t for t, o in self.standing.items() if o.until_ns <= now_ns]:
                await self.end(target, "agent")

    async def _keep(self, one: Override) -> None:
        await self._state.put(NAMESPACE, one.target, one.facts())


def _read(target: str, value: object) -> Override | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("until_ns"), int):
        return None
    number = value.get("value")
    if number is not None and not isinstance(number, int | float):
        return None
    return Override(
        target,
        None if number is None else float(number),
        int(value["until_ns"]),
        str(value.get("by", "")),
        str(value.get("why", "")),
    )
