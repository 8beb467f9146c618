"""Tag lists as spreadsheets: every setting there and back, whatever wrote the file."""

import csv
import io
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.codecs.modbus_types import FLOATS, REGISTERS, UNSIGNED, limits
from agent.config.document import parse
from agent.config.sheet import guarded, letters, read, unguarded, write
from agent.sources.modbus_sheet import COLUMNS, Sheet, rows, text
from agent.sources.modbus_tags import ModbusTag

LETTERS = st.sampled_from(list("aZ09 .,;:=+-@'\"|\\#%/äß°온도µ€"))
LINES = st.text(LETTERS, max_size=8)
NAMES = st.text(st.sampled_from(list("aZ09_.-")), min_size=1, max_size=5)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ENDS = st.tuples(NUMBERS | st.just(-inf), NUMBERS | st.just(inf)).map(sorted)
REGISTER = st.integers(0, 65531)
SPECIAL = st.just("nan") | st.just("0x7C00") | NUMBERS | st.integers(-99, 99)
ANY = {"unit": LINES, "deadband": NUMBERS.map(abs), "class": NAMES, "scale_by": NAMES,
       "range": ENDS, "scale": NUMBERS, "offset": NUMBERS}  # fmt: skip


def some(**settings):
    """A part of these settings."""
    return st.fixed_dictionaries({}, optional=settings)


def numbers(kind):
    """Settings of a tag of one type, in every combination of those that go together."""
    low, high = limits(kind) if kind not in FLOATS else (0, 0)
    codes = st.dictionaries(st.integers(low, high).map(str), LINES, min_size=1, max_size=3)
    orders = ("CDAB", "BADC", "DCBA", "EFGHABCD")[: 4 if REGISTERS[kind] == 4 else 3]
    own = {"order": st.sampled_from(orders)}
    if kind in UNSIGNED:
        own |= {"mask": st.integers(1, high), "shift": st.integers(0, 7)}
    if kind in {"int8", "uint8"}:
        own["byte"] = st.sampled_from(["high", "low"])
    own["invalid"] = st.lists(SPECIAL if kind in FLOATS else st.integers(low, high), max_size=3)
    plain = some(**own, **ANY)
    if kind not in FLOATS:
        coded = {k: v for k, v in (own | ANY).items() if k not in {"scale", "offset", "scale_by"}}
        plain |= some(**coded, enum=codes)
    return st.builds(lambda reg, more: {"reg": reg, "as": kind} | more, REGISTER, plain)


TEXTS = some(
    per_register=st.sampled_from([1, 2]),
    encoding=st.sampled_from(["utf-8", "cp949"]),
    trim=st.sampled_from(["both", "keep"]),
    order=st.just("BADC"),
)
TAGS = st.one_of(
    *(numbers(kind) for kind in REGISTERS if kind != "bool"),
    st.builds(lambda reg, bit: {"reg": hex(reg), "bit": bit}, REGISTER, st.integers(0, 15)),
    st.builds(lambda r, t: {"reg": r, "table": t}, REGISTER, st.sampled_from(["coil", "input"])),
    TEXTS.map(lambda more: {"reg": 1, "as": "text", "length": 8} | more),
    st.just({"reg": 1, "as": "ymdhms_bcd", "zone": "Asia/Seoul", "order": "BADC"}),
)


def back(data):
    """What a spreadsheet of these bytes says, as a file would have it."""
    sheet = Sheet(read(data, "x.csv"))
    assert sheet.problems == []
    made = text(sheet.data, "x.csv")
    assert parse(made).data == sheet.data
    return sheet.data


@settings(max_examples=100)
@given(
    named=st.dictionaries(NAMES, TAGS, min_size=1, max_size=4),
    decimal=st.sampled_from(["point", "comma"]),
    classes=st.dictionaries(NAMES, st.sampled_from(["1s", "500ms", "2.5s"]), max_size=3),
)
def test_every_setting_comes_back(named, decimal, classes):
    """Names, types, codes with bars and backslashes, numbers to the last bit: as they were."""
    data = {"type": "modbus", "addressing": "zero_based", "poll": "1s", "tags": named}
    data |= {"classes": classes} if classes else {}
    found = back(write(rows(data, decimal), decimal))
    assert list(found["tags"]) == list(named)
    for name, tag in named.items():
        assert ModbusTag.model_validate(found["tags"][name]) == ModbusTag.model_validate(tag)
    assert {k: v for k, v in found.items() if k != "tags"} == {
        k: v for k, v in data.items() if k != "tags"
    }


def test_there_is_a_column_for_every_setting():
    """A setting that is added to tags is in the spreadsheet, too; a range has two columns."""
    settings_ = {f.alias or n for n, f in ModbusTag.model_fields.items()} - {"range"}
    assert settings_ | {"name", "range_low", "range_high"} == set(COLUMNS)


SHEET = [
    ["#addressing", "modicon5"],
    ["## remark", "by hand"],
    ["#classes.slow", "10s"],
    ["Name", "reg", "as", "Scale", "unit", "range_low", "range high", "#remark"],
    ["Zähler", "", "", "", "", "", "", ""],
    ["flow", "40011", "int16", "0,1", "m³/h", "-1,5", "", "ours"],
    ["온도", "40012", "", "", "°C", "", "", ""],
    [],
    ["temp", "0x10", "float32", "1", "'-", "", "100", ""],
]
FLOW = {"reg": 40011, "as": "int16", "scale": 0.1, "unit": "m³/h", "range": [-1.5, float("inf")]}


def saved(delimiter=";", quoting=csv.QUOTE_MINIMAL, table=SHEET):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator="\r\n").writerows(table)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved().encode(),
        saved().encode("utf-8-sig"),
        saved("\t").encode("utf-16"),
        ("sep=;\r\n" + saved()).encode("utf-8-sig"),
        saved(",").encode("utf-8-sig"),
        saved(quoting=csv.QUOTE_ALL).encode("utf-8-sig"),
        saved().replace("\r\n", "\n").encode(),
        (saved() + "\r\n;;;;\r\n").encode(),
        saved(",").replace('"0,1"', "0.1").replace('"-1,5"', "-1.5").encode(),
    ],
    ids=["plain", "bom", "unicode text", "sep", "comma", "quoted", "unix", "empty rows", "point"],
)
def test_as_spreadsheets_are_saved(data):
    """Semicolons and decimal commas, commas and points, tabs in UTF-16, marks, quotes, blanks."""
    sheet = Sheet(read(data, "x.csv"))
    assert {k: v for k, v in sheet.data.items() if k != "tags"} == {
        "addressing": "modicon5",
        "classes": {"slow": "10s"},
    }
    assert sheet.data["tags"]["flow"] == FLOW
    assert sheet.data["tags"]["온도"] == {"reg": 40012, "unit": "°C"}
    assert sheet.data["tags"]["temp"] == {
        "reg": 16, "as": "float32", "scale": 1.0, "unit": "-", "range": [float("-inf"), 100.0],
    }  # fmt: skip
    assert sheet.problems == []


def test_other_encodings_are_asked_for():
    """An old file is read when its code page is named; it is not guessed."""
    data = saved(table=[["name", "reg", "unit"], ["온도", "1", "도"]]).encode("cp949")
    assert Sheet(read(data, "x.csv", "cp949")).data["tags"] == {"온도": {"reg": 1, "unit": "도"}}
    with pytest.raises(Exception, match="--encoding cp1252"):
        read(data, "x.csv")


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ({"scale": "1.000,5"}, "scale", "`1.000,5` is no number here"),
        ({"scale": "0.5", "offset": "0,5"}, "scale", "where decimals have a comma"),
        ({"bit": "1,5"}, "bit", "`1,5` is no whole number"),
        ({"invalid": "9,22337E+18"}, "invalid", None),
        ({"invalid": "9E+18"}, "invalid", "was rounded by the spreadsheet"),
        ({"unit": "#NAME?"}, "unit", "is an error of the spreadsheet"),
        ({"unit": "#DIV/0!"}, "unit", "is an error of the spreadsheet"),
        ({"enum": "0"}, "enum", "`0` is no code with its text"),
        ({"enum": "0=a|0=b"}, "enum", "the code 0 stands twice"),
        ({"name": "first"}, "name", "`first` stands twice; the first is in row 2"),
        ({"name": ""}, "reg", "the row has no `name`"),
    ],
)
def test_a_wrong_cell_is_named(row, column, words):
    """Row and column of the cell, as the spreadsheet shows them."""
    first = {"name": "first", "reg": "1"}
    table = [list(COLUMNS)]
    table += [[r.get(c, "") for c in COLUMNS] for r in (first, {"name": "t", "reg": "2"} | row)]
    sheet = Sheet(read(saved(table=table).encode(), "x.csv"))
    if words is None:
        assert sheet.problems == []
        return
    (problem,) = sheet.problems
    assert (problem.line, problem.column) == (3, 1 + COLUMNS.index(column))
    assert words in problem.what


@pytest.mark.parametrize(
    ("head", "column", "words"),
    [
        (["name", "reg", "ofset"], 3, "there is no column `ofset`"),
        (["name", "reg", "unit", "Unit"], 4, "the column `unit` stands twice"),
        (["name", "unit"], 1, "the column `reg` is missing"),
        (["#adressing", "x"], 1, "`adressing` is not a setting of a device"),
    ],
)
def test_a_wrong_head_is_named(head, column, words):
    """A typo in a column's name or in a setting is never ignored."""
    sheet = Sheet(read(saved(table=[head, ["t", "1"]]).encode(), "x.csv"))
    assert (sheet.problems[0].line, sheet.problems[0].column) == (1, column)
    assert words in sheet.problems[0].what


@given(LINES.map(str.strip))
def test_what_a_spreadsheet_would_calculate_is_guarded(word):
    """No text begins like a formula, and none is taken for a number; it comes back as it was."""
    assert unguarded(guarded(word)) == word
    assert not guarded(word).startswith(("=", "+", "-", "@", "#"))


def test_columns_have_letters():
    """A, Z, AA, AZ, BA: as the spreadsheet shows them."""
    assert [letters(n) for n in (1, 26, 27, 52, 53, 703)] == ["A", "Z", "AA", "AZ", "BA", "AAA"]


def test_a_sheet_is_held_against_the_rules_of_the_device():
    """The places of a sheet's settings are its cells, so that the check can name them."""
    sheet = Sheet(read(saved().encode(), "x.csv"))
    document = sheet.document("x", {"connect": "tcp://h", "unit": 1})
    assert document.keys["devices", "x", "tags", "flow", "scale"].line == 6
    assert document.keys["devices", "x", "addressing"].line == 1
