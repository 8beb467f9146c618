"""What a changed configuration would do: settings that differ, and what consumers would miss."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.config.base import Section, as_seconds
from agent.config.crosscheck import streams
from agent.config.renames import renames
from agent.config.schema import Settings
from agent.config.writing import scalar
from agent.sinks.payload import PayloadSection

NAMED: Final = {
    "devices": "device",
    "derived": "derived tag",
    "models": "model",
    "alarms": "alarm",
    "sinks": "sink",
    "registries": "registry",
}
"""Sections that hold named things, and what one of them is called."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs.

    Attributes:
        how: ``added`` | ``changed`` | ``removed``.
        what: ``device pump1``, ``journal``.
        settings: Of what is changed: ``poll 1s -> 2s``.
    """

    how: str
    what: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """From one configuration to another.

    Attributes:
        changes: What differs, in the order of the file.
        breaks: What consumers upstream would miss or misread, in words.
    """

    changes: tuple[Change, ...]
    breaks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Both as plain data."""
        changes = [
            {"how": c.how, "what": c.what, "settings": list(c.settings)} for c in self.changes
        ]
        return {"changes": changes, "breaks": list(self.breaks)}


def compare(old: Settings, new: Settings) -> Changes:
    """What differs between two configurations, both sound."""
    changes: list[Change] = []
    for field, info in Settings.model_fields.items():
        before, after = getattr(old, field), getattr(new, field)
        if before == after or field == "profiles":  # what they are used for differs, too
            continue
        if field in NAMED:
            changes += _named(NAMED[field], before, after)
        else:
            changes.append(_one(info.alias or field, before, after))
    return Changes(tuple(changes), tuple(_breaks(old, new)))


def _named(word: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in old.keys() - new.keys():
        yield Change("removed", f"{word} {name}")
    for name, section in new.items():
        if name not in old:
            yield Change("added", f"{word} {name}")
        elif section != old[name]:
            yield _one(f"{word} {name}", old[name], section)


def _one(what: str, old: Any, new: Any) -> Change:
    if old is None or new is None:
        return Change("added" if old is None else "removed", what)
    before, after = dict(_settings(old)), dict(_settings(new))
    gone, fresh = _parts(before) - _parts(after), _parts(after) - _parts(before)
    told = (
        f"{key} {before.get(key, '(none)')} -> {after.get(key, '(none)')}".strip()
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key) and not _parts([key]) & (gone | fresh)
    )
    whole = [f"{part} removed" for part in sorted(gone)] + [
        f"{part} added" for part in sorted(fresh)
    ]
    return Change("changed", what, (*whole, *told))


def _parts(keys: Iterable[str]) -> set[str]:
    """``tags/flow`` of ``tags/flow/unit``: what comes and goes as a whole."""
    return {"/".join(key.split("/")[:2]) for key in keys if key.count("/") > 1}


def _settings(value: Any, key: str = "", *, seconds: bool = False) -> Iterator[tuple[str, str]]:
    """Every setting below *value*: its path as the file spells it, and its value in words."""
    prefix = f"{key}/" if key else ""
    if isinstance(value, Section):
        for field, info in type(value).model_fields.items():
            inner = getattr(value, field)
            yield from _settings(
                inner, f"{prefix}{info.alias or field}", seconds=field.endswith("_s")
            )
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _settings(inner, f"{prefix}{name}")
    elif isinstance(value, (list, tuple)) and any(isinstance(v, Section) for v in value):
        for n, inner in enumerate(value):
            yield from _settings(inner, f"{prefix}{n}")
    elif value is not None:
        number = seconds and isinstance(value, float)
        yield key, as_seconds(value) if number else scalar(value)


def _breaks(old: Settings, new: Settings) -> Iterator[str]:
    """Topics and tags that vanish or mean something else."""
    before, after = (f"{s.gateway.prefix}/{s.gateway.id}" for s in (old, new))
    if before != after:
        yield f"every topic moves from {before} to {after}"
    for name, sink in old.sinks.items():
        one = new.sinks.get(name)
        if one is None:
            yield f"sink {name} publishes no more"
        elif _shape(one, after) != _shape(sink, after):
            yield f"sink {name} publishes in another shape or to other topics"
    yield from _tags(old, new, before)
    for name in old.alarms.keys() - new.alarms.keys():
        yield f"topic {before}/_alarm/{name} vanishes"
    instances = [{i for m in s.models.values() for i in m.instances} for s in (old, new)]
    for name in sorted(instances[0] - instances[1]):
        yield f"topic {before}/_model/{name} vanishes"


def _shape(sink: Any, root: str) -> tuple[Any, ...]:
    """What of a sink decides how its messages look and where they go."""
    payload = PayloadSection.model_fields if isinstance(sink, PayloadSection) else ()
    return type(sink), sink.roots(root), [getattr(sink, field) for field in payload]


def _tags(old: Settings, new: Settings, root: str) -> Iterator[str]:
    before, after = streams(old), streams(new)
    called = {was: name for name, was in renames(new).items()}
    now = {tag.name: (stream, tag) for stream, tags in after.items() for tag in tags}
    for stream, tags in before.items():
        if stream not in after:
            yield f"topic {root}/data/{stream} vanishes"
        for tag in tags:
            if tag.name not in now:
                name = called.get(tag.name)
                says = f"is called {name} from now on; its history stays" if name else "vanishes"
                yield f"tag {tag.name} {says}"
                continue
            place, one = now[tag.name]
            if place != stream:
                yield f"tag {tag.name} moves from topic data/{stream} to data/{place}"
            if one.unit != tag.unit:
                yield f"tag {tag.name}: unit {tag.unit or '(none)'} -> {one.unit or '(none)'}"
            if one.json_type != tag.json_type:
                yield f"tag {tag.name}: type {tag.json_type} -> {one.json_type}"
