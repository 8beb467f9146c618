"""Alarms in the hands of people: acknowledged, shelved, labelled; groups, floods, restarts."""

from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config.journal import JournalConfig
from agent.core.alarm import AlarmEvent, AlarmSpec
from agent.core.alarm_life import Standing, standing_from
from agent.core.errors import PermanentError
from agent.core.ports import Lane
from agent.core.stats import Stats
from agent.runtime.alarmdesk import AlarmDesk
from agent.runtime.alarmlist import AlarmList, told
from agent.runtime.flood import Flood, FloodLimit
from agent.storage.db import open_store
from tests.tools import ManualClock, until

S = 1_000_000_000
SPECS = [
    AlarmSpec("hot", "p/temp", "high", 80.0, advice="Look at the oil."),
    AlarmSpec("dry", "p/flow", "low", 5.0, group="trip"),
    AlarmSpec("slow", "p/speed", "low", 5.0, group="trip"),
    AlarmSpec("note", "p/note", "high", 1.0, priority=4),
    AlarmSpec("fire", "p/fire", "high", 1.0, priority=1),
]


class Bench:
    """An alarm list on a real store, what it sent, and what people can do."""

    def __init__(self, store, clock):
        self.clock, self.sent = clock, []
        self.alarms = AlarmList(store.journal, store.state, self.sent.append, clock, Stats())
        self.alarms.known = {s.name: s for s in SPECS}
        self.desk = AlarmDesk(self.alarms, clock, store.state)
        self.lists = 0
        self.alarms.changed = self._changed

    def _changed(self):
        self.lists += 1

    def take(self, name, active, value=1.0, t_s=1):
        spec = next((s for s in SPECS if s.name == name), SPECS[0])
        event = AlarmEvent(
            name, spec.tag, "p", t_s * S, active, spec.priority, value, spec.limit, 192
        )
        self.alarms.take([event])

    def events(self):
        """(alarm, active, acked, shelved, by) of everything sent."""
        assert all(s.lane is Lane.ALARM for s in self.sent)
        found = [s.record for s in self.sent]
        return [(e.alarm, e.active, e.acked, e.shelved, e.by) for e in found]

    def states(self):
        return {n: s.state for n, s in self.alarms.standing.items()}


@asynccontextmanager
async def bench(folder, clock=None):
    clock = clock or ManualClock()
    config = JournalConfig.model_validate({"commit": "1s"})
    async with open_store(folder, config, clock, Stats(), "m") as store:
        yield Bench(store, clock)
        await store.journal.flush()


async def test_seen_and_over_in_either_order(tmp_path):
    """An alarm is normal again when it is over and somebody has seen it."""
    async with bench(tmp_path) as b:
        b.take("hot", active=True)
        assert b.states() == {"hot": "unacked_active"}
        assert b.desk.acknowledge("hot", "anna") == ["hot"]
        assert b.states() == {"hot": "acked_active"}
        assert b.desk.acknowledge("hot", "bert") == [], "the first one has seen it"
        b.take("hot", active=False)
        assert b.states() == {}
        b.take("hot", active=True)
        b.take("hot", active=False)
        assert b.states() == {"hot": "unacked_cleared"}
        assert b.alarms.active == {}
        b.take("hot", active=True)
        assert b.states() == {"hot": "unacked_active"}, "a new occurrence has been seen by nobody"
        b.take("hot", active=False)
        assert b.desk.acknowledge("*", "anna") == ["hot"]
        assert b.states() == {}
        await until(lambda: len(b.sent) == 8)
        assert b.events() == [
            ("hot", True, False, False, "agent"),
            ("hot", True, True, False, "anna"),
            ("hot", False, True, False, "agent"),
            ("hot", True, False, False, "agent"),
            ("hot", False, False, False, "agent"),
            ("hot", True, False, False, "agent"),
            ("hot", False, False, False, "agent"),
            ("hot", False, True, False, "anna"),
        ]


async def test_a_shelf_ends_by_itself(tmp_path):
    """Out of sight for a time, watched as ever, back without anybody's help."""
    clock = ManualClock()
    async with bench(tmp_path, clock) as b:
        b.desk.shelve("hot", 60.0, "anna")
        b.take("hot", active=True)
        assert b.states() == {"hot": "shelved"}
        clock.advance(59)
        b.alarms.tick()
        assert b.states() == {"hot": "shelved"}
        clock.advance(1)
        b.alarms.tick()
        assert b.states() == {"hot": "unacked_active"}
        await until(lambda: len(b.sent) == 3)
        assert b.events() == [
            ("hot", False, True, True, "anna"),
            ("hot", True, False, True, "agent"),
            ("hot", True, False, False, "agent"),
        ]


async def test_a_shelf_can_be_ended_and_needs_an_end(tmp_path):
    """Nothing is shelved for ever; what is not there cannot be shelved."""
    async with bench(tmp_path) as b:
        b.desk.shelve("hot", 60.0, "anna")
        assert b.desk.unshelve("hot", "anna").state == "normal"
        assert b.states() == {}
        for seconds in (0, -1, 31 * 86400.0, float("nan")):
            with pytest.raises(PermanentError, match="E785"):
                b.desk.shelve("hot", seconds, "anna")
        with pytest.raises(PermanentError, match="did you mean `hot`"):
            b.desk.shelve("hott", 60.0, "anna")
        with pytest.raises(PermanentError, match="E786"):
            b.desk.acknowledge("hot", "anna")


async def test_a_step_of_the_clock_is_no_time(tmp_path):
    """A shelf lasts as long as somebody said; of what stands the time becomes the right one when
    an unsynced clock had given it, and only then.
    """
    clock = ManualClock(10 * S)
    async with bench(tmp_path, clock) as b:
        b.take("dry", active=True)
        clock.state = "unsynced"
        b.take("hot", active=True)
        b.desk.shelve("hot", 60.0, "anna")
        clock.advance(1)
        clock.now_ns += 5000 * S
        b.alarms.stepped(5000 * S, better=True)
        b.alarms.tick()
        assert b.states()["hot"] == "shelved"
        since = {n: a.since_ns // S for n, a in b.alarms.standing.items()}
        assert since == {"dry": 1, "hot": 5001}
        clock.state = "synced"
        b.alarms.stepped(100 * S, better=False)
        assert b.alarms.standing["hot"].since_ns == 5001 * S
        clock.now_ns += 100 * S
        clock.advance(59)
        b.alarms.tick()
        assert b.states()["hot"] == "unacked_active"


async def test_a_label_goes_upstream_and_means_seen(tmp_path):
    """Who says that an alarm was false has seen it; the next occurrence has no label."""
    async with bench(tmp_path) as b:
        b.take("hot", active=True)
        one = b.desk.label("hot", "dismissed", "anna")
        assert (one.state, one.label) == ("acked_active", "dismissed")
        await until(lambda: len(b.sent) == 2)
        assert b.sent[-1].record.label == "dismissed"
        b.take("hot", active=False)
        b.take("hot", active=True)
        assert b.alarms.standing["hot"].label == ""


async def test_the_first_of_a_group_is_marked(tmp_path):
    """First out: until all of the group are over and seen, no other is the first."""
    async with bench(tmp_path) as b:
        b.take("slow", active=True)
        b.take("dry", active=True)
        assert {n: s.first_out for n, s in b.alarms.standing.items()} == {
            "slow": True,
            "dry": False,
        }
        b.take("slow", active=False)
        b.take("slow", active=True)
        assert not b.alarms.standing["slow"].first_out
        for name in ("slow", "dry"):
            b.take(name, active=False)
        b.desk.acknowledge("*", "anna")
        b.take("dry", active=True)
        assert b.alarms.standing["dry"].first_out
        assert told(b.alarms.standing.values())[0]["first_out"] is True
        assert "first_out" not in told([replace(b.alarms.standing["dry"], group="")])[0]


async def test_nobody_has_to_see_what_is_for_the_journal_only(tmp_path):
    """Priority 4 comes and goes by itself."""
    async with bench(tmp_path) as b:
        b.take("note", active=True)
        assert b.states() == {"note": "acked_active"}
        b.take("note", active=False)
        assert b.states() == {}


async def test_everything_survives_a_restart(tmp_path):
    """Seen, shelved, labelled, first of its group: as if there had been no restart."""
    clock = ManualClock()
    async with bench(tmp_path, clock) as b:
        b.take("hot", active=True)
        b.desk.label("hot", "confirmed", "anna")
        b.take("slow", active=True)
        b.take("dry", active=True)
        b.take("dry", active=False)
        b.desk.shelve("fire", 600.0, "bert")
        before = dict(b.alarms.standing)
    async with bench(tmp_path, clock) as b:
        assert b.alarms.standing == before
        assert b.alarms.restored() == {"hot": True, "slow": True, "dry": False, "fire": False}
        clock.advance(600)
        b.alarms.tick()
        assert "fire" not in b.alarms.standing


async def test_what_an_older_agent_wrote_is_understood(tmp_path):
    """State of a version without acknowledgement: the alarm stands, nobody has seen it."""
    facts = {"alarm": "hot", "tag": "p/t", "since_ns": 5, "priority": 2, "value": 9.0,
             "limit": 8.0, "text": ""}  # fmt: skip
    assert standing_from(facts) == Standing("hot", "p/t", 5, 2, 9.0, 8.0)
    assert standing_from({"nothing": 1}) is None


async def test_a_flood_is_counted_and_ends_with_the_state_of_each(tmp_path):
    """Urgent ones are told one by one, the list stays complete, and in the end all is told."""
    clock = ManualClock()
    async with bench(tmp_path, clock) as b:
        b.alarms.flood.limit = FloodLimit(10, 10.0)
        for i in range(50):
            b.take(f"x{i}", active=True, t_s=i)
        for i in range(20):
            b.take(f"x{i}", active=False, t_s=60 + i)
        b.take("fire", active=True)
        await until(lambda: ("fire", True, False, False, "agent") in b.events())
        names = [e[0] for e in b.events()]
        assert names[:10] == [f"x{i}" for i in range(10)]
        assert names[10:] == ["agent.flood", "fire"]
        assert len(b.alarms.active) == 30 + 1 + 1
        lists = b.lists
        b.alarms.tick()
        assert b.lists == lists + 1, "the list follows each second"
        clock.advance(11)
        b.alarms.tick()
        await until(lambda: b.events()[-1][0] == "agent.flood")
        last = {}
        for event in b.events():
            last[event[0]] = event[1]
        assert last == {
            **{f"x{i}": i >= 20 for i in range(50) if i < 10 or i >= 20},
            "fire": True,
            "agent.flood": False,
        }
        flood = b.sent[-1].record
        assert (flood.value, flood.code) == (60.0, "A118")
        assert "60 changes" in flood.text
        b.take("x1", active=True, t_s=200)
        await until(lambda: b.events()[-1][:2] == ("x1", True))


async def test_a_flood_that_a_restart_ended_is_told_in_the_end(tmp_path):
    """What was withheld when the power went is told by the next run."""
    clock = ManualClock()
    async with bench(tmp_path, clock) as b:
        b.alarms.flood.limit = FloodLimit(5, 10.0)
        for i in range(9):
            b.take(f"x{i}", active=True)
        b.alarms.tick()
    async with bench(tmp_path, clock) as b:
        assert len(b.alarms.active) == 10
        b.alarms.tick()
        await until(lambda: len(b.sent) == 5)
        assert [e[:2] for e in b.events()] == [
            *((f"x{i}", True) for i in range(5, 9)), ("agent.flood", False),
        ]  # fmt: skip


@given(
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from([1, 2])), max_size=80),
    st.integers(1, 6),
    st.floats(0.5, 5),
)
def test_no_more_than_the_limit_passes_within_its_time(changes, most, within_s):
    """Whatever comes when: of what is not urgent, never more than ``most`` in ``within_s``."""
    flood, now, passed = Flood(FloodLimit(most, within_s)), 0.0, []
    for dt, priority in changes:
        now += dt
        if flood.over(now):
            assert flood.end() > 0 or priority
        if flood.passes(priority, now) and priority != 1:
            passed.append(now)
    for at in passed:
        assert sum(at - within_s < other <= at for other in passed) <= most


actions = st.lists(
    st.tuples(
        st.sampled_from(["raise", "clear", "ack", "shelve", "unshelve", "wait", "restart"]),
        st.sampled_from(["hot", "dry", "slow", "fire"]),
    ),
    max_size=30,
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(actions)
async def test_any_sequence_is_the_one_of_the_definition(tmp_path_factory, sequence):
    """ISA-18.2's states: what each action makes of them, restarts at any point included."""
    folder, clock = tmp_path_factory.mktemp("life"), ManualClock()
    active, acked, shelved = {}, {}, {}
    stack = bench(folder, clock)
    b = await stack.__aenter__()
    try:
        for action, name in sequence:
            match action:
                case "raise" if not active.get(name):
                    b.take(name, active=True)
                    active[name], acked[name] = True, False
                case "clear" if active.get(name):
                    b.take(name, active=False)
                    active[name] = False
                case "ack" if name in b.alarms.standing:
                    b.desk.acknowledge(name, "anna")
                    acked[name] = True
                case "shelve":
                    b.desk.shelve(name, 10.0, "anna")
                    shelved[name] = clock.wall_ns() + 10 * S
                case "unshelve" if name in b.alarms.standing:
                    b.desk.unshelve(name, "anna")
                    shelved.pop(name, None)
                case "wait":
                    clock.advance(4)
                    b.alarms.tick()
                    shelved = {n: t for n, t in shelved.items() if t > clock.wall_ns()}
                case "restart":
                    await stack.__aexit__(None, None, None)
                    stack = bench(folder, clock)
                    b = await stack.__aenter__()
            expected = {
                n: (active.get(n, False), acked.get(n, True), n in shelved)
                for n in ("hot", "dry", "slow", "fire")
                if active.get(n) or not acked.get(n, True) or n in shelved
            }
            found = {n: (s.active, s.acked, s.shelved) for n, s in b.alarms.standing.items()}
            assert found == expected
            assert np.all([s.normal is False for s in b.alarms.standing.values()])
    finally:
        await stack.__aexit__(None, None, None)
