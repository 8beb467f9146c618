"""One tag of a Modbus device, read by itself when somebody asks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agent.codecs.modbus_words import Words
from agent.core.quality import Quality
from agent.links.modbus import Ask
from agent.links.modbus_scan import Scan
from agent.sources.modbus_cost import Cost
from agent.sources.modbus_layout import layout

if TYPE_CHECKING:
    from agent.sources.modbus import ModbusConfig

_NO_GAPS: Final = Cost(request_s=0.0, byte_s=1.0)
"""Requests cost nothing: none reads along what nobody asked for, which a device may refuse."""

CodeOf = Callable[[str], float]
"""A text of the tag -> the code that stands for it."""


def _no_text(_text: str) -> float:
    return float("nan")


class Demand:
    """The request that reads a tag (two, when its scale factor is elsewhere), and what it brought.

    Attributes:
        value: Engineering units, NaN where Bad; of a text its code. quality: of the last read.
    """

    def __init__(self, config: "ModbusConfig", tag: str, code: CodeOf = _no_text) -> None:
        names = [tag]
        if (scale_by := config.tags[tag].scale_by) is not None:
            names.append(scale_by)
        tags = {n: config.tags[n] for n in names}
        reads, fields = layout(tags, config.places, config.max_registers, _NO_GAPS)
        self._scan = Scan(config.unit, reads)
        self._words = Words(fields, lambda _column, text: code(text))
        self.value, self.quality = float("nan"), int(Quality.BAD)

    @property
    def data(self) -> bytes:
        """The bytes of the answer."""
        return self._scan.buffer.tobytes()

    @property
    def answered(self) -> bool:
        """The device gave the data, whatever they mean."""
        return bool((self._scan.quality == Quality.GOOD).all())

    @property
    def flaw(self) -> str:
        """Why there are no data, in words; empty when there are."""
        return "" if self.answered else self._scan.flaw()

    async def read(self, ask: Ask, timeout_s: float) -> None:
        """Ask the device over a line that is held."""
        await ask(self._scan, timeout_s)
        v, q = self._words.decode(self._scan.buffer, self._scan.quality)
        self.value, self.quality = float(v[0]), int(q[0])
