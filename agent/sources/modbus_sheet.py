"""A register map as a spreadsheet: one row per tag, one column per setting, and back.

Before the head stand the settings of the profile itself: ``#addressing`` and its value.
"""

import re
from collections.abc import Mapping, Sequence
from math import isinf
from typing import Any, Final

from agent.config import sheet
from agent.config.document import Document, Hex, Place, parse
from agent.config.report import Problem, did_you_mean
from agent.config.sheet import Cell, CellError, Decimal
from agent.config.writing import scalar
from agent.sources.modbus import ModbusConfig
from agent.sources.modbus_tags import ModbusTag

_HEX: Final = re.compile(r"^0[xX][0-9a-fA-F]{1,16}$")
_WHOLE: Final = ("bit", "shift", "length", "per_register")
_NUMBERS: Final = ("scale", "offset", "deadband", "range_low", "range_high")
_SETTINGS: Final = tuple(f.alias or n for n, f in ModbusConfig.model_fields.items() if n != "tags")

COLUMNS: Final = (
    "name",
    *(
        column
        for field_name, f in ModbusTag.model_fields.items()
        for column in (
            ("range_low", "range_high") if f.alias == "range" else (f.alias or field_name,)
        )
    ),
)
"""Every setting of a tag has its column; a range has two."""


# Out


def rows(data: Mapping[str, Any], decimal: Decimal) -> list[list[str]]:
    """A profile (or a device), as its file has it, as the rows of a spreadsheet."""
    found = [[f"#{key}", text] for key, text in _settings(data)]
    found.append(list(COLUMNS))
    for name, raw in data.get("tags", {}).items():
        cells = {"name": sheet.guarded(name)} | _cells(ModbusTag.model_validate(raw), decimal)
        found.append([cells.get(column, "") for column in COLUMNS])
    return found


def _settings(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for key, value in data.items():
        if isinstance(value, dict) and key != "tags":
            found += [(f"{key}.{k}", scalar(v)) for k, v in value.items()]
        elif key != "tags":
            found.append((key, scalar(value)))
    return found


def _cells(tag: ModbusTag, decimal: Decimal) -> dict[str, str]:
    """Column -> cell, of the settings that are not the usual ones."""
    found: dict[str, str] = {}
    for name, f in ModbusTag.model_fields.items():
        value, key = getattr(tag, name), f.alias or name
        if value == f.default and name != "reg":
            continue
        if key == "range":
            ends = [sheet.spelled(x, decimal) if abs(x) != float("inf") else "" for x in value]
            found |= dict(zip(("range_low", "range_high"), ends, strict=True))
        else:
            found[key] = _cell(key, value, decimal)
    return found


def _cell(key: str, value: Any, decimal: Decimal) -> str:
    if key == "mask":
        return f"0x{value:04X}"
    if key == "invalid":
        return _joined([_special(x, decimal) for x in value])
    if key == "enum":
        return _joined([f"{code}={_escaped(text)}" for code, text in value.items()])
    if key in _NUMBERS:
        return sheet.spelled(value, decimal)
    if key in _WHOLE or key == "reg":
        return str(value)
    return sheet.guarded(str(value))


def _special(value: float | str, decimal: Decimal) -> str:
    """A special value; one with decimals keeps its decimal sign, also when they are zero."""
    if not isinstance(value, float) or isinf(value):
        return str(value)
    text = repr(value)
    text = text if "." in text else text.replace("e", ".0e")
    return text.replace(".", ",") if decimal == "comma" else text


def _joined(parts: Sequence[str]) -> str:
    """Parts of one cell; a bar first where a spreadsheet would calculate or round."""
    text = "|".join(parts)
    number = re.fullmatch(r"-?[0-9]{1,15}|-?[0-9]+[.,][0-9eE+-]+", text)
    risky = not number and (text[:1] in {"=", "+", "-", "@", "'", "#"} or text.isdecimal())
    return f"|{text}" if risky else text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def text(data: Mapping[str, Any], made_from: str) -> str:
    """A profile as a file: settings first, one line per tag."""
    lines = [f"# Made from {made_from} by `edge-agent tags import`."]
    lines += [f"{key}: {scalar(value)}" for key, value in data.items() if key != "tags"]
    lines.append("tags:")
    lines += [f"  {scalar({name: tag})[1:-1]}" for name, tag in data["tags"].items()]
    return "\n".join(lines) + "\n"


# In


class Sheet:
    """What a spreadsheet says.

    Attributes:
        data: The profile, plain, as a file would give it.
        places: Path below the profile -> the cell it comes from.
        problems: What is wrong with single cells; line and column are those of the sheet.
    """

    def __init__(self, table: Sequence[Sequence[Cell]]) -> None:
        self.data: dict[str, Any] = {}
        self.places: dict[tuple[str | int, ...], Place] = {}
        self.problems: list[Problem] = []
        head: dict[int, str] | None = None
        body: list[Sequence[Cell]] = []
        for cells in table:
            if cells[0].column == 1 and cells[0].text.startswith("#"):
                self._setting(cells)
            elif head is None:
                head = self._head(cells)
            else:
                body.append(cells)
        if head is None:
            self._problem(Cell(1, 1, ""), "E331", "there is no row of column names", _HEAD_FIX)
            return
        numeric = {c for c, column in head.items() if column in {*_NUMBERS, "invalid"}}
        texts = [p for cells in body for c in cells if c.column in numeric for p in _parts(c.text)]
        self._decimal = sheet.decimals(texts)
        tags: dict[str, Any] = {}
        self.data["tags"] = tags
        self._place(("tags",), Cell(1, 1, ""))
        for cells in body:
            self._tag(tags, {head[c.column]: c for c in cells if head.get(c.column)}, cells[0])

    def _setting(self, cells: Sequence[Cell]) -> None:
        """``#poll;1s``; a row that begins with ``##`` or ``# `` is a remark."""
        key = cells[0].text[1:]
        if not key or key[0] in "# ":
            return
        top, _, below = key.partition(".")
        if top not in _SETTINGS:
            fix = did_you_mean(top, _SETTINGS) or "A remark begins with ## ."
            self._problem(cells[0], "E104", f"`{top}` is not a setting of a device", fix)
            return
        value = cells[1] if len(cells) > 1 else cells[0]
        document = parse(value.text if len(cells) > 1 else "")
        if document.problems:
            self._problem(value, "E332", f"`{value.text}` is no value", document.problems[0].fix)
            return
        path = (top, below) if below else (top,)
        section = self.data.setdefault(top, {}) if below else self.data
        if not isinstance(section, dict) or path[-1] in section:
            self._problem(cells[0], "E002", f"`{key}` stands twice", "Remove one of the rows.")
            return
        section[path[-1]] = document.data
        self._place(path, value)
        self.places.setdefault((top,), self.places[path])

    def _head(self, cells: Sequence[Cell]) -> dict[int, str]:
        found: dict[int, str] = {}
        for cell in cells:
            column = cell.text.strip().lower().replace(" ", "_")
            if column.startswith("#"):
                continue
            if column not in COLUMNS:
                fix = did_you_mean(column, COLUMNS) or (
                    f"Known columns: {', '.join(COLUMNS)}; a column of remarks begins with #."
                )
                self._problem(cell, "E331", f"there is no column `{cell.text}`", fix)
            elif column in found.values():
                self._problem(cell, "E331", f"the column `{column}` stands twice", "Remove one.")
            else:
                found[cell.column] = column
        for needed in ("name", "reg"):
            if needed not in found.values():
                self._problem(cells[0], "E331", f"the column `{needed}` is missing", _HEAD_FIX)
        return found

    def _tag(self, tags: dict[str, Any], cells: Mapping[str, Cell], first: Cell) -> None:
        """One row: a tag, or the problems of its cells."""
        if "name" not in cells:
            if cells:
                self._problem(first, "E332", "the row has no `name`", "Give the tag a name.")
            return
        name = sheet.unguarded(cells["name"].text)
        if name in tags:
            line = self.places["tags", name].line
            what = f"`{name}` stands twice; the first is in row {line}"
            self._problem(cells["name"], "E002", what, "Remove one of them, or rename it.")
            return
        tag: dict[str, Any] = {}
        tags[name] = tag
        self._place(("tags", name), cells["name"])
        for column, cell in cells.items():
            if column == "name":
                continue
            try:
                sheet.refuse_formula(cell.text)
                value = self._value(column, cell.text)
            except CellError as e:
                self._problem(cell, "E332", e.what, e.fix)
                continue
            key = "range" if column.startswith("range_") else column
            if key == "range":
                low, high = tag.get("range", [float("-inf"), float("inf")])
                value = [value, high] if column == "range_low" else [low, value]
            tag[key] = value
            self._place(("tags", name, key), cell)

    def _value(self, column: str, text: str) -> Any:
        """The cell as the file would have it."""
        if column == "reg":
            return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else _hex(text)
        if column in _WHOLE:
            return sheet.whole(text)
        if column in _NUMBERS:
            return sheet.number(text, self._decimal)
        if column == "invalid":
            return [self._invalid(part) for part in _parts(text)]
        if column == "enum":
            return _enum(text)
        if column == "mask":
            return int(text) if text.isdecimal() else _hex(text)
        return sheet.unguarded(text)

    def _invalid(self, text: str) -> float | str:
        if text.lower() == "nan" or _HEX.match(text):
            return _hex(text)
        if "," in text or "." in text or text.endswith("inf"):
            return sheet.number(text, self._decimal)
        return sheet.whole(text)

    def _place(self, path: tuple[str | int, ...], cell: Cell) -> None:
        self.places[path] = Place(cell.row, cell.column, 1)

    def _problem(self, cell: Cell, code: str, what: str, fix: str) -> None:
        self.problems.append(Problem(code, what, cell.row, cell.column, fix=fix))

    def document(self, device: str, given: Mapping[str, Any]) -> Document:
        """A configuration with this one device, *given* added, every part with its cell."""
        data = {"version": 1, "gateway": {"id": "g"}, "devices": {device: {**given, **self.data}}}
        places = {("devices", device, *path): place for path, place in self.places.items()}
        places.setdefault(("devices", device), Place(1, 1, 1))
        return Document(data, dict(places), dict(places))


_HEAD_FIX: Final = "The first row names the columns: name, reg, as, order, ..."


def _hex(text: str) -> Hex | str:
    return Hex(f"0x{text[2:]}") if _HEX.match(text) else text


def _parts(text: str) -> list[str]:
    """A cell cut at its bars; a bar after a backslash is none."""
    parts = re.findall(r"(?:\\.|[^|\\])+", text)
    return [p.strip() for p in parts if p.strip()]


def _enum(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in _parts(text):
        code, equals, word = part.partition("=")
        code = code.strip()
        if not equals:
            raise CellError(f"`{part}` is no code with its text", "Write 0=off|1=running.")
        if code in found:
            raise CellError(f"the code {code} stands twice", "Remove one.")
        found[code] = re.sub(r"\\(.)", r"\1", word.strip())
    return found
