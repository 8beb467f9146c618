"""The page a technician reads: what runs, what the values are, what waits, what is wrong."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agent.cli.table import age, number, table, when

Facts = Mapping[str, Any]

_RED, _YELLOW, _GREEN, _BOLD = "31", "33", "32", "1"
_FINE: Final = {"running", "active", "synced", "good", "yes", "connected", "durable"}
_DOUBTFUL: Final = {
    "degraded",
    "holdover",
    "stepped",
    "starting",
    "backoff",
    "trial",
    "candidate",
    "probation",
}
_SOUND: Final = {"good", "not_applicable"}
_ITS_OWN: Final = "agent/"
_TEXT_WIDTH: Final = 30
_NEAR: Final = 80.0
"""Percent of its quota from which on a class of rows is near it."""


def page(status: Facts, *, tags: int | None = 40, colours: bool | None = None) -> str:
    """The whole status as text.

    Args:
        status: What the verb `status` answers.
        tags: At most so many tags, those of the plant before those of the agent itself, of both
            the bad ones first; of the agent's only these. None for all of them.
        colours: Default: when stdout is a terminal and NO_COLOR is not set.
    """
    paint = _painter(colours)
    if refused := status.get("config", {}).get("refused"):
        title = paint("no configuration can be used", _RED)
        return f"edge-agent {status.get('version', '?')}: {title}\n\n{refused}"
    sections = [
        _head(status, paint),
        _reasons(status.get("reasons", []), paint),
        *(paint(f"warning: {text}", _YELLOW) for text in status.get("warnings", [])),
        _alarms(status.get("alarms", []), status, paint),
        _devices(status.get("devices", {}), paint),
        _tags(status.get("tags", {}), tags, paint),
        _models(status.get("models", {}), paint),
        _uplink(status.get("sinks", {}), paint),
    ]
    return "\n\n".join(s for s in sections if s)


class _Paint:
    def __init__(self, on: bool) -> None:
        self._on = on

    def __call__(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._on and text and colour else text

    def state(self, text: str) -> str:
        """A state word in the colour of what it means."""
        fine = _GREEN if text in _FINE else _YELLOW
        return self(text, fine if text in _FINE | _DOUBTFUL else _RED)


def _painter(colours: bool | None) -> _Paint:
    if colours is None:
        colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return _Paint(colours)


def _head(s: Facts, paint: _Paint) -> str:
    config, clock = s.get("config", {}), s.get("clock", {})
    journal, system = s.get("journal", {}), s.get("system", {})
    first = (
        f"{paint('edge-agent ' + str(s.get('version', '?')), _BOLD)} on {s.get('gateway', '?')}: "
        f"{paint.state(str(s.get('state', '?')))}, up {age(s.get('uptime_s'))}"
    )
    good = paint(" (the last good one, not the file)", _RED) if config.get("last_good") else ""
    facts = [
        f"clock {paint.state(str(clock.get('state', '?')))}",
        "journal "
        + (paint.state("durable") if journal.get("durable") else paint("NOT DURABLE", _RED))
        + f", epoch {number(journal.get('epoch'))}",
    ]
    if journal.get("bytes") is not None:
        facts.append(f"{_megabytes(journal['bytes'])} on disk")
    if journal.get("holds_h") is not None:
        facts.append(f"holds {age(3600.0 * journal['holds_h'])}")
    if system.get("rss_bytes") is not None:
        facts.append(f"memory {_megabytes(system['rss_bytes'])}")
    if system.get("cpu_percent") is not None:
        facts.append(f"cpu {system['cpu_percent']:.0f} %")
    if system.get("loop_p99_ms") is not None:
        facts.append(f"loop p99 {system['loop_p99_ms']:.1f} ms")
    second = (
        f"config {config.get('path', '?')}  {str(config.get('digest', '?'))[:12]}"
        f"  loaded {when(config.get('loaded_at'))}{good}"
    )
    more = (paint(text, _YELLOW) for text in _config_news(config))
    room = [text] if (text := _room(journal, paint)) else []
    return "\n".join([first, second, "  ".join(facts), *room, *more])


def _room(journal: Facts, paint: _Paint) -> str:
    """What each class of rows takes of its quota: when somebody has set one, or one is near it."""
    parts = {
        kind: 100.0 * one["bytes"] / max(one["quota"], 1)
        for kind, one in journal.get("classes", {}).items()
    }
    if not (journal.get("quota_set") or any(part >= _NEAR for part in parts.values())):
        return ""
    shown = (
        paint(f"{kind} {part:.0f} %", _YELLOW if part >= _NEAR else "")
        for kind, part in parts.items()
    )
    return "of their quota " + ", ".join(shown) if parts else ""


def _config_news(config: Facts) -> Iterator[str]:
    """What is not settled about the configuration."""
    if on := config.get("probation"):
        by = f", asked for by {on['by']}" if on.get("by") else ""
        yield (
            f"the configuration is on probation for another {age(on.get('left_s'))}{by}; "
            f"if something fares worse, {on.get('comes_back')} comes back"
        )
    if config.get("changed_on_disk"):
        yield "the file on the disk is not the one that runs: see edge-agent plan"


def _reasons(reasons: Sequence[str], paint: _Paint) -> str:
    lines = [f"  {paint('!', _YELLOW)} {reason}" for reason in reasons]
    return "\n".join(["Degraded because", *lines]) if lines else ""


def _alarms(alarms: Sequence[Facts], status: Facts, paint: _Paint) -> str:
    if not alarms:
        return "No alarm stands"
    now_ns = status.get("clock", {}).get("wall_ns") or time.time_ns()
    rows = [
        [
            paint(str(a.get("alarm", "?")), _RED),
            str(a.get("tag", "-")),
            number(a.get("priority")),
            number(a.get("value")),
            number(a.get("limit")),
            age((now_ns - a["since_ns"]) / 1e9 if a.get("since_ns") else None),
            str(a.get("text") or ""),
        ]
        for a in alarms
    ]
    return table(["ALARM", "TAG", "PRIORITY", "VALUE", "LIMIT", "SINCE", "TEXT"], rows)


def _devices(devices: Mapping[str, Facts], paint: _Paint) -> str:
    rows = [
        [
            name,
            paint.state(str(d.get("state", "?"))),
            _yes(d.get("connected"), paint),
            str(d.get("endpoint") or "-"),
            number(d.get("restarts")),
            str(d.get("last_error") or ""),
        ]
        for name, d in devices.items()
    ]
    head = ["DEVICE", "STATE", "CONNECTED", "ENDPOINT", "RESTARTS", "LAST ERROR"]
    return table(head, rows) if rows else "No device is configured"


def _tags(tags: Mapping[str, Facts], limit: int | None, paint: _Paint) -> str:
    named = sorted(tags.items(), key=lambda one: one[1].get("q") in _SOUND)
    own = [one for one in named if one[0].startswith(_ITS_OWN)]
    plant = [one for one in named if not one[0].startswith(_ITS_OWN)]
    if limit is not None:  # what is wrong with the agent is not cut off by a large plant
        own = [(name, t) for name, t in own if t.get("q") not in _SOUND][:limit]
        plant = plant[: limit - len(own)]
    shown = plant + own
    rows = [
        [
            name,
            _value(t),
            str(t.get("unit") or ""),
            paint.state(str(t.get("q", "?"))),
            age(t.get("age_s")),
        ]
        for name, t in shown
    ]
    text = table(["TAG", "VALUE", "UNIT", "QUALITY", "AGE"], rows) if rows else "No value yet"
    more = len(named) - len(shown)
    return f"{text}\n({more} more: edge-agent status --all)" if more else text


def _value(tag: Facts) -> str:
    """``running (1)`` for a code that means something; a text, cut to the width of a column."""
    value, text = tag.get("value"), tag.get("text")
    if isinstance(value, str):
        return value if len(value) <= _TEXT_WIDTH else value[: _TEXT_WIDTH - 1] + "…"
    return f"{text} ({number(value)})" if text else number(value)


def _models(models: Mapping[str, Facts], paint: _Paint) -> str:
    rows = [
        [
            name,
            " ".join(str(m.get(k) or "") for k in ("model", "version")).strip(),
            paint.state(str(m.get("stage") or m.get("state", "?"))),
            str(m.get("candidate") or "-"),
            " ".join(f"{k}={number(v)}" for k, v in (m.get("last_score") or {}).items()) or "-",
            number(m.get("runs")),
            number(m.get("p99_ms")),
            _drift(m.get("drift"), paint),
            str(m.get("error") or ""),
        ]
        for name, m in models.items()
    ]
    head = ["MODEL", "VERSION", "STAGE", "TRIED", "LAST SCORE", "RUNS", "P99 ms", "DRIFT", "ERROR"]
    return table(head, rows) if rows else ""


def _drift(drift: Facts | None, paint: _Paint) -> str:
    """The verdict; of a stale model why."""
    if drift is None:
        return "-"
    verdict = str(drift.get("verdict", "?"))
    reasons = ", ".join(drift.get("reasons", ()))
    return paint(f"{verdict} ({reasons})", _RED) if reasons else verdict.replace("_", " ")


def _uplink(sinks: Mapping[str, Facts], paint: _Paint) -> str:
    rows = [
        [
            name,
            _yes(k.get("connected"), paint),
            number(k.get("depth")),
            age(k.get("oldest_age_s")) if k.get("depth") else "-",
            number(k.get("window")),
            _a_day(k),
            str(k.get("last_error") or ""),
        ]
        for name, k in sinks.items()
    ]
    head = ["UPLINK", "CONNECTED", "WAITING", "OLDEST", "WINDOW", "A DAY", "LAST ERROR"]
    return table(head, rows) if rows else "No uplink is configured"


def _a_day(sink: Facts) -> str:
    """What the line carries at the present rate, of what it may; and whether values are thinned."""
    rate, budget = sink.get("line_bytes_per_day"), sink.get("budget")
    if rate is None:
        return "-"
    if not budget:
        return _megabytes(rate)
    thinned = ", thinned" if budget["rung"] else ""
    return f"{_megabytes(rate)} of {_megabytes(budget['per_day'])}{thinned}"


def _yes(value: object, paint: _Paint) -> str:
    if value is None:
        return "-"
    return paint("yes", _GREEN) if value else paint("no", _RED)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"
