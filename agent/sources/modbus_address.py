"""How devices count their registers, and the one address that is sent on the wire."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from agent.codecs.modbus_types import Kind
from agent.sources.modbus_plan import Span, Table

Addressing = Literal["zero_based", "one_based", "modicon5", "modicon6"]

_HEX: Final = re.compile(r"^0[xX][0-9a-fA-F]+$")
_DECIMAL: Final = re.compile(r"^[0-9]+$")

_DIGIT: Final[dict[int, Table]] = {0: "coil", 1: "discrete", 3: "input", 4: "holding"}
"""First digit of a display number (Modicon notation) -> table."""

_FIRST_DISPLAY: Final[dict[Table, int]] = {"holding": 40001, "input": 30001, "discrete": 10001}
"""First display number of each table, five digits; coils begin at 1, which says nothing."""


class TagError(Exception):
    """A tag that cannot be: why, the technician's next step, and the setting to change."""

    def __init__(self, code: str, what: str, fix: str, key: str = "reg") -> None:
        super().__init__(what)
        self.code, self.what, self.fix, self.key = code, what, fix, key

    def about(self, address: "Address") -> "TagError":
        """The same, with the address it is about."""
        return TagError(self.code, f"{address}: {self.what}", self.fix, self.key)


@dataclass(frozen=True, slots=True)
class Address:
    """A register (or bit) as the file writes it, and where it is on the wire.

    Attributes:
        wire: Address that is sent, from 0.
    """

    written: str
    table: Table
    wire: int

    def __str__(self) -> str:
        """``40011 -> holding, wire 10``."""
        return f"{self.written} -> {self.table}, wire {self.wire}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tag is on the wire: ``span`` of ``table`` (addresses from 0), read as ``kind``."""

    table: Table
    span: Span
    kind: Kind


def resolve(reg: int | str, table: Table | None, addressing: Addressing) -> Address:
    """The wire address of *reg*; *table* is None where the tag does not say one.

    Raises `TagError`: a number that cannot be.
    """
    number, is_hex = _number(reg)
    if addressing in {"modicon5", "modicon6"} and not is_hex:
        found, first = _display(number, addressing)
        if table not in {None, found}:
            what = f"{reg} -> {found}, wire {first}: but `table` says {table}"
            raise TagError("E302", what, "Remove `table:`, the number has it already.", "table")
        return Address(str(reg), found, first)
    said: Table = table or "holding"
    first = number - (addressing == "one_based") if is_hex else _counted(number, said, addressing)
    if not 0 <= first <= 0xFFFF:
        what = f"{reg} -> {said}, wire {first}: the wire has 0 to 65535"
        raise TagError("E302", what, "Correct `reg:`.")
    return Address(str(reg), said, first)


def _number(reg: int | str) -> tuple[int, bool]:
    """The number, and whether it was written in hex."""
    if isinstance(reg, int):
        return reg, False
    if _HEX.match(reg):
        return int(reg, 16), True
    if _DECIMAL.match(reg):
        return int(reg), False
    raise TagError("E302", f"`{reg}` is no register", "Write a number, or hex as 0x10.")


def _counted(number: int, table: Table, addressing: Addressing) -> int:
    """Wire address of a register that is counted from 0 or from 1."""
    base = 1 if addressing == "one_based" else 0
    if number < base:
        what = f"register {number} does not exist when counting from {base}"
        fix = f"The first register is `reg: {base}`"
        if number == 0:
            fix += "; if the manual counts from 0, write `addressing: zero_based`"
        raise TagError("E302", what, f"{fix}.")
    five = _FIRST_DISPLAY.get(table)
    if five is not None:
        six = five // 10_000 * 100_000 + 1
        if base == 0 and five <= number < five + 9999:
            raise _display_number(number, table, number - five, "modicon5")
        if six <= number < six + 0x10000:
            raise _display_number(number, table, number - six + base, "modicon6")
    return number - base


def _display_number(number: int, table: Table, reg: int, addressing: Addressing) -> TagError:
    """The off-by-one trap: a number from the manual's table is no wire address."""
    kind = "discrete inputs" if table == "discrete" else f"{table} registers"
    what = f"{number} is a display number; on the wire {kind} start at 0"
    fix = f"Write `reg: {reg}`, or `addressing: {addressing}` for the device."
    return TagError("E302", what, fix)


def _display(number: int, addressing: Addressing) -> tuple[Table, int]:
    """``40001`` -> holding register 0; the first digit is the table."""
    unit = 10_000 if addressing == "modicon5" else 100_000
    digit, first = divmod(number, unit)
    if digit not in _DIGIT or first == 0:
        fix = (
            f"Holding registers are {4 * unit + 1} and up, inputs {3 * unit + 1}, "
            f"discrete inputs {unit + 1}, coils 1; "
            "a plain wire address needs `addressing: zero_based`."
        )
        raise TagError("E302", f"{number} is no {addressing} number", fix)
    return _DIGIT[digit], first - 1
