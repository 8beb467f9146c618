"""What a consumer of the demo sees: the newest values, results, alarms; and what is missing."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from simulators.messages import Row, levels, rows, violations

_SHOWN: Final = (
    ("flow", "m3/h", 1),
    ("pressure_out", "bar", 2),
    ("current", "A", 1),
    ("vibration", "mm/s", 2),
    ("bearing_temp", "degC", 1),
)
_BOLD, _RED, _GREEN, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"


@dataclass(slots=True)
class Watch:
    """Takes every message of one gateway.

    Attributes:
        pumps: The devices expected.
        good: Device -> rows with good quality that arrived.
        versions: Model instance -> versions in the order in which their results came.
        raised: Alarms that became active.
        broken: Where a message broke the contract.
    """

    pumps: Sequence[str]
    latest: dict[str, Row] = field(default_factory=dict)
    results: dict[str, Row] = field(default_factory=dict)
    good: Counter[str] = field(default_factory=Counter)
    versions: dict[str, list[str]] = field(default_factory=dict)
    active: dict[str, dict[str, Any]] = field(default_factory=dict)
    raised: list[str] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    messages: int = 0

    def take(self, topic: str, payload: bytes) -> None:
        """Look at one message."""
        self.messages += 1
        wrong = violations(topic, payload)
        self.broken += wrong
        if wrong:
            return
        for row in rows(topic, payload):
            self._row(row)
        match levels(topic):
            case ("_alarm", name):
                self._alarm(name, json.loads(payload))

    def _row(self, row: Row) -> None:
        if row.kind == "data":
            self.latest[row.name] = row
            self.good[row.name] += row.q == "good"
            return
        self.results[row.name] = row
        seen = self.versions.setdefault(row.name, [])
        version = str(row.model.get("version"))
        if version not in seen:
            seen.append(version)
            self.news.append(f"model {row.model.get('name')} on {row.name}: version {version}")

    def _alarm(self, name: str, event: dict[str, Any]) -> None:
        if event["active"]:
            self.active[name] = event
            self.raised.append(name)
        else:
            self.active.pop(name, None)
        state = "ALARM" if event["active"] else "gone"
        value, limit = event["value"], event["limit"]
        shown = "-" if value is None else f"{value:.2f}"
        self.news.append(f"alarm {name}: {state}, {shown} (limit {limit:g}) {event['text']}")

    def missing(self, faulty: str, versions: Mapping[str, Sequence[str]]) -> list[str]:
        """What should have arrived and has not; *versions* of each pump, in their order."""
        found = [f"no good data of {p}" for p in self.pumps if not self.good[p]]
        found += [
            f"{p}: results of versions {self.versions.get(p, [])}, expected {list(versions[p])}"
            for p in self.pumps
            if self.versions.get(p, []) != list(versions[p])
        ]
        if not any(name.startswith(f"{faulty}.") for name in self.raised):
            found.append(f"no alarm of {faulty}")
        return found

    def table(self, *, color: bool) -> list[str]:
        """The newest values, one line per pump."""
        bold, plain = (_BOLD, _PLAIN) if color else ("", "")
        titles = "".join(f"{name + ' ' + unit:>18}" for name, unit, _ in _SHOWN)
        lines = [f"{bold}{'':8}{titles}{'score':>9}  version{plain}"]
        for pump in self.pumps:
            row, result = self.latest.get(pump), self.results.get(pump)
            cells = "".join(_cell(row, name, digits) for name, _, digits in _SHOWN)
            score = None if result is None else result.values.get("score")
            mark = "" if score is None or not color else _RED if score > 1.0 else _GREEN
            number = "-" if score is None else f"{score:.2f}"
            version = "-" if result is None else str(result.model.get("version"))
            end = _PLAIN if mark else ""
            lines.append(f"{pump:8}{cells}{mark}{number:>9}{end}  {version}")
        return lines


def _cell(row: Row | None, name: str, digits: int) -> str:
    value = None if row is None else row.values.get(name)
    return f"{'-':>18}" if value is None else f"{value:>18.{digits}f}"
