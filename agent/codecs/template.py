"""Places in braces, filled with facts of a row: a closed list of words, not a language.

``{name}`` stands for one fact. A text that is nothing but one place becomes the fact itself, with
its JSON type; in any other text the fact is written out. ``{quality:GOOD|UNCERTAIN|BAD}`` and
``{type:number|integer|boolean|text}`` choose one of the words given, in this order.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LEVELS: Final = ("enterprise", "site", "area", "line", "cell")
"""The levels of ISA-95 (IEC 62264-1), as a plant names its places."""

NAMES: Final = ("root", "prefix", "gateway", "stream", "device", *LEVELS)
"""Facts that are the same for every row of a stream."""

ROW: Final = (
    "lineage", "epoch", "from", "seq", "ts", "ts_100ns", "ts_s", "ts_ms", "ts_us", "ts_ns",
    "ts_nanos", "clock", "historical",
)  # fmt: skip
"""Facts of a row."""

TAG: Final = ("tag", "value", "quality", "unit", "type", "min", "max", "n")
"""Facts of one tag in a row."""

_CHOICES: Final = {"quality": 3, "type": 4}
_PLACE: Final = re.compile(r"\{([^{}]*)\}")

Facts = Mapping[str, Any]


class Flaw(Exception):
    """What is wrong with a template, and how it is put right."""

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Place:
    """One place: the fact it stands for, and the words it is said in."""

    name: str
    words: tuple[str, ...] = ()

    def fill(self, facts: Facts) -> Any:
        """The fact, or the word chosen for it."""
        found = facts[self.name]
        return self.words[found] if self.words else found


class Text:
    """A text with places.

    Attributes:
        names: The facts it needs.
    """

    def __init__(self, text: str, known: Collection[str]) -> None:
        """Raises `Flaw`: a brace that closes nothing, or a place that is not *known*."""
        pieces = _PLACE.split(text)
        self._parts = [_place(p, known) if i % 2 else p for i, p in enumerate(pieces)]
        for plain in pieces[::2]:
            if "{" in plain or "}" in plain:
                raise Flaw(f"`{text}` has a brace that belongs to no place", "Write {name}.")
        self.names = {p.name for p in self._parts if isinstance(p, Place)}
        whole = [p for p in self._parts if p != ""]
        self._whole = whole[0] if len(whole) == 1 and isinstance(whole[0], Place) else None

    def fill(self, facts: Facts) -> Any:
        """The fact itself where the text is one place, else the text."""
        return self._whole.fill(facts) if self._whole is not None else self.text(facts)

    def text(self, facts: Facts) -> str:
        """The text with its places filled."""
        return "".join(p if isinstance(p, str) else said(p.fill(facts)) for p in self._parts)


def said(fact: Any) -> str:
    """A fact within a text, as JSON would write it."""
    if isinstance(fact, str):
        return fact
    return {True: "true", False: "false", None: "null"}.get(fact) or str(fact)


def _place(inside: str, known: Collection[str]) -> Place:
    name, colon, rest = inside.partition(":")
    if name not in known:
        raise Flaw(f"there is no place `{{{inside}}}`", f"Known: {', '.join(known)}.")
    words = tuple(rest.split("|")) if colon else ()
    wanted = _CHOICES.get(name, 0)
    if words and len(words) != wanted:
        fix = f"Write {wanted} words with | between them." if wanted else f"Write {{{name}}}."
        raise Flaw(f"`{{{inside}}}` has {len(words)} words", fix)
    if name == "type" and not words:
        raise Flaw("`{type}` needs four words", "Write {type:number|integer|boolean|text}.")
    return Place(f"{name}_class" if words and name == "quality" else name, words)


Fill = Callable[[Facts, Sequence[Facts]], Any]
"""Facts of the row (and the tag, where it is one), facts of each tag -> JSON value."""


class Body:
    """A JSON value with places in its texts and keys.

    Where it is for a whole row, a member or a list entry with a fact of a tag is repeated for
    every tag.
    """

    def __init__(self, body: Any, *, per_tag: bool) -> None:
        """Raises `Flaw`. *per_tag*: one message per tag, so that its facts are there anyway."""
        self._per_tag = per_tag
        self._fill = self._compile(body, inside=per_tag)

    def fill(self, row: Facts, tags: Sequence[Facts]) -> Any:
        """The message as plain data; *tags* have the facts of the row, too."""
        return self._fill(tags[0] if self._per_tag else row, tags)

    def _compile(self, node: Any, *, inside: bool) -> Fill:
        if isinstance(node, str):
            text = self._text(node, inside=inside)
            return lambda facts, _tags: text.fill(facts)
        if isinstance(node, dict):
            return self._mapping(node, inside=inside)
        if isinstance(node, list):
            return self._list(node, inside=inside)
        if node is None or isinstance(node, bool | int | float):
            return lambda _facts, _tags: node
        raise Flaw(f"`{node}` can not stand in JSON", "Write text, a number, true, false or null.")

    def _mapping(self, node: dict[Any, Any], *, inside: bool) -> Fill:
        members = []
        for key, value in node.items():
            repeat = not inside and _speaks_of_tags(str(key))
            text = self._text(str(key), inside=inside or repeat)
            members.append((text, self._compile(value, inside=inside or repeat), repeat))

        def fill(facts: Facts, tags: Sequence[Facts]) -> Any:
            return {
                key.text(each): value(each, tags)
                for key, value, repeat in members
                for each in (tags if repeat else (facts,))
            }

        return fill

    def _list(self, node: list[Any], *, inside: bool) -> Fill:
        entries = []
        for entry in node:
            repeat = not inside and any(map(_speaks_of_tags, _texts(entry)))
            entries.append((self._compile(entry, inside=inside or repeat), repeat))

        def fill(facts: Facts, tags: Sequence[Facts]) -> Any:
            return [
                value(each, tags)
                for value, repeat in entries
                for each in (tags if repeat else (facts,))
            ]

        return fill

    def _text(self, text: str, *, inside: bool) -> Text:
        if not inside and _speaks_of_tags(text):
            fix = "Put {tag} into the topic, or into the key above: then it is said for every tag."
            raise Flaw(f"`{text}` does not say of which tag", fix)
        return Text(text, (*NAMES, *ROW, *(TAG if inside else ())))


def _speaks_of_tags(text: str) -> bool:
    return any(p.partition(":")[0] in TAG for p in _PLACE.findall(text))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(node, list):
        for entry in node:
            yield from _texts(entry)


def names_of(body: Any) -> set[str]:
    """Every name that stands in braces in *body*."""
    return {p.partition(":")[0] for text in _texts(body) for p in _PLACE.findall(text)}
