"""What is known about one tag: where it comes from, how it is, who uses it."""

from typing import TYPE_CHECKING, Any

from agent.app import plan
from agent.app.status import status
from agent.config.crosscheck import tag_streams
from agent.config.report import did_you_mean
from agent.core.errors import PermanentError

if TYPE_CHECKING:
    from agent.app.daemon import Daemon


def known_tags(daemon: "Daemon") -> dict[str, str]:
    """Every tag of the configuration and of the agent itself -> its stream."""
    live = {tag: stream for stream, c in daemon.pipeline.channels.items() for tag in c.tags.column}
    return tag_streams(daemon.loaded.settings) | live


def explain(daemon: "Daemon", tag: str) -> dict[str, Any]:
    """Origin, request, decoding, last value with quality and reason, and consumers of *tag*."""
    streams = known_tags(daemon)
    if tag not in streams:
        fix = did_you_mean(tag, streams) or "`edge-agent status --all` lists them."
        raise PermanentError(f"there is no tag `{tag}`", fix=fix, code="E781")
    settings = daemon.loaded.settings
    name, _, short = tag.partition("/")
    device: Any = settings.devices.get(name)
    told: dict[str, Any] = {"tag": tag, "stream": streams[tag]}
    if device is not None:
        told["device"] = name
    if derived := _derived(daemon, tag):
        told["derived"] = derived
    elif device is not None and hasattr(device, "origin"):
        told |= device.origin(short)
    source: Any = daemon.sources.get(name)
    if "derived" not in told and hasattr(source, "origin"):
        told |= source.origin(short)
    if source is not None and hasattr(source, "facts"):
        error = source.facts().get("last_error", "")
        told["device_error"] = error
    told["last"] = status(daemon)["tags"].get(tag)
    told["override"] = next(
        (o.facts() for t, o in daemon.overrides.standing.items() if t in {tag, name}), None
    )
    told["used_by"] = _users(daemon, tag)
    return told


def _derived(daemon: "Daemon", tag: str) -> str:
    """How a derived tag is computed; empty for another."""
    known = (t for c in daemon.pipeline.channels.values() for t in c.tags)
    return next((t.origin for t in known if t.name == tag), "")


def _users(daemon: "Daemon", tag: str) -> list[str]:
    """Derived tags, alarms, models and sinks that see the tag."""
    settings = daemon.loaded.settings
    channels = daemon.pipeline.channels.values()
    found = [
        f"derived {one.tag.name}"
        for some in plan.wiring(settings).derived.values()
        for one in some
        if tag in one.inputs
    ]
    found += [f"alarm {s.name}" for c in channels for s in c.alarms.specs if s.tag == tag]
    found += [
        f"model {model} on {instance}"
        for model, m in settings.models.items()
        for instance, bound in m.instances.items()
        if tag in bound.inputs
    ]
    return found + [f"sink {name}" for name in settings.sinks]
