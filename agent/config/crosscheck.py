"""What only the whole file can tell: names that point to nothing, names used twice."""

from collections.abc import Collection, Iterator
from typing import Final

from agent.config import renames
from agent.config.meaning import meaning
from agent.config.models import ModelSection
from agent.config.nodes import nodes
from agent.config.permissions import Finding, permissions
from agent.config.report import did_you_mean
from agent.config.schema import Settings
from agent.config.selftags import mistake
from agent.core.alarms import bad_alarm, comm_alarm
from agent.core.derive import SUFFIX
from agent.core.tag import TagSet

RESERVED: Final = ("agent", "model")
"""Device names that would collide with streams of the agent itself."""

OWN_ALARMS: Final = ("agent.not_durable", "agent.model_out", "agent.flood")
"""Alarms that the agent raises about itself."""

_NO_TEXT: Final = "Choose a tag that is a number; for states that are codes use `enum:`."


def device_streams(settings: Settings) -> dict[str, TagSet]:
    """Every stream that the configured devices give."""
    return {
        stream: tags
        for name, device in settings.devices.items()
        for stream, tags in device.tag_sets(name).items()  # type: ignore[attr-defined]
    }


def streams(settings: Settings) -> dict[str, TagSet]:
    """Every stream whose tags the file names: of devices, and derived from them."""
    found = device_streams(settings)
    return found | meaning(settings, found).tag_sets()


def tag_streams(settings: Settings) -> dict[str, str]:
    """Full name of every tag that the file names -> its stream."""
    return {tag: stream for stream, tags in streams(settings).items() for tag in tags.column}


def text_tags(settings: Settings) -> set[str]:
    """Full names of the tags that are texts: neither a limit nor a model can take them."""
    return {tag.name for tags in streams(settings).values() for tag in tags if tag.kind == "text"}


def crosscheck(settings: Settings) -> list[Finding]:
    """Every reference that does not hold."""
    devices = device_streams(settings)
    derived = meaning(settings, devices)
    known = devices | derived.tag_sets()
    of_tag = {tag: stream for stream, tags in known.items() for tag in tags.column}
    return [
        *_devices(settings),
        *_classes(devices),
        *derived.findings,
        *_models(settings, of_tag),
        *_alarms(settings, of_tag),
        *_texts(settings),
        *renames.check(settings, of_tag, text_tags(settings)),
        *permissions(settings, of_tag),
        *_topics(settings),
        *_echoes(settings),
        *_clients(settings),
        *nodes(settings),
    ]


def _devices(settings: Settings) -> Iterator[Finding]:
    for name in settings.devices:
        if name in RESERVED:
            yield (
                "E204",
                f"`{name}` is a name of the agent itself",
                ("devices", name),
                "Give the device another name.",
            )
    yield from _lines(settings)


def _lines(settings: Settings) -> Iterator[Finding]:
    """Devices behind one connection must agree on how to talk on it."""
    first: dict[object, tuple[str, object]] = {}
    for name, device in settings.devices.items():
        if not hasattr(device, "line"):
            continue
        place, how = device.line
        owner, as_owner = first.setdefault(place, (name, how))
        if how != as_owner:
            yield (
                "E209",
                f"`{name}` and `{owner}` share a connection but not its settings",
                ("devices", name, "connect"),
                "Write the same `serial`, `ca`, `cert` and `key` for both, best in a profile.",
            )


def _classes(devices: Collection[str]) -> Iterator[Finding]:
    for stream in devices:
        if stream.endswith(SUFFIX):
            device = stream.partition("~")[0]
            yield (
                "E225",
                "a scan class cannot be called `derived`: that is the stream of derived tags",
                ("devices", device, "classes"),
                "Give the class another name.",
            )


def _models(settings: Settings, of_tag: dict[str, str]) -> Iterator[Finding]:
    owner: dict[str, str] = {}
    for name, model in settings.models.items():
        at: tuple[str | int, ...] = ("models", name)
        if model.registry is not None and model.registry not in settings.registries:
            yield (
                "E203",
                f"there is no registry `{model.registry}`",
                (*at, "registry"),
                did_you_mean(model.registry, settings.registries) or "Add it under `registries:`.",
            )
        registry = settings.registries.get(model.registry or "")
        asks = registry is not None and getattr(registry, "unsigned", "refuse") == "refuse"
        if asks and settings.trust is None:
            yield (
                "E233",
                f"`{model.registry}` takes signed models only, but nobody is trusted to sign",
                (*at, "registry"),
                "Add `trust:` with `keyring` and `root`; or write `unsigned: accept` there.",
            )
        yield from _ignored(model, at)
        for instance, bound in model.instances.items():
            if instance in owner:
                yield (
                    "E205",
                    f"instance `{instance}` also belongs to model `{owner[instance]}`",
                    (*at, "instances", instance),
                    "Choose another name.",
                )
            owner.setdefault(instance, name)
            inputs = (*at, "instances", instance, "inputs")
            yield from _inputs(model, bound.inputs, settings, of_tag, inputs)


def _ignored(model: ModelSection, at: tuple[str | int, ...]) -> Iterator[Finding]:
    fed = {tag for bound in model.instances.values() for tag in bound.inputs}
    for i, tag in enumerate(model.drift.ignore):
        if tag not in fed:
            yield (
                "E201",
                f"`{tag}` is no input of this model",
                (*at, "drift", "ignore", i),
                did_you_mean(tag, fed) or _known(fed),
            )


def _inputs(
    model: ModelSection,
    inputs: list[str],
    settings: Settings,
    of_tag: dict[str, str],
    at: tuple[str | int, ...],
) -> Iterator[Finding]:
    streams = {of_tag[tag] for tag in inputs if tag in of_tag}
    for i, tag in enumerate(inputs):
        if tag not in of_tag:
            yield (
                "E201",
                f"there is no tag `{tag}`",
                (*at, i),
                _cure(tag, settings, of_tag),
            )
    if model.window.kind == "count" and len(streams) > 1:
        yield (
            "E206",
            f"a `count` window needs tags of one scan class, not of {', '.join(sorted(streams))}",
            at,
            "Write `kind: grid` with `period` and `max_age`, or put the tags into one class.",
        )


def _alarms(settings: Settings, of_tag: dict[str, str]) -> Iterator[Finding]:
    own = {f"{i}.{n}" for n, m in settings.models.items() if m.alarming for i in m.instances}
    instances = {i for m in settings.models.values() for i in m.instances}
    named: dict[str, Collection[str]] = {
        "sink": settings.sinks,
        "source": settings.devices,
        "modbus": settings.devices,
        "model": {*instances, *settings.models},
        "registry": settings.registries,
    }
    bad: set[str] = set()
    if settings.bad_after_s is not None:
        bad = {bad_alarm(tag) for tag in of_tag} | {comm_alarm(d) for d in settings.devices}
    for name, alarm in settings.alarms.items():
        if alarm.tag.startswith("agent/"):
            fix = mistake(alarm.tag, named)
        elif alarm.tag.startswith("model/"):
            known = {f"model/{i}" for i in instances}
            there = alarm.tag.count("/") > 1 and alarm.tag.rsplit("/", 1)[0] in known
            fix = did_you_mean(alarm.tag, known) or "Write `model/INSTANCE/OUTPUT`."
            fix = None if there else fix
        else:
            fix = None if alarm.tag in of_tag else _cure(alarm.tag, settings, of_tag)
        if fix is not None:
            yield "E202", f"there is no tag `{alarm.tag}`", ("alarms", name, "tag"), fix
        if isinstance(alarm.setpoint, str) and of_tag.get(alarm.setpoint) != of_tag.get(alarm.tag):
            yield (
                "E228",
                f"`{alarm.setpoint}` is no tag of the scan class of `{alarm.tag}`",
                ("alarms", name, "setpoint"),
                "Put both into one class, or derive their difference and give it a limit.",
            )
        if name in own or name in OWN_ALARMS or name in bad:
            yield (
                "E207",
                f"alarm `{name}` is already made by the agent",
                ("alarms", name),
                "Give it another name.",
            )


def _texts(settings: Settings) -> Iterator[Finding]:
    """Texts where numbers are needed."""
    texts = text_tags(settings)
    for name, model in settings.models.items():
        for instance, bound in model.instances.items():
            for i, tag in enumerate(bound.inputs):
                if tag in texts:
                    what = f"`{tag}` is a text; a model takes numbers"
                    yield (
                        "E212",
                        what,
                        ("models", name, "instances", instance, "inputs", i),
                        _NO_TEXT,
                    )
    for name, alarm in settings.alarms.items():
        if alarm.tag in texts:
            what = f"`{alarm.tag}` is a text; a limit needs a number"
            yield "E212", what, ("alarms", name, "tag"), _NO_TEXT


def _topics(settings: Settings) -> Iterator[Finding]:
    """Consumers cut topics at seven slashes (contracts: at most 7 in all)."""
    below = "_cmd/read/reply/x" if settings.commands else "history/model/x"
    deepest = f"{settings.gateway.prefix}/{settings.gateway.id}/{below}"
    if deepest.count("/") > 7:
        yield (
            "E208",
            "the topics would have more than 7 slashes",
            ("gateway", "prefix"),
            "Shorten it.",
        )


def _echoes(settings: Settings) -> Iterator[Finding]:
    """A device that listens to what the agent publishes would make rows of rows for ever."""
    root = f"{settings.gateway.prefix}/{settings.gateway.id}"
    more = [r for s in settings.sinks.values() if hasattr(s, "roots") for r in s.roots(root)]
    for name, device in settings.devices.items():
        heard = [r for r in (root, *more) if hasattr(device, "hears") and device.hears(r)]
        if heard:
            yield (
                "E226",
                f"`{name}` would hear what the agent itself publishes below {heard[0]}",
                ("devices", name),
                "Write the topic without wildcards where the agent's own has names.",
            )


def _clients(settings: Settings) -> Iterator[Finding]:
    """Two connections with one client id throw each other out of the broker for ever."""
    owner: dict[tuple[str, str], str] = {}
    for kind, group in (("devices", settings.devices), ("sinks", settings.sinks)):
        for name, section in group.items():
            client = getattr(section, "client_id", None)
            if client is None:
                continue
            brokers = getattr(section, "brokers", ("",))
            others = [owner.setdefault((broker, client), name) for broker in brokers]
            first = next((o for o in others if o != name), name)
            if first != name:
                yield (
                    "E227",
                    f"`{name}` and `{first}` have the same client id at the same broker",
                    (kind, name, "client_id"),
                    "Remove it: the agent gives each connection its own.",
                )


def _cure(tag: str, settings: Settings, of_tag: dict[str, str]) -> str:
    """What to do about a tag that the file does not know; devices may tell theirs later."""
    device = settings.devices.get(tag.partition("/")[0])
    own: str = getattr(device, "unlisted", "")
    near = did_you_mean(tag, of_tag)
    return " ".join(filter(None, (near, own))) or _known(of_tag)


def _known(tags: Collection[str]) -> str:
    some = sorted(tags)[:8]
    more = ", ..." if len(tags) > len(some) else ""
    return f"Known tags: {', '.join(some)}{more}." if some else "No device has a tag."
