"""What happens to a batch between its source and the journal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent.core.alarms import AlarmSpec, AlarmTable, bad_alarm, comm_alarm
from agent.core.batch import Batch, in_time, range_checked
from agent.core.decision import dated
from agent.core.derive import SUFFIX, Derived
from agent.core.history import History
from agent.core.ports import OWED_S, Clock, Journal, StateStore, Stored
from agent.core.stats import Stats
from agent.core.tag import TagSet
from agent.core.texts import Texts
from agent.runtime.alarmlist import AlarmList
from agent.runtime.derivation import Derivation
from agent.runtime.flood import FloodLimit
from agent.runtime.moved import UNDER_WAY_S, Moved


class Arrivals(Protocol):
    """Who cuts windows: told of every batch after it is in its ring."""

    def arrived(self, batch: Batch, history: History) -> None: ...
    def stepped(self) -> None: ...


class Outlet(Protocol):
    """Who sends records on: an uplink."""

    def offer(self, stored: Stored) -> None: ...
    def alarms_changed(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the configuration asks of the pipeline.

    Attributes:
        rings: Stream -> rows that the models reading it need.
        alarms: Every configured alarm.
        bad_after_ns: How long a tag may be Bad before its own alarm; None for never.
        made: Streams that the agent makes itself; their columns are known with the first batch.
        derived: Stream -> what is derived from it, each after those it needs.
        flood: How many changes of alarms are told one by one.
        undecided: Alarms that a model's version may bring -> the model.
    """

    rings: Mapping[str, int] = field(default_factory=dict)
    alarms: Sequence[AlarmSpec] = ()
    bad_after_ns: int | None = None
    made: frozenset[str] = frozenset({"agent"})
    derived: Mapping[str, Sequence[Derived]] = field(default_factory=dict)
    flood: FloodLimit = field(default_factory=FloodLimit)
    undecided: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Channel:
    """One stream as the pipeline knows it."""

    tags: TagSet
    alarms: AlarmTable
    history: History | None
    latest: Batch | None = None


class Pipeline:
    """Range check, ring, derived tags, alarms, journal, uplinks, models: in this order, for every
    batch. What is derived from a batch goes the same way with it.
    """

    def __init__(
        self,
        journal: Journal,
        state: StateStore,
        clock: Clock,
        stats: Stats,
        texts: Texts | None = None,
    ) -> None:
        self._journal, self._clock, self._stats = journal, clock, stats
        self._wiring = Wiring()
        self._family: dict[str, list[str]] = {}
        self._brought: dict[str, Sequence[AlarmSpec]] = {}
        self.alarms = AlarmList(journal, state, self._offer, clock, stats)
        self.alarms.changed = self._alarms_changed
        self.derivation = Derivation(state, texts or Texts(state))
        self.channels: dict[str, Channel] = {}
        self.outlets: dict[str, Outlet] = {}
        self.arrivals: Arrivals | None = None
        self._moved = Moved()
        self.override: Callable[[Batch], Batch] = lambda batch: batch

    def rewire(self, wiring: Wiring, streams: Mapping[str, TagSet]) -> None:
        """Take over a new configuration; streams it leaves alone keep rings and alarm states."""
        self._wiring = wiring
        self._family = _families(streams)
        models = set(wiring.undecided.values())
        self._brought = {m: specs for m, specs in self._brought.items() if m in models}
        self.alarms.known = {s.name: s for s in wiring.alarms}
        self.alarms.flood.limit = wiring.flood
        for stream in self.channels.keys() - streams.keys() - wiring.made:
            del self.channels[stream]
        for stream, tags in streams.items():
            self._open(stream, tags)
        for stream in self.channels.keys() & wiring.made:
            self._open(stream, self.channels[stream].tags)
        self.derivation.rewire(wiring.derived, streams)
        self.alarms.keep(self._asked_for)

    def close(self, stream: str) -> None:
        """No more rows of *stream* will come: it is not there any more."""
        self.channels.pop(stream, None)

    def bring(self, model: str, specs: Sequence[AlarmSpec]) -> None:
        """The version of *model* in service decides: its alarms in place of those before."""
        before = self._brought.get(model)
        if before == specs or model not in self._wiring.undecided.values():
            return
        self._brought[model] = specs
        for old in before or ():
            self.alarms.known.pop(old.name, None)
        self.alarms.known |= {s.name: s for s in specs}
        on = {s.tag.rpartition("/")[0] for s in (*(before or ()), *specs)}
        for stream in self.channels.keys() & on:
            self._open(stream, self.channels[stream].tags)
        self.alarms.keep(self._asked_for)

    def _configured(self) -> Iterator[AlarmSpec]:
        yield from self._wiring.alarms
        for specs in self._brought.values():
            yield from specs

    def _asked_for(self, name: str, tag: str) -> bool:
        """Can the alarm *name* still come and go: its tag may not have shown itself yet, and the
        version that brings it may not be in service yet.
        """
        if self._wiring.undecided.get(name, "") not in {"", *self._brought}:
            return True
        if any(s.name == name and s.tag == tag for s in self._configured()):
            return True
        own = self._wiring.bad_after_ns is not None and name in {bad_alarm(tag), comm_alarm(tag)}
        return own and tag.partition("/")[0] in self._family

    def emit(
        self,
        batch: Batch,
        *,
        on_durable: Callable[[], None] | None = None,
        within_s: float = OWED_S,
    ) -> None:
        """Take a batch from a source or a model (port `Emit`).

        Late rows are kept and sent, as history; nothing that was seen before is judged again.
        """
        step_s = self._clock.check_step()
        if step_s:
            self._stepped(step_s)
        if not len(batch):
            return
        batch = self.override(range_checked(batch))
        now = in_time(batch)
        derived = self.derivation.run(now) if len(now) else None
        taken = [(batch, self._into_ring(batch))]
        if derived is not None:
            derived = self.override(derived)
            taken.append((derived, self._into_ring(derived)))
        for one, channel in taken:
            self._judge(one, channel, on_durable if one is batch else None, within_s)
        for one, channel in taken:
            now = in_time(one)
            if self.arrivals is not None and channel.history is not None and len(now):
                self.arrivals.arrived(now, channel.history)

    def _judge(
        self, one: Batch, channel: Channel, on_durable: Callable[[], None] | None, within_s: float
    ) -> None:
        """Journal the batch, offer it to the sinks, and see which alarms it changes."""
        now = in_time(one)
        gate, peers_dead = self.derivation.gate, self._peers_dead(one.stream)
        events = channel.alarms.scan(now.t, now.v, now.q, gate, peers_dead=peers_dead)
        if events and now.window is not None:
            events = dated(events, now, channel.alarms.specs)
        self._offer(self._journal.put(one, on_durable=on_durable, within_s=within_s))
        if events:
            self.alarms.take([replace(e, t_by=one.t_by) for e in events])

    def _peers_dead(self, stream: str) -> bool:
        """Are the other streams of the device silent, as far as they are known."""
        peers = self._family.get(stream.partition("~")[0], ())
        return all(self.channels[p].alarms.dead is not False for p in peers if p != stream)

    def tick(self) -> None:
        """Once a second: alarms on silence need no row."""
        now_ns = self._clock.wall_ns()
        for channel in list(self.channels.values()):
            if events := channel.alarms.tick(now_ns):
                self.alarms.take(events)
        self.alarms.tick()

    def _into_ring(self, batch: Batch) -> Channel:
        """The channel of *batch*, its rows at the end of its ring."""
        channel = self.channels.get(batch.stream)
        if channel is None or channel.tags is not batch.tags:
            channel = self._open(batch.stream, batch.tags)
        self._stats.add("pipeline.rows", len(batch))
        now = in_time(batch)
        if len(now):
            channel.latest = now
        if channel.history is not None and not self._moved.made_before(now, self._clock):
            channel.history.append(now)
        return channel

    def _open(self, stream: str, tags: TagSet) -> Channel:
        """The channel of *stream*, made anew only where tags, alarms or ring differ."""
        old = self.channels.get(stream)
        specs = self._specs(stream, tags)
        self.alarms.known |= {s.name: s for s in specs}
        rows = self._wiring.rings.get(stream, 0)
        same_tags = old is not None and old.tags == tags
        if old is not None and same_tags and old.alarms.specs == specs:
            table = old.alarms
        else:
            table = AlarmTable(stream, tags, specs)
            table.restore(self.alarms.restored())
            if old is not None:
                table.inherit(old.alarms)
        ring = old.history if old is not None and same_tags else None
        if ring is None or ring.capacity < rows:
            grown = History(tags, rows) if rows else None
            if grown is not None and ring is not None and len(ring):
                t, v, q = ring.view(len(ring))
                grown.append(Batch(stream, tags, t, v, q))
            ring = grown
        channel = Channel(tags, table, ring, old.latest if old is not None and same_tags else None)
        self.channels[stream] = channel
        return channel

    def _specs(self, stream: str, tags: TagSet) -> tuple[AlarmSpec, ...]:
        """The alarms of a stream; a derived tag is Bad because another is, and that one says so."""
        configured = [s for s in self._configured() if s.tag in tags.column]
        if self._wiring.bad_after_ns is not None and not stream.endswith(SUFFIX):
            configured += [
                AlarmSpec(
                    bad_alarm(t.name),
                    t.name,
                    "bad_too_long",
                    on_delay_ns=self._wiring.bad_after_ns,
                    priority=3,
                    text=f"{t.name} gives no usable value",
                    code="A102",
                )
                for t in tags
                if not t.name.startswith(("agent/", "model/"))
            ]
            device = stream.partition("~")[0]
            if self._family.get(device, [""])[0] == stream:
                configured.append(
                    AlarmSpec(
                        comm_alarm(device),
                        device,
                        "communication",
                        on_delay_ns=self._wiring.bad_after_ns,
                        priority=2,
                        text=f"{device} does not answer",
                        code="A104",
                        advice="Check power, cable and address; `edge-agent status` says more.",
                    )
                )
        return tuple(configured)

    def _stepped(self, step_s: float) -> None:
        """The wall clock was moved: no window may span it, running delays go on."""
        self._stats.add("clock.steps")
        self._moved = Moved(round(step_s * 1e9), self._clock.mono_s() + UNDER_WAY_S)
        better = self._journal.stepped(step_s)
        self.alarms.stepped(round(step_s * 1e9), better=better)
        for channel in self.channels.values():
            channel.alarms.stepped(round(step_s * 1e9))
            if channel.history is not None:
                channel.history.clear()
        self.derivation.stepped(round(step_s * 1e9))
        if self.arrivals is not None:
            self.arrivals.stepped()

    def _offer(self, stored: Stored) -> None:
        for outlet in self.outlets.values():
            outlet.offer(stored)

    def _alarms_changed(self) -> None:
        for outlet in self.outlets.values():
            outlet.alarms_changed()


def _families(streams: Mapping[str, TagSet]) -> dict[str, list[str]]:
    """Device -> its streams, without what is derived from them; the first one leads."""
    found: dict[str, list[str]] = {}
    for stream in streams:
        if not stream.endswith(SUFFIX):
            found.setdefault(stream.partition("~")[0], []).append(stream)
    return found
