"""An edge node of Sparkplug 3.0 as values: what it says, in which order; no I/O."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import structlog

from agent.codecs.sparkplug import Metric
from agent.codecs.sparkplug_encode import (
    BOOLEAN,
    DOUBLE,
    INT64,
    STRING,
    Sample,
    Slot,
    encode,
    properties,
    quality,
)
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.derive import SUFFIX
from agent.core.plant import Plant
from agent.core.ports import Clock, Lane, Stored
from agent.core.tag import TagSet
from agent.core.texts import Texts
from agent.sinks.sparkplug_alarms import Alarms
from agent.sinks.sparkplug_device import Device, device_of
from agent.sinks.sparkplug_losses import Losses
from agent.sinks.sparkplug_rows import Rows, about, datatype, provenance, silent

log = structlog.get_logger()

NAMESPACE: Final = "spBv1.0"
REBIRTH: Final = "Node Control/Rebirth"
PIECE: Final = 2000
"""Metrics in one message of what was missed."""

_FACT_TYPES: Final = {bool: BOOLEAN, int: INT64, float: DOUBLE, str: STRING}

Message = tuple[str, bytes]
"""Topic and payload."""


class Node:
    """Makes the messages of one node. Whoever sends them keeps their order: ``seq`` counts them.

    Attributes:
        plant: What stands now; births tell all of it.
        bdseq: Number of this session, in its birth and its death.
    """

    def __init__(self, group: str, name: str, texts: Texts, clock: Clock) -> None:
        self._group, self._name, self._texts, self._clock = group, name, texts, clock
        self.plant: Plant
        self.bdseq = 0
        self.devices: dict[str, Device] = {}
        self._seq = 0
        self._aliases: dict[str, int] = {}
        self._alarms, self._losses = Alarms(self._node_alias), Losses(self._node_alias)
        self._facts: dict[str, tuple[Slot, Any]] = {}

    def topic(self, kind: str, device: str = "") -> str:
        """``spBv1.0/group/kind/node[/device]``."""
        own = f"{NAMESPACE}/{self._group}/{kind}/{self._name}"
        return f"{own}/{device}" if device else own

    def death(self) -> Message:
        """NDEATH: the will of this session, and its last word. No seq."""
        slot, now_ms = Slot("bdSeq", None, INT64), self._now_ms()
        return self.topic("NDEATH"), encode(
            now_ms, None, [(slot, now_ms, self.bdseq, b"")], birth=True
        )

    def birth(self) -> Iterator[Message]:
        """NBIRTH, and the DBIRTH of every device that is reached: all that can be told."""
        now_ms = self._now_ms()
        self._seq = -1
        samples: list[Sample] = [
            (Slot("bdSeq", None, INT64), now_ms, self.bdseq, b""),
            (Slot(REBIRTH, None, BOOLEAN), now_ms, False, b""),
        ]
        self._facts = {
            name: (Slot(f"Properties/{name}", self._alias("", name), _FACT_TYPES[type(x)]), x)
            for name, x in self.plant.facts().items()
            if type(x) in _FACT_TYPES
        }
        samples += [(slot, now_ms, value, quality(192)) for slot, value in self._facts.values()]
        samples += self._losses.births(now_ms, self.plant.balance())
        samples += self._alarms.births(now_ms, self.plant)
        yield self._message("NBIRTH", "", samples, birth=True)
        self.devices = {}
        for name, some in self._standing().items():
            if any(latest is not None and not silent(latest) for _, latest in some.values()):
                yield self._device_birth(name, some)

    def announce(self, stream: str, tags: TagSet) -> Iterator[Message]:
        """A new DBIRTH when the birth of a device does not have these tags of a stream."""
        name = device_of(stream)
        device = self.devices.get(name)
        if device is None or not device.born:
            return
        rows = device.rows.get(stream)
        if rows is None or rows.tags != tags:
            some = dict(self._standing().get(name, {}))
            latest = some.get(stream, (tags, None))[1]
            some[stream] = (tags, latest if latest is not None and latest.tags == tags else None)
            yield self._device_birth(name, some)

    def gone(self) -> Iterator[Message]:
        """DDEATH of the devices that the agent has no longer."""
        there = self._standing()
        for name in [n for n in self.devices if n not in there]:
            yield from self._bury(name)
            del self.devices[name]

    def record(self, stored: Stored) -> Iterable[Message] | None:
        """What tells one record; None when no metric of a birth can be meant."""
        record = stored.record
        if isinstance(record, AlarmEvent):
            return self.alarm(record)
        if stored.lane is Lane.HISTORY or (record.late is not None and record.late.any()):
            return self.history(stored, record)
        return self.live(stored, record)

    def live(self, stored: Stored, batch: Batch) -> Iterator[Message]:
        """What a row changes: data, the birth of a device that is reached again, or its death."""
        name, t_ms = device_of(stored.stream), int(batch.t[-1]) // 1_000_000
        device = self.devices.get(name)
        if device is None or not device.born:
            if not silent(batch) and not stored.stream.endswith(SUFFIX):
                yield from self._arrive(name)
            return
        rows = self._fitted(device, stored.stream, batch.tags)
        if rows is not device.rows.get(stored.stream) or t_ms < rows.told_ms:
            yield from self._past(name, rows, batch)
            return
        rows.silent = silent(batch)
        if rows.silent and device.silent:
            yield from self._bury(name)
        elif samples := rows.change(batch):
            yield self._message("DDATA", name, samples)

    def history(self, stored: Stored, batch: Batch) -> list[Message] | None:
        """What was missed, marked as such; None when no metric of the birth can be meant.

        A device that is not reached now is born for as long as that takes.
        """
        name = device_of(stored.stream)
        device = self.devices.get(name)
        found = [] if device is not None and device.born else list(self._arrive(name))
        device = self.devices.get(name)
        if device is None or not device.born:
            return None
        rows = self._fitted(device, stored.stream, batch.tags)
        fits = any(slot is not None for slot in rows.slots)
        if fits:
            found += self._past(name, rows, batch)
        if device.silent:
            found += self._bury(name)
        return found if fits or found else None

    def alarm(self, event: AlarmEvent) -> Iterator[Message]:
        """One change of one alarm: one metric with everything that belongs to it."""
        if self._alarms.knows(event.alarm):
            sample, past = self._alarms.change(event)
            yield self._message("NDATA", "", [sample], historical=past)
        elif event.alarm in self.plant.alarms():  # else it is of an earlier configuration
            yield from self.birth()

    def facts(self, facts: Mapping[str, Any]) -> Iterator[Message]:
        """What has changed of how the agent is."""
        now_ms, samples = self._now_ms(), list[Sample]()
        for name, (slot, told) in self._facts.items():
            value = facts.get(name, told)
            if value != told and type(value) is type(told):
                self._facts[name] = slot, value
                samples.append((slot, now_ms, value, b""))
        if samples:
            yield self._message("NDATA", "", samples)

    def losses(self, topic: str, facts: Mapping[str, Any]) -> Iterator[Message]:
        """A gap, or what has changed of the balance; births when that has a stream more."""
        now_ms = self._now_ms()
        if topic == "_gap":
            samples: list[Sample] | None = self._losses.gap(now_ms, facts)
        else:
            samples = self._losses.balance(now_ms, facts["streams"])
        if samples is None:
            yield from self.birth()
        elif samples:
            yield self._message("NDATA", "", samples)

    def tag(self, device: str, metric: Metric) -> tuple[str, Slot] | None:
        """The tag that a command means, and its metric; None when no birth has it."""
        known = self.devices.get(device)
        for name, slot in known.slots.items() if known is not None else ():
            if (metric.alias == slot.alias) if metric.alias is not None else metric.name == name:
                return (known.tags[name], slot) if known is not None else None
        return None

    def _past(self, name: str, rows: Rows, batch: Batch) -> Iterator[Message]:
        piece: list[Sample] = []
        for samples in rows.past(batch):
            piece += samples
            if len(piece) >= PIECE:
                yield self._message("DDATA", name, piece, historical=True)
                piece = []
        if piece:
            yield self._message("DDATA", name, piece, historical=True)

    def _fitted(self, device: Device, stream: str, tags: TagSet) -> Rows:
        """Rows with these tags: of others than the birth has, those with the same name and type."""
        rows = device.rows.get(stream)
        if rows is not None and rows.tags == tags:
            return rows
        slots = [device.slots.get(tag.short) for tag in tags]
        fit = [
            slot if slot is not None and slot.datatype == datatype(tag) else None
            for slot, tag in zip(slots, tags, strict=True)
        ]
        return Rows(tags, fit, self._texts)

    def _standing(self) -> dict[str, dict[str, tuple[TagSet, Batch | None]]]:
        """Device -> its streams, as they are now."""
        found: dict[str, dict[str, tuple[TagSet, Batch | None]]] = {}
        for stream, now in self.plant.streams().items():
            found.setdefault(device_of(stream), {})[stream] = now
        return found

    def _arrive(self, name: str) -> Iterator[Message]:
        if some := self._standing().get(name):
            yield self._device_birth(name, some)

    def _device_birth(self, name: str, some: Mapping[str, tuple[TagSet, Batch | None]]) -> Message:
        """DBIRTH with every metric of the device."""
        now_ms, device = self._now_ms(), Device(born=True)
        self.devices[name] = device
        samples: list[Sample] = []
        for stream, (tags, latest) in some.items():
            for tag in tags:
                device.tags[tag.short] = tag.name
                device.slots[tag.short] = Slot(
                    tag.short, self._alias(name, tag.short), datatype(tag), about(tag)
                )
            rows = Rows(tags, [device.slots[t.short] for t in tags], self._texts)
            device.rows[stream] = rows
            more = {} if latest is None else provenance(latest, -1, None)
            samples += [
                (slot, t_ms, value, properties({**slot.properties, "Quality": word, **more}))
                for slot, t_ms, value, word in rows.birth(latest, now_ms)
            ]
        return self._message("DBIRTH", name, samples, birth=True)

    def _bury(self, name: str) -> Iterator[Message]:
        device = self.devices.get(name)
        if device is not None and device.born:
            device.born = False
            log.info("sparkplug.device_death", device=name)
            yield self._message("DDEATH", name, [])

    def _alias(self, device: str, name: str) -> int:
        """One number for each metric of the node and its devices, for as long as the agent runs."""
        return self._aliases.setdefault(f"{device}/{name}", len(self._aliases) + 1)

    def _node_alias(self, name: str) -> int:
        return self._alias("", name)

    def _message(
        self,
        kind: str,
        device: str,
        samples: list[Sample],
        *,
        birth: bool = False,
        historical: bool = False,
    ) -> Message:
        self._seq = (self._seq + 1) % 256
        payload = encode(self._now_ms(), self._seq, samples, birth=birth, historical=historical)
        return self.topic(kind, device), payload

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000
