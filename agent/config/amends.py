"""What to write instead: the cure of a value that is of the wrong kind, or beyond its bound."""

import re
from typing import Final

_COMMA: Final = re.compile(r"[-+]?\d+,\d+")
_ZEROS: Final = re.compile(r"[-+]?0\d+")
_NUMBER: Final = re.compile(r"[-+]?\d+(?:\.\d+)?")
_WITH_UNIT: Final = re.compile(rf"({_NUMBER.pattern})\s*[^\d\s.,:-]\S*")
_SEVERAL: Final = re.compile(rf"{_NUMBER.pattern}(?:\s+{_NUMBER.pattern})+")

_BY_KIND: Final = {
    "int_type": "Write a whole number.",
    "int_from_float": "Write a whole number.",
    "float_type": "Write a number.",
    "finite_number": "Write a number that has an end.",
    "bool_type": "Write `true` or `false`.",
    "dict_type": "Write its settings below it, further to the right, or within `{}`.",
}
_LIKE: Final = {
    "tuple_type": "list_type",
    "model_type": "dict_type",
    "model_attributes_type": "dict_type",
    "mapping_type": "dict_type",
}
_BY_BOUND: Final = {
    "greater_than": "Write more than {}.",
    "greater_than_equal": "Write {} or more.",
    "less_than": "Write less than {}.",
    "less_than_equal": "Write {} or less.",
    "too_short": "Write at least {}.",
    "too_long": "Write at most {}.",
}


def of_kind(kind: str, value: object) -> str:
    """*kind* is pydantic's word for the kind that is wanted, *value* what stands there."""
    kind = _LIKE.get(kind, kind)
    if kind == "string_type":
        simple = isinstance(value, bool | int | float)
        return f'Write it in quotes: `"{_spelt(value)}"`.' if simple else "Write a text."
    if kind == "list_type":
        simple = isinstance(value, str | int | float)
        return f"Write it in brackets: `[{_spelt(value)}]`." if simple else "Write a list: `[ ]`."
    if kind in {"int_type", "float_type"} and isinstance(value, str):
        return _number(value.strip()) or _BY_KIND[kind]
    return _BY_KIND[kind]


def of_bound(kind: str, bound: object) -> str:
    """*kind* is pydantic's word for the bound, *bound* where it lies."""
    return _BY_BOUND[kind].format(bound)


def of_comma(key: str, value: object) -> str:
    """What a decimal comma within braces leaves: ``{scale: 0,1}`` has a setting ``1``."""
    return "Write a decimal point, no comma: `0.1`." if key.isdigit() and value is None else ""


def _number(text: str) -> str:
    """A text that was meant as a number."""
    if _COMMA.fullmatch(text):
        return f"Write `{text.replace(',', '.')}`, with a decimal point."
    if _ZEROS.fullmatch(text):
        return f"Write `{int(text)}`, without zeros in front."
    if _SEVERAL.fullmatch(text):
        return f"Put commas between the numbers: `{', '.join(text.split())}`."
    if _NUMBER.fullmatch(text):
        return f"Write `{text}` without quotes."
    if with_unit := _WITH_UNIT.fullmatch(text):
        return f"Write `{with_unit[1]}` alone, without a unit."
    return ""


def _spelt(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
