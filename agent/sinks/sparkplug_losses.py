"""What will never come, and how the books stand, as metrics of the edge node."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from agent.codecs.sparkplug_encode import INT64, STRING, Long, Sample, Slot, properties
from agent.sinks.sparkplug_device import device_of

_NUMBERS: Final = ("produced", "delivered", "buffered", "dropped")
_GOOD: Final = 192

Key = tuple[str, str]
"""Stream, and which number of its balance."""


class Losses:
    """Metric ``Gap``: why rows will not come, and which, in its properties; of the last gap in a
    birth. Metrics ``Ledger/STREAM/NUMBER``: the balance of each stream, by exception.

    Args:
        alias: The number that stands for the name of a metric of the node.
    """

    def __init__(self, alias: Callable[[str], int]) -> None:
        self._alias = alias
        self._gap = Slot("Gap", alias("Gap"), STRING)
        self._last: Mapping[str, Any] = {}
        self._told: dict[Key, tuple[Slot, Any]] = {}

    def births(self, now_ms: int, books: Mapping[str, Mapping[str, Any]]) -> Iterator[Sample]:
        """Every metric as it stands."""
        yield self._gap_sample(now_ms)
        self._told = {key: (self._slot(key), number) for key, number in _numbers(books)}
        yield from (_sample(slot, now_ms, number) for slot, number in self._told.values())

    def gap(self, now_ms: int, facts: Mapping[str, Any]) -> list[Sample]:
        """A gap to tell."""
        self._last = facts
        return [self._gap_sample(now_ms)]

    def balance(self, now_ms: int, books: Mapping[str, Mapping[str, Any]]) -> list[Sample] | None:
        """What has changed of it; None when it has a stream that is in no birth."""
        found: list[Sample] = []
        for key, number in _numbers(books):
            if key not in self._told:
                return None
            slot, told = self._told[key]
            if number != told:
                self._told[key] = slot, number
                found.append(_sample(slot, now_ms, number))
        return found

    def _slot(self, key: Key) -> Slot:
        name = "/".join(("Ledger", *key))
        return Slot(name, self._alias(name), INT64)

    def _gap_sample(self, now_ms: int) -> Sample:
        facts = {name: _typed(x) for name, x in self._last.items() if x is not None}
        if device := device_of(facts.get("stream", "")):
            facts["device"] = device
        if "to" in facts:
            facts["rows"] = Long(facts["to"] - facts["from"] + 1)
        return self._gap, now_ms, facts.get("reason"), properties({**facts, "Quality": _GOOD})


def _numbers(books: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Key, Any]]:
    for stream, account in books.items():
        yield from (((stream, what), account[what]) for what in _NUMBERS)


def _sample(slot: Slot, now_ms: int, number: Any) -> Sample:
    """Rows that were dropped say in their properties for which reason."""
    if isinstance(number, int):
        return slot, now_ms, number, b""
    reasons = {reason: Long(rows) for reason, rows in number.items()}
    return slot, now_ms, sum(number.values()), properties({**reasons, "Quality": _GOOD})


def _typed(x: Any) -> Any:
    """Numbers of rows and epochs need 64 bits."""
    return Long(x) if type(x) is int else x
