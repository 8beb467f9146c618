"""Every alarm of a configuration: the agent's own, those of the file, those of the models."""

from dataclasses import replace
from typing import Final

from agent.app.certificates import certificates
from agent.config.models import ModelSection
from agent.config.schema import Settings
from agent.core.alarm import AlarmSpec, Kind
from agent.core.decision import Decision
from agent.runtime.limits import OUTPUT

_MIN: Final = 60_000_000_000

_OWN: Final = (
    AlarmSpec(
        "agent.not_durable",
        "agent/journal.durable",
        "low",
        0.5,
        priority=1,
        text="the journal cannot write: values are sent live only",
        code="A101",
        advice="Check the disk of data_dir.",
    ),
    AlarmSpec(
        "agent.model_out",
        "agent/models.out",
        "high",
        0.5,
        priority=2,
        text="a model version was taken out: edge-agent models list",
        code="A103",
        advice="Publish a repaired version, or roll back.",
    ),
)
"""What the agent tells of itself without being asked, and cannot be changed."""


def _watch(
    name: str,
    number: str,
    kind: Kind,
    limit: float,
    back: float,
    minutes: int,
    priority: int,
    code: str,
    text: str,
    advice: str,
) -> AlarmSpec:
    """One watched number of the agent: *kind* of *limit*, over when it came *back* so far, told
    when it has lasted for so many *minutes*.
    """
    return AlarmSpec(
        f"agent.{name}",
        f"agent/{number}",
        kind,
        limit,
        back,
        on_delay_ns=minutes * _MIN,
        priority=priority,
        text=text,
        code=code,
        advice=advice,
    )


_WATCHED: Final = (
    _watch("cpu", "host.cpu_percent", "high", 95.0, 10.0, 5, 3, "A110",
         "the processor is busy", "See `edge-agent top`; poll slower, or move work elsewhere."),
    _watch("memory", "host.memory_percent", "high", 90.0, 5.0, 1, 2, "A111",
         "memory is nearly full", "See which process takes it; lower the limits of the unit."),
    _watch("disk", "disk_used_percent", "high", 90.0, 2.0, 1, 2, "A112",
         "the disk of data_dir is nearly full", "Free space, or lower `journal: max_size`."),
    _watch("temperature", "host.temperature_degC", "high", 85.0, 5.0, 1, 2, "A113",
         "the gateway is hot", "Check its place, its fan and its filters."),
    _watch("network", "host.net_errors_per_s", "high", 1.0, 0.9, 1, 3, "A114",
         "network packets arrive damaged", "Check cable, connector and switch port."),
    _watch("clock", "clock.synced", "low", 0.5, 0.0, 15, 3, "A115",
         "nothing disciplines the clock: times may be off",
         "Check NTP: timedatectl timesync-status."),
    _watch("loop", "loop.lateness_ms.p99", "high", 500.0, 250.0, 1, 2, "A116",
         "the agent is late with its own work", "See `edge-agent top`; fewer tags, or slower."),
)  # fmt: skip
"""What any monitored system watches. Limits with room for bursts that do no harm."""

BACKLOG_S: Final = 300.0
"""An uplink that is behind by more than this has its alarm."""

CERTIFICATE_DAYS: Final = 21.0
"""Three weeks to get a new certificate into the plant."""


def alarm_specs(settings: Settings) -> list[AlarmSpec]:
    """All of them; one of the file replaces a watched number of the same name."""
    own = [*_OWN, *(_watched(settings) if settings.self_.alarms else ())]
    return [
        *(s for s in own if s.name not in settings.alarms),
        *(section.spec(name) for name, section in settings.alarms.items()),
        *(
            spec
            for name, model in settings.models.items()
            if model.decide is not None
            for spec in decided(name, model, model.decide.decision())
        ),
        *(
            spec
            for name, model in settings.models.items()
            if model.alarming
            for spec in _limits(name, model)
        ),
    ]


def _watched(settings: Settings) -> list[AlarmSpec]:
    """The fixed ones, and what hangs on the file: the wear of the flash, uplinks, certificates."""
    return [
        *_WATCHED,
        _wear(float(settings.journal.wear_per_day)),
        *(_uplink(sink) for sink in settings.sinks),
        *(_budget(n) for n, s in settings.sinks.items() if getattr(s, "data_budget", None)),
        *(_certificate(peer) for peer in certificates(settings)),
        *(_stale(i) for m in settings.models.values() if m.drift.watch for i in m.instances),
    ]


def _wear(budget: float) -> AlarmSpec:
    return _watch(
        "wear", "journal.wear_bytes_per_day", "high", budget, 0.1 * budget, 60, 3, "A119",
        "the journal wears the flash faster than `wear_per_day` allows",
        "Poll slower, raise `journal: commit`, or the budget if the disk can bear it.",
    )  # fmt: skip


def _uplink(sink: str) -> AlarmSpec:
    return _watch(
        f"uplink.{sink}", f"sink/{sink}.oldest_age_s", "high", BACKLOG_S, 0.9 * BACKLOG_S, 1, 2,
        "A117", f"uplink {sink} is behind: values wait on the gateway",
        "Check network and broker; nothing is lost while the journal has room.",
    )  # fmt: skip


def _budget(sink: str) -> AlarmSpec:
    return _watch(
        f"budget.{sink}", f"sink/{sink}.budget_rung", "high", 0.5, 0.0, 1, 3, "A121",
        f"the data budget of {sink} runs out: values are thinned, alarms are not",
        "Report less (`reports:`), take `format: compact`, or raise `data_budget`.",
    )  # fmt: skip


def _certificate(peer: str) -> AlarmSpec:
    return _watch(
        f"certificate.{peer.replace('/', '.')}", f"{peer}.certificate_days", "low",
        CERTIFICATE_DAYS, 0.0, 0, 2, "A120",
        f"a certificate of {peer.replace('/', ' ')} is about to be over, or is",
        "Put a new one in its place, then `edge-agent reload`.",
    )  # fmt: skip


def _stale(instance: str) -> AlarmSpec:
    return _watch(
        f"stale.{instance}", f"model/{instance}.stale", "high", 0.5, 0.0, 0, 3, "A122",
        f"the model of {instance} no longer fits what it is fed, or is too old",
        "`edge-agent models samples` says why; train it anew, or correct what has changed.",
    )  # fmt: skip


def decided(name: str, model: ModelSection, decision: Decision) -> list[AlarmSpec]:
    """The alarm of each machine that the model *name* serves: what decides is on its result."""
    return [
        replace(
            decision.spec(f"{instance}.{name}", f"model/{instance}/{decision.output}", model.when),
            text=decision.text or f"model {name} decides on {instance}",
        )
        for instance in model.instances
    ]


def _limits(name: str, model: ModelSection) -> list[AlarmSpec]:
    """The same alarms while no version can run: an input is outside its limits."""
    shown = Decision("", 0.5) if model.decide is None else model.decide.decision()
    standing_in = Decision(
        OUTPUT, 0.5, priority=shown.priority, advice=shown.advice,
        text=f"model {name} cannot run; a value is outside its limits",
    )  # fmt: skip
    return decided(name, model, standing_in)
