"""Spreadsheets as Excel writes them: delimiter, decimal sign, byte order mark, quotes."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from agent.core.errors import ConfigError

Decimal = Literal["point", "comma"]

_DELIMITERS: Final = ";,\t"
_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_NUMBER: Final = re.compile(r"^[-+]?[0-9]*[.,]?[0-9]+(?:[eE][-+]?[0-9]+)?$")
_LIKE_NUMBER: Final = re.compile(r"^[0-9][0-9.,:/\- eE]*$")
_FORMULA: Final = tuple("=+-@'#")
"""What a cell must not begin with: a spreadsheet would calculate."""

_EXACT_DIGITS: Final = 15
"""Digits that a spreadsheet keeps of a number."""


class CellError(Exception):
    """What is wrong with one cell, and the cure."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that is not empty; row and column from 1, as the spreadsheet counts."""

    row: int
    column: int
    text: str


def letters(column: int) -> str:
    """1 -> ``A``, 27 -> ``AA``."""
    found = ""
    while column:
        column, rest = divmod(column - 1, 26)
        found = chr(ord("A") + rest) + found
    return found


def read(data: bytes, where: str, encoding: str | None = None) -> list[list[Cell]]:
    """The rows that are not empty, each with its cells that are not."""
    text = _decoded(data, where, encoding)
    delimiter, skip = _delimiter(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    found: list[list[Cell]] = []
    try:
        for number, row in enumerate(rows, start=1):
            stripped = [t.strip() for t in row]
            cells = [Cell(number, i, t) for i, t in enumerate(stripped, start=1) if t]
            if cells and number > skip:
                found.append(cells)
    except csv.Error as e:
        raise ConfigError(
            f"this is no spreadsheet ({e})", where=where, fix="Save it as CSV UTF-8.", code="E330"
        ) from e
    return found


def write(rows: Iterable[Sequence[str]], decimal: Decimal) -> bytes:
    """Rows as Excel opens them with a double click: ``;`` where the decimal sign is a comma."""
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=";" if decimal == "comma" else ",", lineterminator="\r\n").writerows(
        rows
    )
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def _decoded(data: bytes, where: str, encoding: str | None) -> str:
    code = encoding or next((e for bom, e in _BOMS if data.startswith(bom)), "utf-8")
    try:
        return data.decode(code)
    except (UnicodeDecodeError, LookupError) as e:
        raise ConfigError(
            f"the file is no text in {code}",
            where=where,
            fix="Save it as CSV UTF-8, or say how it was saved: --encoding cp1252 (western "
            "Europe), cp949 (Korea), shift_jis (Japan).",
            code="E330",
        ) from e


def _delimiter(text: str) -> tuple[str, int]:
    """The delimiter, and how many rows say it: ``sep=;`` is a row of Excel's own."""
    first = text.split("\n", 1)[0].strip().strip('"')
    if first.lower().startswith("sep=") and len(first) == 5:
        return first[4], 1
    lines = [s for s in text.splitlines() if s.strip() and not s.lstrip('"').startswith("#")]
    head = lines[0] if lines else first
    return max(_DELIMITERS, key=head.count), 0


def spelled(number: float, decimal: Decimal) -> str:
    """A number as a cell: whole numbers without a decimal sign."""
    whole = float(number).is_integer() and abs(number) < 10.0**_EXACT_DIGITS
    text = str(int(number)) if whole else repr(float(number))
    return text.replace(".", ",") if decimal == "comma" else text


def guarded(text: str) -> str:
    """Text that a spreadsheet leaves alone: an apostrophe before what looks like something else."""
    return f"'{text}" if text.startswith(_FORMULA) or _LIKE_NUMBER.match(text) else text


def unguarded(text: str) -> str:
    """The text of a cell, without the apostrophe."""
    rest = text[1:]
    return rest if text.startswith("'") and guarded(rest) == text else text


def number(text: str, decimal: Decimal) -> float:
    """``0,1`` or ``0.1`` -> 0.1, as the file writes decimals; `CellError` for what is neither."""
    other = "." if decimal == "comma" else ","
    if _NUMBER.match(text) and other not in text:
        return float(text.replace(",", "."))
    if text in {"inf", "-inf"}:
        return float(text)
    fix = "Write it without thousands separators, with the decimal sign of the other cells."
    raise CellError(f"`{text}` is no number here, where decimals have a {decimal}", fix)


def whole(text: str) -> int:
    """A whole number; `CellError` for one that a spreadsheet has rounded."""
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return int(text)
    if _NUMBER.match(text) and ("e" in text.lower()):
        fix = "Write it in hex (0x...): a spreadsheet keeps 15 digits of a number."
        raise CellError(f"`{text}` was rounded by the spreadsheet", fix)
    raise CellError(f"`{text}` is no whole number", "Write a number without decimals.")


def decimals(cells: Iterable[str]) -> Decimal:
    """The decimal sign of a file, from its cells that hold numbers: a comma if one has a comma."""
    return "comma" if any(_NUMBER.match(t) and "," in t for t in cells) else "point"


def refuse_formula(text: str) -> None:
    """Raise `CellError` for what a spreadsheet made of a text that it took for a formula."""
    if re.fullmatch(r"#(?:N/A|NV|\S+[!?])", text):
        fix = "Write an apostrophe before the text, and save again."
        raise CellError(f"`{text}` is an error of the spreadsheet, not a value", fix)
