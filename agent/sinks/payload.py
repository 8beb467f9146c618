"""Payload and topics of a sink as the file writes them, and what is wrong with them."""

import difflib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Literal

from pydantic import Field

from agent.codecs.template import LEVELS, NAMES, ROW, TAG, Body, Flaw, Text, names_of
from agent.config.base import Name, Refusal, Section
from agent.core.texts import Texts
from agent.sinks.shapes import OVER, PER_TAG, Names, Scans, Shape, Shapes, Topics, Worded, Wording

_KNOWN: Final = (*NAMES, "tag")
"""What may stand in a topic."""
_NOT_IN_A_TOPIC: Final = re.compile(r"[+# \0]|//|^/|/$|^$")


class LevelsSection(Section):
    """Where in the plant: the levels of ISA-95, as far as they have names."""

    enterprise: Name | None = None
    """The company."""
    site: Name | None = None
    """The plant."""
    area: Name | None = None
    """The hall, or the part of the plant."""
    line: Name | None = None
    """The line, or the process cell."""
    cell: Name | None = None
    """The work cell, or the unit."""

    def named(self) -> dict[str, str]:
        """Level -> name, of those that are given."""
        return {k: v for k in LEVELS if (v := getattr(self, k)) is not None}


class PayloadSection(Section):
    """What a sink publishes of a row, and where.

    ``scan`` is the JSON contract, one message per scan; ``per_tag`` one message per tag;
    ``template`` whatever ``body`` says, per tag if ``topic`` holds ``{tag}``, else per row.
    """

    payload: Literal["scan", "per_tag", "template"] = "scan"
    """One message per scan, one per tag, or what `body` says: docs/payloads.md."""
    format: Literal["plain", "compact"] = "plain"
    """`compact`: values of a scan in the order of the birth, in their shortest decimals."""
    topic: str | None = None
    """Topic of live values, with places: `{enterprise}/{site}/{device}/{tag}`."""
    history_topic: str | None = None
    """Topic of what was missed; of a template without it the same as `topic`."""
    body: dict[str, Any] | None = None
    """What a message of `payload: template` says, with places."""
    content_type: str | None = Field(None, min_length=1, max_length=200)
    """Content type of a template (MQTT 5); `application/json` without it."""
    properties: dict[str, str] = Field(default_factory=dict)
    """User properties of a template (MQTT 5), with places."""
    bad: Literal["send", "skip"] = "send"
    """Send null for a value that is Bad, or leave it out of the template."""
    levels: LevelsSection = Field(default_factory=LevelsSection)
    """Names of the ISA-95 levels, for topics and bodies."""
    places: dict[Name, LevelsSection] = Field(default_factory=dict)
    """Device -> levels that have other names for it."""

    def payload_flaws(self) -> Iterator[Refusal]:
        """Every reason why this payload cannot be."""
        yield from self._misplaced()
        if self.payload == "template" and not (self.topic and self.body):
            what = "`payload: template` needs `topic` and `body`"
            yield Refusal("E431", what, "Take one of configs/payload-*.yaml.", ("payload",))
            return
        for key in ("topic", "history_topic"):
            if getattr(self, key) is not None:
                yield from self._topic_flaws(key)
        yield from self._body_flaws()
        yield from self._level_flaws()

    def _misplaced(self) -> Iterator[Refusal]:
        if self.format == "compact" and self.payload != "scan":
            what = "`format: compact` is for `payload: scan`"
            yield Refusal("E431", what, "A template says itself how short it is.", ("format",))
        if self.payload == "template":
            return
        for key in ("body", "content_type", "properties", "bad"):
            if key in self.model_fields_set:
                what = f"`{key}` is for `payload: template`"
                yield Refusal("E431", what, "Remove it, or change `payload`.", (key,))

    def _topic_flaws(self, key: str) -> Iterator[Refusal]:
        topic, at = str(getattr(self, key)), (key,)
        try:
            text = Text(topic, _KNOWN)
        except Flaw as e:
            yield Refusal("E430", e.what, _closest(e, topic), at)
            return
        plain = re.sub(r"\{[^{}]*\}", "x", topic)
        if _NOT_IN_A_TOPIC.search(plain):
            what = f"`{topic}` is no topic to publish to"
            yield Refusal("E430", what, "Write levels with / between, no space, + or #.", at)
        tags = "tag" in text.names
        if self.payload == "scan" and tags:
            what = "one message per scan has no place for `{tag}` in its topic"
            yield Refusal("E430", what, "Remove it, or write `payload: per_tag`.", at)
        if self.payload == "per_tag" and not tags:
            what = "with one message per tag the topic needs `{tag}`"
            yield Refusal("E430", what, "Write for example {root}/data/{stream}/{tag}.", at)
        if key == "history_topic" and self.payload == "template":
            live = "tag" in names_of(self.topic or "")
            if live is not tags:
                what = "`topic` and `history_topic` must both have `{tag}`, or neither"
                yield Refusal("E430", what, "One of them says per tag, the other per row.", at)

    def _body_flaws(self) -> Iterator[Refusal]:
        if self.payload != "template":
            return
        per_tag = self._per_tag()
        try:
            Body(self.body, per_tag=per_tag)
        except Flaw as e:
            yield Refusal("E431", e.what, _closest(e, e.what), ("body",))
        for name, text in self.properties.items():
            try:
                self._property(text)
            except Flaw as e:
                yield Refusal("E431", e.what, _closest(e, text), ("properties", name))

    def _level_flaws(self) -> Iterator[Refusal]:
        used = names_of([self.topic, self.history_topic, self.body, dict(self.properties)])
        given = self.levels.named()
        for level in LEVELS:
            if level in used and level not in given:
                what = f"`{{{level}}}` is used, but the level has no name"
                yield Refusal("E430", what, f"Add `levels: {{{level}: NAME}}`.", ("levels",))

    def roots(self, root: str) -> list[str]:
        """Below which topics it publishes, beside *root*: as far as they are the same for all."""
        facts = dict.fromkeys(NAMES, "+") | {"root": root} | self.levels.named()
        facts["prefix"], _, facts["gateway"] = root.rpartition("/")
        own = (self.topic, self.history_topic)
        filled = (Text(t.replace("{tag}", "+"), NAMES).text(facts) for t in own if t)
        return [top for topic in filled if (top := topic.partition("/+")[0]) and "+" not in top]

    def _per_tag(self) -> bool:
        return self.payload == "per_tag" or "tag" in names_of(self.topic or "")

    def _property(self, text: str) -> Text:
        return Text(text, (*NAMES, *ROW, *(TAG if self._per_tag() else ())))

    def shapes(self, root: str, texts: Texts) -> Shapes:
        """Rows -> messages, as this section says; *root* is ``{prefix}/{gateway}``."""
        prefix, _, gateway = root.rpartition("/")
        places = {device: levels.named() for device, levels in self.places.items()}
        names = Names(prefix, gateway, self.levels.named(), places)
        compact = self.format == "compact"
        scans = partial(Scans, names, texts, compact=compact)
        make: Callable[[Topics], Shape] = scans
        if self.payload != "scan":
            make = partial(Worded, names, texts, self._wording())
        return Shapes(
            measured=make(self._topics("data/{stream}")),
            results=make(self._topics("_{stream}")),
            own=scans(_topics("{root}/_metrics", "{root}/history/{stream}")),
            shadow=scans(_topics("{root}/_model/{device}/shadow", "{root}/history/{stream}")),
        )

    def _topics(self, live: str) -> Topics:
        """Those of the file, else below the root."""
        end = "/{tag}" if self.payload == "per_tag" else ""
        history = None if self.payload == "template" else f"{{root}}/history/{{stream}}{end}"
        topic = self.topic or f"{{root}}/{live}{end}"
        return _topics(topic, self.history_topic or history or topic)

    def _wording(self) -> Wording:
        if self.payload == "per_tag":
            over = Body({"v": 1, **OVER}, per_tag=True)
            return Wording(Body({"v": 1, **PER_TAG}, per_tag=True), per_tag=True, over=over)
        return Wording(
            Body(self.body, per_tag=self._per_tag()),
            self._per_tag(),
            self.content_type or "application/json",
            tuple((name, self._property(text)) for name, text in self.properties.items()),
            skip_bad=self.bad == "skip",
        )


def _topics(live: str, history: str) -> Topics:
    return Topics(Text(live, _KNOWN), Text(history, _KNOWN))


def _closest(flaw: Flaw, text: str) -> str:
    """The fix, with what was probably meant."""
    unknown = [n for n in names_of(text) if f"`{{{n}" in flaw.what]
    known = flaw.fix.removeprefix("Known: ").rstrip(".").split(", ")
    close = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.6) if unknown else []
    return f"did you mean `{{{close[0]}}}`?" if close else flaw.fix
