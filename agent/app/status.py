"""What `edge-agent status` is told: one JSON document about everything that runs."""

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.config.models import ModelSection
from agent.config.schema import Settings
from agent.core.quality import Quality, word
from agent.core.tag import Tag
from agent.runtime.alarmlist import told
from agent.runtime.units import Running, State

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

_TOLD_APART = {"source", "sink", "model"}
"""Units whose trouble is told as that of the device, the sink, the model."""


def status(daemon: "Daemon") -> dict[str, Any]:
    """The whole picture; values are plain JSON types, times in ns and s as their names say."""
    settings, now_ns = daemon.loaded.settings, daemon.clock.wall_ns()
    found = reasons(daemon)
    return {
        "version": __version__,
        "state": "degraded" if found else "running",
        "reasons": found,
        "warnings": _warnings(daemon.loaded.settings),
        "gateway": settings.gateway.id,
        "uptime_s": daemon.clock.mono_s() - daemon.started_s,
        "config": {
            "path": str(daemon.loaded.path),
            "digest": daemon.loaded.digest,
            "loaded_at": daemon.loaded_ns,
            "last_good": daemon.loaded.last_good,
            "changed_on_disk": daemon.on_disk.changed,
            "probation": daemon.takeover.facts(),
            "refused": "",
        },
        "clock": {"state": daemon.clock.state, "wall_ns": now_ns},
        "devices": {n: device(daemon, n) for n in settings.devices},
        "tags": _tags(daemon, now_ns),
        "models": _models(daemon),
        "alarms": told(daemon.pipeline.alarms.active.values()),
        "sinks": {n: sink(daemon, n) for n in settings.sinks},
        "parts": _parts(daemon),
        "journal": {
            "durable": daemon.store.journal.durable,
            "epoch": daemon.store.journal.epoch,
            "lineage": daemon.store.journal.lineage,
            "holds_h": holds_h(daemon),
            "classes": daemon.store.journal.classes(),
            "bytes": daemon.stats.values.get("journal.bytes"),
            "quota_set": bool(settings.journal.quota.model_fields_set),
        },
        "system": {
            "cpu_percent": _own(daemon, "cpu_percent"),
            "rss_bytes": _own(daemon, "rss_bytes"),
            "loop_p99_ms": _finite(daemon.stats.percentile("loop.lateness_ms", 99)),
            "rows_per_s": daemon.stats.values.get("pipeline.rows_per_s", 0.0),
        },
    }


def _warnings(settings: Settings) -> list[str]:
    """What somebody has decided and should not forget."""
    return [
        f"registry {name} takes models that nobody trusted has signed (`unsigned: accept`)"
        for name, section in settings.registries.items()
        if getattr(section, "unsigned", "refuse") == "accept"
    ]


def reasons(daemon: "Daemon") -> list[str]:
    """Why the agent is not as it should be; empty when it is."""
    found = []
    if daemon.loaded.last_good:
        found.append(f"runs the last good configuration: {daemon.loaded.why}")
    if not daemon.store.journal.durable:
        found.append("the journal cannot write: values are sent live only")
    for name in daemon.loaded.settings.devices:
        one = device(daemon, name)
        if one["state"] != "running" or not one.get("connected", True):
            found.append(f"device {name}: {one.get('last_error') or 'not connected'}")
        elif _silent(daemon, name):
            why = one.get("last_error") or "see edge-agent status"
            found.append(f"device {name}: no tag has a usable value: {why}")
    found += [
        f"sink {n}: {r['last_error'] or 'not connected'}"
        for n in daemon.loaded.settings.sinks
        if not (r := sink(daemon, n))["connected"]
    ]
    for name, model in daemon.loaded.settings.models.items():
        found += [f"model {name}: {text}" for text in _model_reasons(daemon, name, model)]
    return found + [f"{name}: {error}" for name, error in _parts(daemon).items()]


def _silent(daemon: "Daemon", name: str) -> bool:
    """The device answers, and nothing of it is of use: another unit, other registers."""
    newest = [
        channel.latest.q[-1]
        for stream, channel in daemon.pipeline.channels.items()
        if stream.partition("~")[0] == name and channel.latest is not None
    ]
    return bool(newest) and all((q < Quality.OUT_OF_SERVICE).all() for q in newest)


def _model_reasons(daemon: "Daemon", name: str, model: ModelSection) -> list[str]:
    """What the rollout, the unit and the instances say of one model, each once.

    What an operator decided (a rollback) is no trouble; why its unit once stopped is none either
    when it serves again.
    """
    running = daemon.units.running.get(f"model/{name}")
    lanes = [daemon.scoring.lanes.get(i) for i in model.instances]
    texts = [daemon.rollout.trouble(name)]
    if None in lanes and running is not None:
        texts.append(running.last_error)
    texts += [lane.error for lane in lanes if lane is not None]
    found = list(dict.fromkeys(filter(None, texts)))
    return found or (["no version in service"] if None in lanes else [])


def _parts(daemon: "Daemon") -> dict[str, str]:
    """What else of the agent does not run, the page above all -> why."""
    return {
        name: one.last_error
        for name, one in daemon.units.running.items()
        if name.partition("/")[0] not in _TOLD_APART and one.state in {State.BACKOFF, State.PARKED}
    }


def _unit(running: Running | None) -> dict[str, Any]:
    if running is None:
        return {"state": "stopped", "restarts": 0, "last_error": ""}
    error = running.last_error if running.state is not State.RUNNING else ""
    return {"state": str(running.state), "restarts": running.restarts, "last_error": error}


def device(daemon: "Daemon", name: str) -> dict[str, Any]:
    """How a device fares."""
    facts = _unit(daemon.units.running.get(f"source/{name}"))
    source = daemon.sources.get(name)
    own = source.facts() if source is not None and hasattr(source, "facts") else {}
    error = facts["last_error"] or own.get("last_error", "")
    return facts | own | {"last_error": error}


def sink(daemon: "Daemon", name: str) -> dict[str, Any]:
    """How a sink fares."""
    facts = _unit(daemon.units.running.get(f"sink/{name}"))
    uplink = daemon.uplinks.get(name)
    if uplink is None:
        return facts | {"connected": False, "depth": 0, "oldest_age_s": 0.0, "window": 0}
    return facts | {
        "connected": uplink.connected,
        "far_end": uplink.far_end,
        "depth": uplink.depth(),
        "oldest_age_s": uplink.oldest_age_s(),
        "window": uplink.window,
        "line_bytes_per_day": daemon.stats.values.get(f"sink/{name}.line_bytes_per_day"),
        **uplink.budget(),
    }


def _tags(daemon: "Daemon", now_ns: int) -> dict[str, Any]:
    """The newest value of each; the agent's own numbers behind those of the plant."""
    found: dict[str, Any] = {}
    for _, channel in sorted(daemon.pipeline.channels.items(), key=lambda one: one[0] == "agent"):
        if channel.latest is None:
            continue
        batch = channel.latest
        ts_ns = int(batch.t[-1])
        for i, tag in enumerate(channel.tags):
            q = int(batch.q[-1, i])
            value = _finite(float(batch.v[-1, i])) if q >= 64 else None
            found[tag.name] = spoken(daemon, tag, value) | {
                "unit": tag.unit,
                "q": word(q),
                "ts_ns": ts_ns,
                "age_s": (now_ns - ts_ns) / 1e9,
            }
    return found


def spoken(daemon: "Daemon", tag: Tag, value: float | None) -> dict[str, Any]:
    """A value; a text as text, and of a code also what it means."""
    if value is None:
        return {"value": None}
    if tag.kind == "text":
        return {"value": daemon.ctx.texts.text(tag.name, value)}
    text = dict(tag.enum).get(int(value)) if tag.enum else None
    return {"value": value} if text is None else {"value": value, "text": text}


def _own(daemon: "Daemon", name: str) -> float | None:
    """A number of the agent itself, as last measured."""
    channel = daemon.pipeline.channels.get("agent")
    if channel is None or channel.latest is None:
        return None
    return _finite(float(channel.latest.v[-1, channel.tags.column[f"agent/{name}"]]))


def _models(daemon: "Daemon") -> dict[str, Any]:
    found: dict[str, Any] = {}
    entries = {entry["name"]: entry for entry in daemon.rollout.list()}
    for name, model in daemon.loaded.settings.models.items():
        stage = stages(entries.get(name, {}))
        for instance in model.instances:
            lane = daemon.scoring.lanes.get(instance)
            if lane is None:
                error = daemon.rollout.trouble(name)
                found[instance] = {"model": name, "state": "no version in service", "error": error}
                found[instance] |= stage
                continue
            channel = daemon.pipeline.channels.get(lane.plan.stream)
            latest = channel.latest if channel else None
            found[instance] = {
                "model": name,
                "version": lane.origin.version,
                "release": lane.origin.release,
                "digest": lane.origin.digest,
                "state": "active",
                "last_score": {}
                if latest is None
                else {t.short: _finite(float(latest.v[-1, i])) for i, t in enumerate(latest.tags)},
                "last_ts_ns": None if latest is None else int(latest.t[-1]),
                "runs": lane.runs,
                "p50_ms": _finite(daemon.stats.percentile(f"model/{name}.predict_ms", 50)),
                "p99_ms": _finite(daemon.stats.percentile(f"model/{name}.predict_ms", 99)),
                "error": lane.error or daemon.rollout.trouble(name),
                "drift": daemon.models.drift.verdict(instance),
                **stage,
            }
    return found


def stages(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Where the version in service of a model is, and the one that is tried: ``1.5.0 (shadow)``."""
    comes, newest = entry.get("candidate"), entry.get("newest")
    if comes is not None and comes == newest:
        comes = f"{comes} ({entry['stage']})"
    serves = "probation" if entry.get("probation") else "active"
    return {"stage": serves if entry.get("serving") else None, "candidate": comes}


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def holds_h(daemon: "Daemon") -> float | None:
    """Hours that the journal holds at the present rate; None until that is known."""
    rate = daemon.stats.values.get("pipeline.rows_per_s", 0.0)
    held_s = daemon.store.journal.holds_s(rate)
    return None if held_s is None else round(held_s / 3600.0, 1)
