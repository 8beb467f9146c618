"""How a row goes onto the wire: as the JSON contract, tag by tag, or as a template says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from agent.codecs import json
from agent.codecs.facts import facts
from agent.codecs.template import Body, Text
from agent.core.batch import Batch, is_shadow
from agent.core.ports import Lane, Stored
from agent.core.texts import Texts

PER_TAG: Final[Mapping[str, str]] = {
    "lineage": "{lineage}", "epoch": "{epoch}", "from": "{from}", "seq": "{seq}",
    "ts": "{ts}", "clock": "{clock}", "value": "{value}", "q": "{quality}",
}  # fmt: skip
"""What a message of one tag says, behind its version."""

OVER: Final[Mapping[str, str]] = {
    **{k: v for k, v in PER_TAG.items() if k not in {"value", "q"}},
    "mean": "{value}", "min": "{min}", "max": "{max}", "n": "{n}", "q": "{quality}",
}  # fmt: skip
"""The same of a tag that is reported by its mean."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published.

    Attributes:
        kind: Content type; empty for plain JSON of ours.
        properties: User properties (MQTT 5).
    """

    topic: str
    payload: bytes
    kind: str = ""
    properties: tuple[tuple[str, str], ...] = ()


class Shape(Protocol):
    """Rows -> messages. Messages of one row stand together: they are sent side by side."""

    def messages(self, stored: Stored, batch: Batch) -> Iterator[list[Message]]: ...


@dataclass(frozen=True, slots=True)
class Names:
    """Who and where: the names in a topic.

    Attributes:
        levels: ISA-95 level -> name.
        places: Device -> levels that are other ones for it.
    """

    prefix: str
    gateway: str
    levels: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, stream: str) -> dict[str, str]:
        """The names for one stream."""
        device = stream.removeprefix("model/").partition("~")[0]
        return {
            "root": f"{self.prefix}/{self.gateway}",
            "prefix": self.prefix,
            "gateway": self.gateway,
            "stream": stream,
            "device": device,
            **self.levels,
            **self.places.get(device, {}),
        }


@dataclass(frozen=True, slots=True)
class Topics:
    """Where live rows go, and where those that come later do."""

    live: Text
    history: Text

    def of(self, stored: Stored, names: Mapping[str, Any]) -> str:
        """The topic of one message."""
        text = self.history if stored.lane is Lane.HISTORY else self.live
        return text.text(names)


class Scans:
    """The contract: one message per scan, many scans by column for what was missed."""

    def __init__(
        self, names: Names, texts: Texts, topics: Topics, *, compact: bool = False
    ) -> None:
        self._names, self._texts, self._topics = names, texts, topics
        self._compact = compact

    def messages(self, stored: Stored, batch: Batch) -> Iterator[list[Message]]:
        """One message."""
        topic = self._topics.of(stored, self._names.of(stored.stream))
        if stored.lane is Lane.HISTORY:
            payload = json.history(stored, batch, self._texts, compact=self._compact)
            yield [Message(topic, payload, json.HISTORY_TYPE)]
        else:
            yield [Message(topic, json.row(stored, batch, self._texts, compact=self._compact))]


@dataclass(frozen=True, slots=True)
class Shapes:
    """One shape for what is measured and derived, one for results, one for the agent's numbers,
    one for the results of candidates: whoever reads `results` acts on them.
    """

    measured: Shape
    results: Shape
    own: Shape
    shadow: Shape

    def messages(self, stored: Stored, batch: Batch) -> Iterator[list[Message]]:
        """The messages of a record, those of one row side by side."""
        if stored.stream == "agent":
            return self.own.messages(stored, batch)
        if is_shadow(stored.stream):
            return self.shadow.messages(stored, batch)
        shape = self.results if stored.stream.startswith("model/") else self.measured
        return shape.messages(stored, batch)


@dataclass(frozen=True, slots=True)
class Wording:
    """A template: what a message says.

    Attributes:
        per_tag: One message per tag, else one per row.
        over: What a message says of a mean; None: the same.
        skip_bad: Leave out values whose quality is Bad, and messages without any value.
        properties: User property -> its text.
    """

    body: Body
    per_tag: bool
    kind: str = "application/json"
    properties: tuple[tuple[str, Text], ...] = ()
    over: Body | None = None
    skip_bad: bool = False


class Worded:
    """Messages as a template says; what comes late says so in a user property."""

    def __init__(self, names: Names, texts: Texts, wording: Wording, topics: Topics) -> None:
        self._names, self._texts, self._topics, self._wording = names, texts, topics, wording

    def messages(self, stored: Stored, batch: Batch) -> Iterator[list[Message]]:
        """Those of one row at a time."""
        says = self._wording
        for row, tags in facts(stored, batch, self._names.of(stored.stream), self._texts):
            told = [t for t in tags if t["value"] is not None] if says.skip_bad else tags
            groups = [[t] for t in told] if says.per_tag else [told] if told else []
            yield [self._message(stored, row, some) for some in groups]

    def _message(self, stored: Stored, row: dict[str, Any], tags: list[dict[str, Any]]) -> Message:
        says = self._wording
        known = tags[0] if says.per_tag else row
        properties = [(name, text.text(known)) for name, text in says.properties]
        if stored.lane is Lane.HISTORY:
            properties.append(("historical", "true"))
        body = says.over if says.over is not None and known.get("mean") else says.body
        return Message(
            self._topics.of(stored, known),
            orjson.dumps(body.fill(row, tags)),
            says.kind,
            tuple(properties),
        )
