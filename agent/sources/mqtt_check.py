"""What the settings of an MQTT source must hold together: every reason at once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from agent.config.base import Refusal
from agent.core.derive import SUFFIX
from agent.sources.mqtt_topics import template

if TYPE_CHECKING:
    from agent.sources.mqtt import MqttConfig

_KEY: Final = {"json": "path", "csv": "column", "sparkplug": "metric", "plain": ""}
"""How a tag is found in a message, by format."""


def refusals(config: "MqttConfig") -> list[Refusal]:
    """Why a device cannot be; empty when it can."""
    more = [*_tags(config), *_time(config), *_topics(config), *_format(config)]
    if len(config.brokers) > 1:
        fix = "Keep one: a session waits at one broker. A list is for sinks."
        more.append(Refusal("E310", "a device listens at one broker", fix, ("connect",)))
    return more


def _tags(config: "MqttConfig") -> Iterator[Refusal]:
    wanted = _KEY[config.format]
    for name, tag in config.tags.items():
        at = ("tags", name)
        for key in ("path", "column", "metric"):
            given = getattr(tag, key) is not None
            if given and key != wanted:
                what = f"`{key}` is not for `format: {config.format}`"
                fix = f"Write `{wanted}:`." if wanted else "Remove it: the payload is the value."
                yield Refusal("E342", what, fix, (*at, key))
            elif not given and key == wanted:
                what = f"tag `{name}` has no `{key}`: it is not said where its value stands"
                yield Refusal("E342", what, f"Write `{key}:`.", at)
        if tag.range_ is not None and tag.range_[0] > tag.range_[1]:
            what = f"the range {list(tag.range_)} is upside down"
            yield Refusal("E304", what, "Write the lower limit first.", (*at, "range"))
        if tag.as_ == "text" and (tag.scale, tag.offset, tag.deadband) != (1.0, 0.0, 0.0):
            what = "a text has neither `scale` nor `offset` nor `deadband`"
            yield Refusal("E342", what, "Remove them.", at)


def _time(config: "MqttConfig") -> Iterator[Refusal]:
    if config.time is None:
        return
    wanted = {"json": "path", "csv": "column"}.get(config.format)
    if wanted is None:
        what = f"`time` is not for `format: {config.format}`"
        fix = "Remove it: Sparkplug has its own times, a plain number has none."
        yield Refusal("E341", what, fix, ("time",))
        return
    for key in ("path", "column"):
        if (getattr(config.time, key) is not None) != (key == wanted):
            what = f"`time` of `format: {config.format}` needs `{wanted}`, and nothing else"
            yield Refusal("E341", what, f"Write `time: {{{wanted}: ...}}`.", ("time",))
            return


def _topics(config: "MqttConfig") -> Iterator[Refusal]:
    if config.topic is None and config.format == "sparkplug":
        yield Refusal("E340", "`topic` is missing", "Write spBv1.0/GROUP/+/NODE/DEVICE.")
        return
    names: set[str] = set()
    for name, tag in config.tags.items():
        text = tag.topic or config.topic
        if text is None:
            what = f"tag `{name}` has no topic"
            yield Refusal("E340", what, "Write `topic:` here, or for the device.", ("tags", name))
        else:
            names.add(template(text).name)
    for one in sorted(names - {""} - config.each.keys()):
        what = f"nobody says what `{{{one}}}` may be"
        yield Refusal("E343", what, f"Write `each: {{{one}: [a, b]}}`.")
    if len(names) > 1:
        what = "topics with `{name}` and topics without, or with another, cannot be one device"
        yield Refusal("E343", what, "Make two devices of it.", ("topic",) if config.topic else ())
    for one, values in config.each.items():
        at = ("each", one)
        if one not in names:
            yield Refusal("E343", f"no topic has `{{{one}}}`", "Remove it.", at)
        if len(set(values)) < len(values):
            yield Refusal("E343", "a name stands twice", "Remove one.", at)
        if any(f"~{v}" == SUFFIX for v in values):
            yield Refusal("E343", "`derived` is the stream of derived tags", "Rename it.", at)


def _format(config: "MqttConfig") -> Iterator[Refusal]:
    if config.format == "plain":
        topics = [t.topic or config.topic for t in config.tags.values()]
        if len(set(topics)) < len(topics):
            what = "two tags have the same topic, and a plain payload is one value"
            yield Refusal("E342", what, "Write a `topic:` for each tag.", ("tags",))
    if config.format != "csv" and (config.delimiter, config.decimal) != (",", "."):
        what = "`delimiter` and `decimal` are for `format: csv`"
        yield Refusal("E342", what, "Remove them.", ("format",))
    if config.delimiter == config.decimal:
        what = "`delimiter` and `decimal` are the same"
        yield Refusal("E342", what, 'Write `delimiter: ";"`.', ("decimal",))
    if config.format == "sparkplug":
        yield from _sparkplug(config)
    elif config.rebirth is not None:
        yield Refusal("E344", "`rebirth` is for `format: sparkplug`", "Remove it.", ("rebirth",))


def _sparkplug(config: "MqttConfig") -> Iterator[Refusal]:
    levels = (config.topic or "").split("/")
    fits = len(levels) in (4, 5) and levels[0] == "spBv1.0" and levels[2] == "+"
    if config.topic and (not fits or "+" in (levels[1], *levels[3:]) or "{" in levels[1]):
        what = f"`{config.topic}` is no topic of Sparkplug"
        yield Refusal("E344", what, "Write spBv1.0/GROUP/+/NODE/DEVICE.", ("topic",))
    for name, tag in config.tags.items():
        if tag.topic is not None:
            what = "a Sparkplug tag has no topic of its own"
            yield Refusal("E344", what, "Write `topic:` for the device.", ("tags", name, "topic"))
    if config.share is not None:
        what = "births and data of a Sparkplug node cannot be shared out"
        yield Refusal("E344", what, "Remove `share`.", ("share",))
