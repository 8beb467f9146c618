"""Writing a tag of a Modbus device: once, checked by its echo and by reading it back.

Imported only where the configuration has `writes:`; a process without it has none of this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from agent.codecs.modbus_encode import Unencodable, encode, raw
from agent.codecs.modbus_types import bytes_swapped
from agent.config.schema import WriteRule
from agent.core.requests import Declined
from agent.links import modbus_write as wire
from agent.links.modbus import Ask, Endpoint
from agent.links.modbus_scan import REFUSAL
from agent.links.turns import Priority
from agent.sources.modbus_address import Place
from agent.sources.modbus_demand import Demand
from agent.sources.modbus_plan import BIT_TABLES

if TYPE_CHECKING:
    from agent.sources.modbus import ModbusConfig

_ILLEGAL_FUNCTION: Final = 1
_ACKNOWLEDGE: Final = 5
"""Exception code of a device that has accepted and is still at it: no refusal."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What shall be in the registers.

    Attributes:
        data: Bytes of the registers; one byte, 0 or 1, for a coil and for a bit.
        bit: Bit of the register as it comes, 0 lowest; None when the tag is all of it.
        value: In engineering units, as the registers hold it.
    """

    place: Place
    data: bytes
    bit: int | None
    value: float

    @property
    def on(self) -> bool:
        """For a coil and a bit: its new state."""
        return bool(self.data[0])

    def holds(self, read: bytes) -> bool:
        """Is it what was read back?"""
        if self.place.table in BIT_TABLES:
            return bool(read[0] & 1) == self.on
        if self.bit is None:
            return read == self.data
        return bool(int.from_bytes(read, "big") >> self.bit & 1) == self.on


class ModbusWriter:
    """Writes the tags of one device over its shared line."""

    def __init__(self, device: str, config: "ModbusConfig", endpoint: Endpoint) -> None:
        self._device, self._config, self._endpoint = device, config, endpoint

    async def write(
        self, tag: str, value: float, rule: WriteRule, still: Callable[[], None]
    ) -> dict[str, Any]:
        """Write *value* (engineering units) to *tag*; what is known afterwards, plain JSON.

        *still* is called when the line is ours and raises when the write may no longer be made.
        Raises `Declined` when the value is not in the device for certain. Nothing is ever sent
        twice.
        """
        change = self._change(tag, value)
        demand = Demand(self._config, tag)
        facts: dict[str, Any] = {"tag": f"{self._device}/{tag}", "new": change.value, "old": None}
        async with self._endpoint.held(Priority.WRITE) as ask:
            still()
            if rule.confirm == "read_back":
                await self._before(ask, demand, facts)
            write = self._build(change, rule, demand)
            await ask(write, self._config.timeout_s)
            self._refused(write, change, facts)
            if rule.confirm == "echo":
                return self._unread(write, facts)
            if self._endpoint.connected:
                await demand.read(ask, self._config.timeout_s)
                return self._verdict(write, change, demand, facts)
        await self._endpoint.back(2 * self._config.timeout_s + 1.0)
        async with self._endpoint.held(Priority.WRITE) as ask:
            await demand.read(ask, self._config.timeout_s)
        return self._verdict(write, change, demand, facts)

    def _change(self, tag: str, value: float) -> _Change:
        one, place = self._config.tags[tag], self._config.places[tag]
        try:
            number = raw(value, place.kind, one.scale, one.offset)
            flag = place.kind == "bool"
            data = bytes([int(number)]) if flag else encode(number, place.kind, one.order)
        except Unencodable as e:
            raise Declined(e.result, str(e), where=self._where(tag), code="E351") from e
        bit = None
        if place.kind == "bool" and place.table not in BIT_TABLES:
            bit = (one.bit or 0) ^ (8 if bytes_swapped(one.order) else 0)
        return _Change(place, data, bit, number * one.scale + one.offset)

    async def _before(self, ask: Ask, demand: Demand, facts: dict[str, Any]) -> None:
        """The old value. A device that does not even give that is not written to."""
        await demand.read(ask, self._config.timeout_s)
        if not demand.answered:
            why = demand.flaw if self._endpoint.connected else self._endpoint.error
            raise Declined(
                "not_sent",
                f"nothing was written: {why or 'no connection'}",
                where=str(facts["tag"]),
                fix="A tag that cannot be read is written with `confirm: echo`.",
                code="E352",
                facts=facts,
            )
        facts["old"] = demand.value if isfinite(demand.value) else None

    def _build(self, change: _Change, rule: WriteRule, before: Demand) -> wire.Write:
        unit, address, many = self._config.unit, change.place.span.first, rule.function == "many"
        if change.place.table in BIT_TABLES:
            if many:
                return wire.coils(unit, address, [change.on])
            return wire.coil(unit, address, change.on)
        data = change.data
        if change.bit is not None:
            if rule.bit == "mask":
                return wire.mask(unit, address, change.bit, change.on)
            others = int.from_bytes(before.data, "big") & ~(1 << change.bit)
            data = (others | change.on << change.bit).to_bytes(2, "big")
        if len(data) == 2 and not many:
            return wire.register(unit, address, data)
        return wire.registers(unit, address, data)

    def _refused(self, write: wire.Write, change: _Change, facts: dict[str, Any]) -> None:
        if not write.sent:
            why = self._endpoint.error or "no connection"
            raise Declined("not_sent", f"nothing was written: {why}", where=str(facts["tag"]),
                           code="E352", facts=facts)  # fmt: skip
        if write.refusal in {0, _ACKNOWLEDGE}:
            return
        fix = ""
        if write.refusal == _ILLEGAL_FUNCTION:
            fix = "Try `function: many` for this tag."
            if change.bit is not None:
                fix = ("This device cannot change one bit. If nobody else writes this register, "
                       "also not the device itself, set `bit: rewrite` for this tag.")  # fmt: skip
        word = REFUSAL.get(write.refusal, "unknown")
        raise Declined(
            "refused",
            f"the device refuses the write: {write.refusal} {word}",
            where=str(facts["tag"]),
            fix=fix,
            code="E353",
            facts=facts | {"exception_code": write.refusal},
        )

    def _unread(self, write: wire.Write, facts: dict[str, Any]) -> dict[str, Any]:
        """The verdict without reading back."""
        if write.done:
            return facts | {"result": "sent"}
        raise _unknown("the device did not confirm the write; it may have done it or not", facts)

    def _verdict(
        self, write: wire.Write, change: _Change, after: Demand, facts: dict[str, Any]
    ) -> dict[str, Any]:
        """What the device has now is what counts."""
        facts["found"] = after.value if isfinite(after.value) else None
        if after.answered and change.holds(after.data):
            return facts | {"result": "written", "echo": write.done}
        if after.answered and write.done:
            raise Declined(
                "differs",
                f"the device confirmed {change.value:g} and then gave back {after.value:g}",
                where=str(facts["tag"]),
                fix="It has limits of its own, or writes the tag itself; see its manual.",
                code="E355",
                facts=facts,
            )
        said = "confirmed the write" if write.done else "did not confirm the write"
        read = f"reading back gave {after.value:g}" if after.answered else (
            f"reading back failed: {after.flaw or self._endpoint.error or 'no connection'}"
        )  # fmt: skip
        raise _unknown(f"the device {said}, and {read}", facts)

    def _where(self, tag: str) -> str:
        return f"{self._device}/{tag}"


def _unknown(what: str, facts: dict[str, Any]) -> Declined:
    """Nobody can tell whether the value is in the device."""
    return Declined(
        "unknown",
        what,
        where=str(facts["tag"]),
        fix="Look at the machine before you write again: nothing is repeated by itself.",
        code="E354",
        facts=facts,
    )
