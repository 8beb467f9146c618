"""The agent's numbers for Prometheus, named after its conventions: base units, ``_total``."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from agent.core.stats import Stats
from agent.web.desk import Desk

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

PREFIX: Final = "edge_agent_"

_UNITS: Final = (
    ("_ms", "_seconds", 1e-3),
    ("_days", "_seconds", 86400.0),
    ("_percent", "_ratio", 1e-2),
    ("_degC", "_celsius", 1.0),
    ("_per_s", "_per_second", 1.0),
    ("_s", "_seconds", 1.0),
    ("_h", "_seconds", 3600.0),
)
"""Ending of a number's name -> ending of the metric, and what to multiply by: base units only
(prometheus.io, Metric and label naming)."""

_COUNTED: Final = {"host.net_received_bytes", "host.net_sent_bytes"}
"""Numbers of the machine that only ever grow."""

_SOURCES: Final = {"modbus": "source"}
"""Kinds of names that mean the same thing for who reads a board."""


def exposition(desk: Desk) -> bytes:
    """Everything as text, format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(desk))
    return generate_latest(registry)


class _Numbers(Collector):
    """Counters, gauges and summaries of the agent as they are now."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._metrics: dict[str, Metric] = {}

    def collect(self) -> Iterator[Metric]:
        stats = self._desk.stats
        for name, value in stats.values.items():
            self._add(name, value, counter=name in stats.counted)
        for name, value in self._desk.own().items():
            if name not in stats.values and not name.endswith((".p50", ".p99")):
                self._add(name, value, counter=name in _COUNTED)
        for name in stats.observed:
            self._summary(stats, name)
        self._states(self._desk.status())
        yield from self._metrics.values()

    def _metric(self, name: str, kind: str) -> Metric:
        if name not in self._metrics:
            words = name.removeprefix(PREFIX).replace("_", " ")
            self._metrics[name] = Metric(name, f"{words[:1].upper()}{words[1:]}.", kind)
        return self._metrics[name]

    def _add(self, name: str, value: float, *, counter: bool) -> None:
        """A number of the agent; what is not known is left out."""
        if not math.isfinite(value):
            return
        metric, labels, factor = named(name)
        if counter:
            self._metric(metric, "counter").add_sample(f"{metric}_total", labels, value * factor)
        else:
            self._metric(metric, "gauge").add_sample(metric, labels, value * factor)

    def _summary(self, stats: Stats, name: str) -> None:
        metric, labels, factor = named(name)
        family = self._metric(metric, "summary")
        for percent in (50, 99):
            value = stats.percentile(name, percent) * factor
            family.add_sample(metric, {**labels, "quantile": f"{percent / 100:g}"}, value)
        count, total = stats.observed[name]
        family.add_sample(f"{metric}_count", labels, count)
        family.add_sample(f"{metric}_sum", labels, total * factor)

    def _state(self, name: str, value: object, **labels: str) -> None:
        """A gauge: a number, or 1 for true and 0 for false."""
        if value is not None:
            self._metric(PREFIX + name, "gauge").add_sample(PREFIX + name, labels, float(value))  # type: ignore[arg-type]

    def _states(self, status: Mapping[str, Any]) -> None:
        """What `edge-agent status` says of the agent and of everything that is configured."""
        config, holds_h = status["config"], status["journal"]["holds_h"]
        self._state("build_info", 1, version=status["version"])
        self._state("config_info", 1, digest=config["digest"])
        self._state("degraded", status["state"] != "running")
        self._state("uptime_seconds", status["uptime_s"])
        self._state("config_refused", bool(config["refused"]))
        self._state("config_last_good", config["last_good"])
        self._state("config_changed_on_disk", config["changed_on_disk"])
        self._state("config_on_probation", config["probation"] is not None)
        self._state("config_loaded_timestamp_seconds", config["loaded_at"] / 1e9)
        self._state("journal_holds_seconds", None if holds_h is None else 3600 * holds_h)
        for kind, one in status["journal"]["classes"].items():
            self._state("journal_class_bytes", one["bytes"], **{"class": kind})
            self._state("journal_class_quota_bytes", one["quota"], **{"class": kind})
        for name, one in status["devices"].items():
            well = one["state"] == "running" and one.get("connected", True)
            self._state("device_up", well, device=name)
        for name, one in status["sinks"].items():
            self._state("sink_up", one["connected"], sink=name)
        for name, one in status["models"].items():
            self._state("model_up", one["state"] == "active", instance=name, model=one["model"])
        for one in status["alarms"]:
            self._state("alarm_active", 1, alarm=one["alarm"], priority=str(one["priority"]))


def named(name: str) -> tuple[str, dict[str, str], float]:
    """``sink/a.oldest_age_s`` -> ``edge_agent_sink_oldest_age_seconds``, ``{sink: a}``, 1.0.

    The last is the factor that turns the agent's unit into that of the metric.
    """
    owner, _, number = name.rpartition(".") if "/" in name else ("", "", name.replace(".", "_"))
    kind, _, who = owner.partition("/")
    kind = _SOURCES.get(kind, kind)
    labels = {kind: who} if who else {}
    stem, factor = number, 1.0
    for ending, becomes, times in _UNITS:
        if number.endswith(ending):
            stem, factor = number.removesuffix(ending) + becomes, times
            break
    text = f"{PREFIX}{kind}_{stem}" if kind else f"{PREFIX}{stem}"
    return re.sub(r"[^a-zA-Z0-9_]", "_", text), labels, factor
