"""What does its work now: the measure by which a configuration is better or worse."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from agent.app.status import device, sink
from agent.config.crosscheck import tag_streams
from agent.config.schema import Settings
from agent.core.quality import Quality

if TYPE_CHECKING:
    from agent.app.daemon import Daemon


def works(daemon: "Daemon") -> frozenset[str]:
    """``device pump1``, ``sink plant``, ``model pump1`` (an instance), ``tag pump1/flow``."""
    settings = daemon.loaded.settings
    found = [f"device {n}" for n in settings.devices if _well(device(daemon, n))]
    found += [f"sink {n}" for n in settings.sinks if _well(sink(daemon, n))]
    found += [f"model {n}" for n, lane in daemon.scoring.lanes.items() if not lane.error]
    for channel in daemon.pipeline.channels.values():
        if channel.latest is not None:
            usable = channel.latest.q[-1] >= Quality.UNCERTAIN
            found += [f"tag {t.name}" for t, ok in zip(channel.tags, usable, strict=True) if ok]
    return frozenset(found)


def errors(daemon: "Daemon") -> dict[str, str]:
    """What each device, sink and model said last, if anything, by the same names."""
    settings = daemon.loaded.settings
    found = {f"device {n}": device(daemon, n).get("last_error") for n in settings.devices}
    found |= {f"sink {n}": sink(daemon, n).get("last_error") for n in settings.sinks}
    for name, model in settings.models.items():
        found |= {f"model {i}": daemon.rollout.trouble(name) for i in model.instances}
    return {name: str(error) for name, error in found.items() if error}


def _well(facts: dict[str, object]) -> bool:
    return facts["state"] == "running" and bool(facts.get("connected", True))


def expected(settings: Settings) -> frozenset[str]:
    """What a configuration asks for, by the same names."""
    return frozenset(
        [f"device {n}" for n in settings.devices]
        + [f"sink {n}" for n in settings.sinks]
        + [f"model {i}" for m in settings.models.values() for i in m.instances]
        + [f"tag {t}" for t in tag_streams(settings)]
    )


def lost(wanted: Collection[str], seen: Collection[str], errors: Mapping[str, str]) -> str:
    """What of *wanted* was not *seen*, in words, and what it said last (*errors*, by name);
    a lost device speaks for its tags.
    """
    missed = sorted(set(wanted) - set(seen))
    gone = {name.removeprefix("device ") for name in missed if name.startswith("device ")}
    told = [m for m in missed if m.partition("tag ")[2].partition("/")[0] not in gone]
    more = f" and {len(told) - 5} more" if len(told) > 5 else ""
    why = dict.fromkeys(errors.get(_speaks(name), "") for name in told)
    return "; ".join([", ".join(told[:5]) + more, *filter(None, why)])


def _speaks(name: str) -> str:
    """A device speaks for its tags."""
    kind, _, rest = name.partition(" ")
    return f"device {rest.partition('/')[0]}" if kind == "tag" else name
