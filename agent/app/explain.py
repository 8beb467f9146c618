"""What is known about one tag: where it comes from, how it is, who uses it."""

from typing import TYPE_CHECKING, Any

from agent.app.status import status
from agent.config.crosscheck import tag_streams
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
        raise PermanentError(
            f"there is no tag `{tag}`", fix="`edge-agent status --all` lists them.", code="E781"
        )
    settings = daemon.loaded.settings
    name, _, short = tag.partition("/")
    device: Any = settings.devices.get(name)
    told: dict[str, Any] = {"tag": tag, "stream": streams[tag]}
    if device is not None:
        told["device"] = name
        if hasattr(device, "origin"):
            told |= device.origin(short)
    source = daemon.sources.get(name)
    if source is not None and hasattr(source, "facts"):
        error = source.facts().get("last_error", "")
        told["device_error"] = error
    told["last"] = status(daemon)["tags"].get(tag)
    told["override"] = next(
        (o.facts() for t, o in daemon.overrides.standing.items() if t in {tag, name}), None
    )
    told["used_by"] = _users(daemon, tag)
    return told


def _users(daemon: "Daemon", tag: str) -> list[str]:
    """Alarms, models and sinks that see the tag."""
    settings = daemon.loaded.settings
    channels = daemon.pipeline.channels.values()
    found = [f"alarm {s.name}" for c in channels for s in c.alarms.specs if s.tag == tag]
    found += [
        f"model {model} on {instance}"
        for model, m in settings.models.items()
        for instance, bound in m.instances.items()
        if tag in bound.inputs
    ]
    return found + [f"sink {name}" for name in settings.sinks]
