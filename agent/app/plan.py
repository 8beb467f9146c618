"""From settings to what must run: units, and how the pipeline is wired."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.app.alarms import alarm_specs
from agent.app.certificates import certificates, watch, written
from agent.app.page import desk, web
from agent.config import crosscheck
from agent.config.crosscheck import device_streams
from agent.config.meaning import meaning
from agent.config.models import ModelSection
from agent.config.rollout import RolloutSection
from agent.config.schema import Settings
from agent.config.windows import window
from agent.core.tag import TagSet
from agent.core.window import CountWindow, Window
from agent.runtime.flood import FloodLimit
from agent.runtime.gates import Gates
from agent.runtime.lane import InstancePlan
from agent.runtime.pipeline import Wiring
from agent.runtime.trial import Fit
from agent.runtime.units import Layer, Unit
from agent.runtime.versions import ModelChoice

if TYPE_CHECKING:
    from agent.app.daemon import Daemon


LEARNED: Final = "(learned here)"
"""In place of the name of a registry: the folder of what this gateway has learned itself."""

FOLDER: Final = "learned"
"""That folder, below the data folder; its only channel is called the same."""

TRIAL_DEADLINE_S: Final = 10.0
"""At least so long a trial may run: it scores many windows, on a machine that has work to do."""


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def streams(settings: Settings) -> dict[str, TagSet]:
    """Every stream whose tags the file names."""
    return crosscheck.streams(settings)


def instances(settings: Settings, name: str) -> list[InstancePlan]:
    """The machines that the model *name* serves, their inputs found in the streams."""
    model = settings.models[name]
    devices = device_streams(settings)
    derived = meaning(settings, devices)
    found = devices | derived.tag_sets()
    of_tag = {tag: stream for stream, tags in found.items() for tag in tags.column}
    when, state = None, ""
    if model.when is not None:
        state = derived.states[model.when]
        when = of_tag[state], found[of_tag[state]].column[state]
    return [
        InstancePlan(
            instance,
            name,
            tuple(bound.inputs),
            window(model.window),
            model.deadline_s,
            _parts(bound.inputs, found, of_tag),
            when,
            state,
        )
        for instance, bound in model.instances.items()
    ]


def _parts(
    inputs: list[str], found: dict[str, TagSet], of_tag: dict[str, str]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Runs of inputs of one stream, in the model's order."""
    parts: list[tuple[str, list[int]]] = []
    for tag in inputs:
        stream = of_tag[tag]
        if not parts or parts[-1][0] != stream:
            parts.append((stream, []))
        parts[-1][1].append(found[stream].column[tag])
    return tuple((stream, tuple(columns)) for stream, columns in parts)


def choice(settings: Settings, name: str) -> ModelChoice:
    """Where a model comes from and what it will be fed."""
    model = settings.models[name]
    units = {tag.name: tag.unit for tags in streams(settings).values() for tag in tags}
    inputs = next(iter(model.instances.values())).inputs
    unsigned = getattr(_registry(settings, model), "unsigned", "refuse")
    return ModelChoice(
        name=name,
        file=None if model.file is None else Path(model.file),
        registry=LEARNED if model.learned else model.registry or "",
        channel=FOLDER if model.learned else model.channel or "",
        fit=Fit(
            model.window.rows,
            len(inputs),
            None if model.decide is None else model.decide.decision(),
            max(TRIAL_DEADLINE_S, model.deadline_s),
            tuple(model.allow_ops),
            window(model.window),
            tuple(units.get(tag, "") for tag in inputs),
        ),
        poll_s=model.poll_s,
        unsigned=unsigned == "accept",
        gateway=settings.gateway.id,
        gates=None if model.file is not None else _gates(settings.rollout),
        keep=1 if settings.rollout is None else settings.rollout.keep,
    )


def _gates(section: RolloutSection | None) -> Gates | None:
    """What a version must show; its trial only, where nobody has asked for more."""
    if section is None:
        return None
    return Gates(
        ask=section.activation == "ask",
        ask_retrained=section.retrained == "ask",
        **{f.name: getattr(section, f.name) for f in fields(Gates) if hasattr(section, f.name)},
    )


def wiring(settings: Settings) -> Wiring:
    """Rings deep enough for every model, all alarms, and what is derived."""
    rings: dict[str, int] = {}
    for name, model in settings.models.items():
        for one in instances(settings, name):
            fed = [stream for stream, _ in one.parts] + ([one.when[0]] if one.when else [])
            for stream in fed:
                rings[stream] = max(rings.get(stream, 0), _ring_rows(window(model.window)))
    return Wiring(
        rings,
        tuple(alarm_specs(settings)),
        None if settings.bad_after_s is None else _ns(settings.bad_after_s),
        frozenset(
            {"agent"} | {f"model/{i}" for m in settings.models.values() for i in m.instances}
        ),
        {s: tuple(d) for s, d in meaning(settings, device_streams(settings)).tables.items()},
        FloodLimit(settings.alarm_flood.max, settings.alarm_flood.per_s),
        {f"{i}.{n}": n for n in settings.models for i in undecided(settings, n)},
    )


def undecided(settings: Settings, name: str) -> list[str]:
    """The machines of the model *name* whose alarm is for the manifest to say."""
    model = settings.models[name]
    return list(model.instances) if model.decide is None and model.alarming else []


def _ring_rows(shape: Window) -> int:
    """Rows a ring must hold: room for windows that wait for their turn.

    A grid window may join slower streams sampled far faster than its period: 16 rows a step.
    """
    return shape.rows + 64 if isinstance(shape, CountWindow) else 16 * shape.rows + 64


def units(settings: Settings, daemon: "Daemon") -> dict[str, Unit]:
    """Everything that must run for *settings*."""
    wanted = [
        Unit("scoring", Layer.MODEL, None, daemon.scoring.run),
        Unit("shadow", Layer.MODEL, None, daemon.models.shadow.scoring.run),
        Unit("fallbacks", Layer.MODEL, None, daemon.models.fallbacks.scoring.run),
        Unit("control", Layer.JOB, None, daemon.control.run),
        Unit("housekeeping", Layer.JOB, None, daemon.housekeeping),
        Unit("on-disk", Layer.JOB, None, daemon.on_disk.run),
        Unit("source/agent", Layer.SOURCE, settings.self_, daemon.ends.internal(settings.self_)),
    ]
    wanted.append(Unit("overrides", Layer.JOB, None, daemon.overrides.run))
    wanted.append(Unit("pulse", Layer.JOB, None, daemon.pulse.run))
    if files := certificates(settings):
        seen = (files, written(files))
        wanted.append(
            Unit("certificates", Layer.JOB, seen, watch(files, daemon.clock, daemon.stats))
        )
    if settings.models:
        wanted.append(Unit("drift", Layer.JOB, None, daemon.models.drift.run))
        wanted.append(Unit("states", Layer.JOB, None, daemon.models.states.run))
    if settings.web is not None:
        page = web(lambda: desk(daemon), settings.web, daemon.pair)
        wanted.append(Unit("web", Layer.JOB, settings.web, page))
    if settings.commands is not None:
        wanted.append(Unit("commands", Layer.JOB, None, daemon.commands.run))
    wanted += [
        Unit(f"source/{n}", Layer.SOURCE, d, daemon.ends.source(n, d))
        for n, d in settings.devices.items()
    ]
    wanted += [
        Unit(
            f"sink/{n}",
            Layer.SINK,
            (s, settings.gateway, takes_commands(settings, n)),
            daemon.ends.sink(n, s),
        )
        for n, s in settings.sinks.items()
    ]
    wanted += [
        Unit(f"model/{n}", Layer.MODEL, _what_serves(settings, n), daemon.models.run(n, m))
        for n, m in settings.models.items()
    ]
    return {u.name: u for u in wanted}


def _what_serves(settings: Settings, name: str) -> object:
    """A model starts anew when its section, its registry, its inputs, or the rollout changes."""
    model = settings.models[name]
    tried = None if model.file is not None else settings.rollout
    return model, _registry(settings, model), instances(settings, name), tried


def takes_commands(settings: Settings, sink: str) -> bool:
    """Do requests come over the broker of *sink*?"""
    return settings.commands is not None and sink in settings.commands.sinks


def _registry(settings: Settings, model: ModelSection) -> object:
    return settings.registries.get(model.registry) if model.registry else None
