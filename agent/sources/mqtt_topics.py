"""Topics as the file writes them: levels, `+`, and one `{name}` that tells machines apart."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from agent.core.names import CHARACTERS

_PLACE: Final = re.compile(rf"^\{{([{CHARACTERS}]+)\}}$")
_LONGEST: Final = 1000
_FIX: Final = "Write levels, `+` for any one level, and at most one `{name}`: plant/{cell}/+/temp."


@dataclass(frozen=True, slots=True)
class Template:
    """A topic split at its slashes.

    Attributes:
        levels: As written.
        place: Number of the level that is ``{name}``; None without one.
        name: What stands in the braces; empty without one.
    """

    levels: tuple[str, ...]
    place: int | None
    name: str

    @property
    def filter(self) -> str:
        """The topic filter that the broker gets."""
        return "/".join("+" if i == self.place else s for i, s in enumerate(self.levels))

    def match(self, levels: list[str]) -> str | None:
        """What *levels* of a message have in the place of ``{name}`` (empty without one); None
        when they are another topic.
        """
        if len(levels) != len(self.levels):
            return None
        for i, (want, have) in enumerate(zip(self.levels, levels, strict=True)):
            if want not in ("+", have) and i != self.place:
                return None
        if levels[0].startswith("$") and self.levels[0] in ("+", f"{{{self.name}}}"):
            return None  # MQTT 5, 4.7.2: topics of the broker itself are asked for by name
        return "" if self.place is None else levels[self.place]


def template(text: str) -> Template:
    """The topic in *text*; ValueError says what is wrong with it."""
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise ValueError("is no topic")
    levels = tuple(text.split("/"))
    places = [i for i, level in enumerate(levels) if _PLACE.match(level)]
    for i, level in enumerate(levels):
        if "#" in level:
            raise ValueError("has `#`: what comes there has no tag")
        if (i not in places and {"{", "}"} & set(level)) or ("+" in level and level != "+"):
            raise ValueError(f"has `{level}`, which is only a part of a level")
    if len(places) > 1:
        raise ValueError("has more than one `{name}`")
    if levels[0] == "$share":
        raise ValueError("has `$share`: write `share: GROUP`")
    found = _PLACE.match(levels[places[0]]) if places else None
    return Template(levels, places[0] if places else None, found[1] if found else "")


def _is_template(value: str) -> str:
    try:
        template(value)
    except ValueError as e:
        told = {"value": value, "why": str(e), "code": "E340", "fix": _FIX}
        raise PydanticCustomError("topic", "the topic `{value}` {why}", told) from e
    return value


Topic = Annotated[str, AfterValidator(_is_template)]
"""A topic in the file."""
