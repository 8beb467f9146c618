"""What the whole file derives: each derived tag and each `when:` at the stream of its first input,
in order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from agent.config.derived import conditions_of
from agent.config.permissions import Finding
from agent.config.report import did_you_mean
from agent.config.schema import Settings
from agent.core.condition import Condition
from agent.core.derive import SUFFIX, Derived, Hours, InState, in_order
from agent.core.tag import Tag, TagSet

_NO_TEXT: Final = "Choose a tag that is a number."

_LOST: Final = ""
"""Source of a tag that has none."""


@dataclass(slots=True)
class Meaning:
    """What is derived.

    Attributes:
        tables: Stream -> what is derived from it, each after those it needs.
        states: Condition -> full name of the tag that is its state.
        findings: What does not hold in the file.
    """

    tables: dict[str, list[Derived]] = field(default_factory=dict)
    states: dict[Condition, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def tag_sets(self) -> dict[str, TagSet]:
        """Every derived stream."""
        return {
            stream + SUFFIX: TagSet(tuple(s.tag for s in specs))
            for stream, specs in self.tables.items()
        }


def meaning(settings: Settings, devices: Mapping[str, TagSet]) -> Meaning:
    """What *settings* derive from the streams of their *devices*."""
    of_tag = {tag: stream for stream, tags in devices.items() for tag in tags.column}
    found = Meaning()
    specs = {name: section.spec(name) for name, section in settings.derived.items()}
    numbers = {t.name: t.kind == "float64" for tags in devices.values() for t in tags}
    numbers |= {name: s.tag.kind == "float64" for name, s in specs.items()}
    asked = list(_asked(settings, numbers, found))
    for name, section in settings.derived.items():
        if section.state is not None:
            found.states.setdefault(section.state, name)
    for condition in asked:
        name = f"{condition.tag.partition('/')[0]}/when.{condition.slug}"
        if found.states.setdefault(condition, name) == name:
            specs.setdefault(
                name, Derived(_state_tag(name, condition), (condition.tag,), InState(condition))
            )
    for name, section in settings.derived.items():
        if section.hours is not None and section.hours in found.states:
            specs[name] = replace(specs[name], inputs=(found.states[section.hours],))
    _place(specs, of_tag, numbers, found, settings)
    return found


def _asked(settings: Settings, numbers: Mapping[str, bool], found: Meaning) -> Iterator[Condition]:
    """Every condition of the file on a number that there is; the others are findings."""
    places: list[tuple[tuple[str | int, ...], Condition]] = []
    for name, section in settings.derived.items():
        keys = [k for k in ("when", "hours", "state") if getattr(section, k) is not None]
        some = zip(keys, conditions_of(section), strict=True)
        places += [(("derived", name, k), c) for k, c in some]
    places += [(("models", n, "when"), m.when) for n, m in settings.models.items() if m.when]
    places += [(("alarms", n, "when"), a.when) for n, a in settings.alarms.items() if a.when]
    for path, condition in places:
        tag = condition.tag
        if numbers.get(tag):
            yield condition
        elif tag in numbers:
            found.findings.append(("E212", f"`{tag}` is a text, not a number", path, _NO_TEXT))
        else:
            fix = did_you_mean(tag, list(numbers))
            found.findings.append(("E224", f"there is no tag `{tag}`", path, fix))


def _place(
    specs: Mapping[str, Derived],
    of_tag: Mapping[str, str],
    numbers: Mapping[str, bool],
    found: Meaning,
    settings: Settings,
) -> None:
    """Find the stream of each derived tag, and put them in order."""

    def tell(name: str, code: str, what: str, fix: str) -> None:
        if name in settings.derived:  # a state without a name has been told at its `when:`
            found.findings.append((code, what, ("derived", name), fix))

    for name in sorted(specs.keys() & of_tag.keys()):
        tell(name, "E223", f"`{name}` is already a tag of the device", "Give it another name.")
    sources = dict(of_tag)
    ordered, circle = in_order([s for name, s in specs.items() if name not in of_tag])
    for s in ordered:
        name, streams = s.tag.name, list(dict.fromkeys(sources.get(n, _LOST) for n in s.inputs))
        problem = _problem(s, streams, sources, numbers)
        sources[name] = _LOST if problem else streams[0]
        if problem is None:
            found.tables.setdefault(streams[0], []).append(s)
        elif problem[1]:
            tell(name, *problem)
    for s in circle:
        needs = " and ".join(f"`{n}`" for n in dict.fromkeys(s.inputs))
        what = f"`{s.tag.name}` needs {needs}, and in the end itself"
        tell(s.tag.name, "E222", what, "Derive it from tags of a device.")


def _problem(
    s: Derived, streams: list[str], sources: Mapping[str, str], numbers: Mapping[str, bool]
) -> tuple[str, str, str] | None:
    """Code, what and fix; None when there is none. What follows from another finding is empty."""
    unknown = [n for n in s.inputs if n not in sources]
    if unknown and not isinstance(s.op, InState | Hours):
        return "E220", f"there is no tag `{unknown[0]}`", did_you_mean(unknown[0], list(sources))
    words = [n for n in s.inputs if not numbers.get(n, True)]
    if words and not isinstance(s.op, InState | Hours):
        return "E212", f"`{words[0]}` is a text, not a number", _NO_TEXT
    if _LOST in streams:
        return "E220", "", ""
    device, (owner, _, _) = streams[0].partition("~")[0], s.tag.name.partition("/")
    if owner != device:
        fix = f"Call it `{device}/{s.tag.name.rpartition('/')[2]}`."
        return "E223", f"what is derived from `{device}` belongs to `{device}`", fix
    return None


def _state_tag(name: str, condition: Condition) -> Tag:
    return Tag(name, origin=f"state({condition})", form="boolean")
