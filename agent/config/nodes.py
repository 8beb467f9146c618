"""What Sparkplug asks of names: edge nodes and devices, each of its own, whatever the case."""

from collections.abc import Iterator
from itertools import pairwise

from agent.config.permissions import Finding
from agent.config.report import Problem
from agent.config.schema import Settings
from agent.core.tag import TagSet


def nodes(settings: Settings) -> Iterator[Finding]:
    """Two edge nodes of one name, and a device whose name a model's results have."""
    owner: dict[tuple[str, str], str] = {}
    for name, sink in settings.sinks.items():
        if not hasattr(sink, "descriptor"):
            continue
        first = owner.setdefault(sink.descriptor(settings.gateway.id), name)
        if first != name:
            what = f"`{name}` and `{first}` are the same edge node"
            yield "E229", what, ("sinks", name), "Give each its own `group` or `node`."
    if not owner:
        return
    results = {f"model.{i}" for m in settings.models.values() for i in m.instances}
    for name in settings.devices.keys() & results:
        what = f"`{name}` is also the Sparkplug device of a model's results"
        yield "E229", what, ("devices", name), "Give the device another name."


def twins(settings: Settings, streams: dict[str, TagSet]) -> list[Problem]:
    """Advice W303: names that differ only in case, which some hosts take for one."""
    if not any(hasattr(sink, "descriptor") for sink in settings.sinks.values()):
        return []
    names = sorted({*settings.devices, *(t for tags in streams.values() for t in tags.column)})
    return [
        Problem(
            "W303",
            f"`{a}` and `{b}` differ only in upper and lower case",
            fix="Sparkplug hosts may take them for one: give one of them another name.",
            at=_of_tag(b),
        )
        for a, b in pairwise(sorted(names, key=str.lower))
        if a.lower() == b.lower()
    ]


def _of_tag(name: str) -> tuple[str, ...]:
    """Where a device, or the tag of one, stands in the file."""
    device, _, tag = name.partition("/")
    return ("devices", device, "tags", tag) if tag else ("devices", device)
