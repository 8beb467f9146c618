"""Every alarm of a configuration: the agent's own, those of the file, those of the models."""

from typing import Final

from agent.config.schema import Settings
from agent.core.alarm import AlarmSpec, Kind

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

_WATCHED: Final[tuple[tuple[str, str, Kind, float, float, int, int, str, str, str], ...]] = (
    ("cpu", "host.cpu_percent", "high", 95.0, 10.0, 5, 3, "A110",
     "the processor is busy", "See `edge-agent top`; poll slower, or move work elsewhere."),
    ("memory", "host.memory_percent", "high", 90.0, 5.0, 1, 2, "A111",
     "memory is nearly full", "See which process takes it; lower the limits of the unit."),
    ("disk", "disk_used_percent", "high", 90.0, 2.0, 1, 2, "A112",
     "the disk of data_dir is nearly full", "Free space, or lower `journal: max_size`."),
    ("temperature", "host.temperature_degC", "high", 85.0, 5.0, 1, 2, "A113",
     "the gateway is hot", "Check its place, its fan and its filters."),
    ("network", "host.net_errors_per_s", "high", 1.0, 0.9, 1, 3, "A114",
     "network packets arrive damaged", "Check cable, connector and switch port."),
    ("clock", "clock.synced", "low", 0.5, 0.0, 15, 3, "A115",
     "nothing disciplines the clock: times may be off", "Check NTP: timedatectl timesync-status."),
    ("loop", "loop.lateness_ms.p99", "high", 500.0, 250.0, 1, 2, "A116",
     "the agent is late with its own work", "See `edge-agent top`; fewer tags, or slower."),
)  # fmt: skip
"""Name, number of the agent, kind, limit, deadband, minutes it must last, priority, code, text,
advice: what any monitored system watches. Limits with room for bursts that do no harm.
"""

BACKLOG_S: Final = 300.0
"""An uplink that is behind by more than this has its alarm."""


def alarm_specs(settings: Settings) -> list[AlarmSpec]:
    """All of them; one of the file replaces a watched number of the same name."""
    own = [*_OWN, *(_watched(settings) if settings.self_.alarms else ())]
    return [
        *(s for s in own if s.name not in settings.alarms),
        *(section.spec(name) for name, section in settings.alarms.items()),
        *_decisions(settings),
    ]


def _watched(settings: Settings) -> list[AlarmSpec]:
    found = [
        AlarmSpec(
            f"agent.{name}",
            f"agent/{number}",
            kind,
            limit,
            deadband,
            on_delay_ns=minutes * _MIN,
            priority=priority,
            text=text,
            code=code,
            advice=advice,
        )
        for name, number, kind, limit, deadband, minutes, priority, code, text, advice in _WATCHED
    ]
    found += [
        AlarmSpec(
            f"agent.uplink.{sink}",
            f"agent/sink/{sink}.oldest_age_s",
            "high",
            BACKLOG_S,
            0.9 * BACKLOG_S,
            on_delay_ns=_MIN,
            text=f"uplink {sink} is behind: values wait on the gateway",
            code="A117",
            advice="Check network and broker; nothing is lost while the journal has room.",
        )
        for sink in settings.sinks
    ]
    return found


def _decisions(settings: Settings) -> list[AlarmSpec]:
    """A model that decides is an alarm on its result."""
    return [
        AlarmSpec(
            f"{instance}.{name}",
            f"model/{instance}/{d.output}",
            "high",
            d.above,
            0.0 if d.off is None else d.above - d.off,
            priority=d.priority,
            text=d.text or f"model {name} decides on {instance}",
            when=model.when,
            of=d.of,
            advice=d.advice,
        )
        for name, model in settings.models.items()
        if (d := model.decide) is not None
        for instance in model.instances
    ]
