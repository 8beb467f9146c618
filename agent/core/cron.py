"""The five fields of a crontab line: minute, hour, day of month, month, day of week."""

import re
from typing import Final

_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS: Final = (
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
)  # fmt: skip
_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_PART: Final = re.compile(r"(?:(\*)|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:/([1-9][0-9]?))?")


def fields(text: str) -> tuple[str, str, str, str, str]:
    """The fields as lists of numbers, days of the week by name: 0 and 7 are Sunday, as in cron.

    Raises `ValueError` that says which field is wrong. Days of both kinds together are refused:
    cron means either, everybody else both.
    """
    words = text.lower().split()
    if len(words) != len(_FIELDS):
        msg = f"`{text}` has {len(words)} fields, not 5: minute, hour, day, month, day of the week"
        raise ValueError(msg)
    if words[2] != "*" and words[4] != "*":
        msg = f"`{text}` names days of the month and of the week; write one of them as `*`"
        raise ValueError(msg)
    minute, hour, day, month, week = (
        _field(word, *about) for word, about in zip(words, _FIELDS, strict=True)
    )
    return minute, hour, day, month, week


def _field(word: str, name: str, low: int, high: int, names: tuple[str, ...]) -> str:
    """``1-5/2`` -> ``1,3,5``."""
    if word == "*":
        return word
    found: set[int] = set()
    for part in word.split(","):
        m = _PART.fullmatch(part)
        some = range(0) if m is None else _range(m, low, high, names)
        if not some or some[0] < low or some[-1] > high:
            msg = f"`{part}` is no {name}"
            raise ValueError(msg)
        found.update(some)
    if names is _DAYS:
        return ",".join(_DAYS[i] for i in sorted({i % 7 for i in found}))
    return ",".join(map(str, sorted(found)))


def _range(m: re.Match[str], low: int, high: int, names: tuple[str, ...]) -> range:
    every, first, last, step = m.groups()
    if every:
        return range(low, high + 1 - (names is _DAYS), int(step or 1))
    begin = _number(first, low, names)
    end = begin if last is None else _number(last, low, names)
    if last is None and step:
        end = high
    if names is _DAYS and last and end == 0:
        end = 7
    return range(begin, end + 1, int(step or 1)) if begin >= 0 else range(0)


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    """-1 for what is neither a number nor a name."""
    if text.isdecimal():
        return int(text)
    return names.index(text) + low if text in names else -1
