"""The edge node as values: what it says of rows, devices and alarms, and in which order."""

from dataclasses import replace

import numpy as np
import pytest

from agent.codecs.sparkplug import Metric
from agent.core.alarm_life import quiet
from agent.core.alarms import AlarmEvent, AlarmSpec
from agent.core.batch import Batch, Origin
from agent.core.ports import Lane, Stored
from agent.core.tag import Tag, TagSet
from agent.core.texts import Texts
from agent.sinks.sparkplug_device import device_of
from agent.sinks.sparkplug_node import PIECE, Node
from tests import sparkplug_proto as proto
from tests.tools import ManualClock

T0 = 1_700_000_000_000
PUMP = TagSet((
    Tag("pump/level", "m", 0, 9, deadband=0.5), Tag("pump/fill", form="integer"),
    Tag("pump/on", form="boolean"), Tag("pump/lot", kind="text"),
))  # fmt: skip
SLOW = TagSet((Tag("pump/energy", "kWh"),))


class Plant:
    """What stands, written by hand."""

    def __init__(self):
        self.rows, self.known, self.told = {}, {}, {"version": "1", "durable": True}
        self.books = {}

    def streams(self):
        return self.rows

    def alarms(self):
        return self.known

    def facts(self):
        return self.told

    def balance(self):
        return self.books


class Desk:
    """A node, and what it said, read by protobuf."""

    def __init__(self):
        self.plant, self.texts = Plant(), Texts()
        self.node = Node("g", "n", self.texts, ManualClock())
        self.node.plant = self.plant
        self.seq = 0

    def batch(self, *rows, stream="pump", tags=PUMP, t=T0, q=192, **more):
        v = np.array(rows or [[1.0, 2.0, 1.0, self.texts.code("pump/lot", "L7")]], float)
        q = np.full(v.shape, q, np.uint8) if isinstance(q, int) else np.array([q], np.uint8)
        at = (t + np.arange(len(v))) * 1_000_000
        return Batch(stream, tags, at, v, q, **more)

    def born(self, **streams):
        self.plant.rows = {n: (b.tags, b) for n, b in streams.items()}
        return self.read(self.node.birth())

    def live(self, batch):
        self.plant.rows = dict(self.plant.rows) | {batch.stream: (batch.tags, batch)}
        return self.read(self.node.live(self.stored(batch, Lane.LIVE), batch))

    def past(self, batch):
        found = self.node.history(self.stored(batch, Lane.HISTORY), batch)
        return None if found is None else self.read(found)

    def stored(self, batch, lane):
        self.seq += len(batch)
        return Stored(batch.stream, "0a1b2c3d", 1, self.seq, self.seq, lane, batch)

    def read(self, messages):
        found = []
        for topic, payload in messages:
            kind, _, *device = topic.split("/")[2:]
            found.append((kind, *device, proto.Payload.FromString(payload)))
        return found


def values(payload):
    return [proto.value(m) for m in payload.metrics]


def kinds(said):
    return [one[:-1] for one in said]


def test_a_birth_has_every_metric_in_its_own_type():
    """Double, Int64, Boolean and String with name, alias, unit, range and quality."""
    desk = Desk()
    said = desk.born(pump=desk.batch())
    assert kinds(said) == [("NBIRTH",), ("DBIRTH", "pump")]
    birth = said[1][-1]
    assert values(birth) == [1.0, 2, True, "L7"]
    assert [m.datatype for m in birth.metrics] == [10, 4, 11, 12]
    assert proto.properties(birth.metrics[0]) == {
        "engUnit": "m", "engLow": 0.0, "engHigh": 9.0, "Quality": 192}  # fmt: skip
    assert len({m.alias for one in said for m in one[-1].metrics} - {0}) == len(birth.metrics) + 3


def test_data_has_what_changed_beyond_its_deadband():
    """By alias, without datatype; nothing at all when nothing changed."""
    desk = Desk()
    aliases = [m.alias for m in desk.born(pump=desk.batch())[1][-1].metrics]
    lot = desk.texts.code("pump/lot", "L7")
    assert desk.live(desk.batch([1.4, 2.0, 1.0, lot], t=T0 + 1)) == []
    (said,) = desk.live(desk.batch([1.6, 3.0, 1.0, lot], t=T0 + 2))
    assert values(said[-1]) == [1.6, 3]
    assert [m.alias for m in said[-1].metrics] == aliases[:2]
    assert not any(m.name or m.HasField("datatype") or m.HasField("properties")
                   for m in said[-1].metrics)  # fmt: skip


@pytest.mark.parametrize(
    ("q", "value", "quality"),
    [(24, None, 0), (40, None, 0), (68, 1.0, 500), (84, 1.0, 0), (72, 1.0, 0)],
)
def test_doubt_is_never_sent_as_good(q, value, quality):
    """Bad is null; stale and uncertain keep their value; good again is said once."""
    desk = Desk()
    desk.born(pump=desk.batch())
    lot = desk.texts.code("pump/lot", "L7")
    (said,) = desk.live(desk.batch([1.0, 2.0, 1.0, lot], t=T0 + 1, q=[q, 192, 192, 192]))
    assert values(said[-1]) == [value]
    assert proto.properties(said[-1].metrics[0]) == {"Quality": quality}
    (said,) = desk.live(desk.batch([1.0, 2.0, 1.0, lot], t=T0 + 2))
    assert (values(said[-1]), proto.properties(said[-1].metrics[0])) == ([1.0], {"Quality": 192})


@pytest.mark.parametrize(("q", "told"), [(64, [[3.0]]), (68, [[3.0]]), (24, [])])
def test_what_moves_is_told_while_it_is_in_doubt_and_not_while_it_is_bad(q, told):
    """A value that nobody may use does not change."""
    desk = Desk()
    desk.born(pump=desk.batch())
    lot = desk.texts.code("pump/lot", "L7")
    word = [q, 192, 192, 192]
    desk.live(desk.batch([1.0, 2.0, 1.0, lot], t=T0 + 1, q=word))
    said = desk.live(desk.batch([3.0, 2.0, 1.0, lot], t=T0 + 2, q=word))
    assert [values(one[-1]) for one in said] == told


@pytest.mark.parametrize("whole", [0.5, 1e300, -(2.0**64)])
def test_what_is_no_whole_number_is_no_value_of_an_integer(whole):
    """An Int64 that can not be sent is null and bad, never another number."""
    desk = Desk()
    desk.born(pump=desk.batch())
    lot = desk.texts.code("pump/lot", "L7")
    (said,) = desk.live(desk.batch([1.0, whole, 1.0, lot], t=T0 + 1))
    assert values(said[-1]) == [None]
    assert proto.properties(said[-1].metrics[0]) == {"Quality": 0}


def test_one_counter_for_all_that_wraps_and_begins_with_each_birth():
    """seq of node and devices: 0 in the NBIRTH, +1 with every message, 0 after 255."""
    desk = Desk()
    desk.born(pump=desk.batch())
    lot = desk.texts.code("pump/lot", "L7")
    numbers = [desk.live(desk.batch([1.0, i, 1.0, lot], t=T0 + i))[0][-1].seq
               for i in range(3, 303)]  # fmt: skip
    assert numbers == [(i - 1) % 256 for i in range(3, 303)]
    assert [one[-1].seq for one in desk.born(pump=desk.batch())] == [0, 1]


def test_a_result_says_which_model_it_is_of():
    """Births and history name it with the window; data have the start of the window, and the
    model again when another version serves, with every metric.
    """
    tags = TagSet((Tag("model/pump/score"), Tag("model/pump/t2")))

    def result(version, at_ms, *scores, **more):
        origin = Origin("bearing", version, int(version), version * 64, "active")
        window = (T0 + at_ms - 500 + np.arange(len(scores) or 1)) * 1_000_000
        return desk.batch(
            *scores, stream="model/pump", tags=tags, t=T0 + at_ms, origin=origin, window=window
        )

    def said_of(said):
        return [proto.properties(m) for m in said[-1].metrics]

    desk = Desk()
    birth = desk.born(**{"model/pump": result("1", 0, [1.0, 5.0])})[1]
    named = {"modelName": "bearing", "modelVersion": "1", "modelRelease": 1,
             "modelDigest": "1" * 64, "modelRole": "active"}  # fmt: skip
    assert said_of(birth) == [{"Quality": 192, **named, "windowStart": T0 - 500}] * 2
    (data,) = desk.live(result("1", 1000, [2.0, 5.0]))
    assert said_of(data) == [{"windowStart": T0 + 500}]
    (other,) = desk.live(result("2", 2000, [2.0, 5.0]))
    named |= {"modelVersion": "2", "modelRelease": 2, "modelDigest": "2" * 64}
    assert said_of(other) == [{**named, "windowStart": T0 + 1500}] * 2
    (past,) = desk.past(result("2", 500, [3.0, 5.0], [4.0, 5.0]))
    assert said_of(past) == [*[{**named, "windowStart": T0}] * 2, {"windowStart": T0 + 1}]


def test_a_device_dies_with_all_its_streams_and_is_born_again():
    """One silent stream is bad values; the last one is the DDEATH; a row is the DBIRTH."""
    desk = Desk()
    slow = desk.batch([5.0], stream="pump~slow", tags=SLOW)
    desk.born(pump=desk.batch(), **{"pump~slow": slow})
    nothing = desk.batch([np.nan] * 4, t=T0 + 1, q=24)
    assert kinds(desk.live(nothing)) == [("DDATA", "pump")]
    gone = desk.batch([np.nan], stream="pump~slow", tags=SLOW, t=T0 + 1, q=8)
    assert kinds(desk.live(gone)) == [("DDEATH", "pump")]
    assert desk.live(replace(nothing, t=nothing.t + 10**9)) == []
    said = desk.live(desk.batch(t=T0 + 5000))
    assert kinds(said) == [("DBIRTH", "pump")]
    assert values(said[0][-1]) == [1.0, 2, True, "L7", None]


def test_history_is_marked_whole_first_and_in_pieces():
    """is_historical, each metric with its own time, at most so many metrics in a message."""
    desk = Desk()
    desk.born(pump=desk.batch())
    lot = desk.texts.code("pump/lot", "L7")
    rows = [[float(i), float(i), i % 2, lot] for i in range(PIECE)]
    said = desk.past(desk.batch(*rows, t=T0 - 9999))
    metrics = [m for one in said for m in one[-1].metrics]
    assert len(said) > 1
    assert all(m.is_historical for m in metrics)
    assert len(metrics) == 3 * PIECE + 1
    assert [m.timestamp for m in metrics[:7]] == [T0 - 9999] * 4 + [T0 - 9998] * 3
    assert desk.live(desk.batch(t=T0 + 1)) == []


def test_history_of_a_device_that_is_not_reached():
    """It is born for as long as that takes: no host takes data of a device that is dead."""
    desk = Desk()
    silent = desk.batch([np.nan] * 4, q=8)
    assert kinds(desk.born(pump=silent)) == [("NBIRTH",)]
    said = desk.past(desk.batch(t=T0 - 5))
    assert kinds(said) == [("DBIRTH", "pump"), ("DDATA", "pump"), ("DDEATH", "pump")]


def test_history_with_tags_that_are_no_more():
    """What the birth still has with the same type is told; nothing left of it is a refusal."""
    desk = Desk()
    desk.born(pump=desk.batch())
    older = TagSet((Tag("pump/level", "cm"), Tag("pump/fill"), Tag("pump/old")))
    (said,) = desk.past(desk.batch([7.0, 8.0, 9.0], tags=older, t=T0 - 5))
    assert values(said[-1]) == [7.0]
    assert desk.past(desk.batch([7.0], tags=TagSet((Tag("pump/old"),)), t=T0 - 5)) is None
    assert desk.past(desk.batch([7.0], stream="fan", tags=TagSet((Tag("fan/x"),)))) is None


def test_other_tags_are_another_birth():
    """A reload that changes a unit gives a new DBIRTH; one that takes a device away a DDEATH."""
    desk = Desk()
    desk.born(pump=desk.batch())
    assert desk.read(desk.node.announce("pump", PUMP)) == []
    changed = TagSet((replace(PUMP.tags[0], unit="cm"), *PUMP.tags[1:]))
    desk.plant.rows = {"pump": (changed, None)}
    (said,) = desk.read(desk.node.announce("pump", changed))
    assert said[:2] == ("DBIRTH", "pump")
    assert proto.properties(said[-1].metrics[0])["engUnit"] == "cm"
    desk.plant.rows = {}
    assert kinds(desk.read(desk.node.gone())) == [("DDEATH", "pump")]
    assert desk.read(desk.node.gone()) == []


def alarm(desk, t, **more):
    event = AlarmEvent("hot", "pump/level", "pump", t * 1_000_000, True, 1, 8.5, 8.0, 84)
    return desk.read(desk.node.alarm(replace(event, **more)))


def test_an_alarm_is_one_metric_with_all_that_belongs_to_it():
    """Its value is `active`; acked, shelved, priority, value and limit are properties."""
    desk = Desk()
    desk.plant.known = {"hot": quiet(AlarmSpec("hot", "pump/level", "high", 8.0, priority=1))}
    birth = desk.born(pump=desk.batch())[0][-1].metrics[-1]
    assert (birth.name, proto.value(birth), birth.timestamp) == ("Alarms/hot", False, T0)
    ((_, said),) = alarm(desk, T0 + 1)
    (metric,) = said.metrics
    assert (metric.alias, proto.value(metric), metric.timestamp) == (birth.alias, True, T0 + 1)
    assert not metric.is_historical
    assert proto.properties(metric) == {
        "acked": False, "shelved": False, "priority": 1, "value": 8.5, "valueQuality": 0,
        "limit": 8.0, "Quality": 192}  # fmt: skip
    ((_, said),) = alarm(desk, T0 + 1, acked=True, value=np.nan)
    assert proto.properties(said.metrics[0])["value"] is None
    assert not said.metrics[0].is_historical


def test_an_alarm_of_before_the_birth_is_history():
    """The birth has said how it stands: what led there must not move it again."""
    desk = Desk()
    desk.plant.known = {"hot": quiet(AlarmSpec("hot", "pump/level", "high", 8.0))}
    desk.born(pump=desk.batch())
    ((_, said),) = alarm(desk, T0 - 7)
    assert said.metrics[0].is_historical


def test_an_alarm_that_no_birth_has_is_told_by_a_new_one():
    """Late alarms come with a device that shows itself late."""
    desk = Desk()
    desk.born(pump=desk.batch())
    assert alarm(desk, T0 + 1) == []
    desk.plant.known = {"hot": quiet(AlarmSpec("hot", "pump/level", "high", 8.0))}
    assert kinds(alarm(desk, T0 + 1)) == [("NBIRTH",), ("DBIRTH", "pump")]


def test_a_fact_is_told_when_it_changes():
    """Status of the agent: metrics of the node, by exception; others than in the birth are not."""
    desk = Desk()
    desk.born()
    assert desk.read(desk.node.facts({"version": "1", "durable": True, "more": {}})) == []
    ((kind, said),) = desk.read(desk.node.facts({"version": "1", "durable": False}))
    assert (kind, values(said)) == ("NDATA", [False])


def test_a_command_finds_its_tag_by_name_or_alias():
    """And only where the birth has it."""
    desk = Desk()
    alias = desk.born(pump=desk.batch())[1][-1].metrics[0].alias
    assert desk.node.tag("pump", Metric("level"))[0] == "pump/level"
    assert desk.node.tag("pump", Metric(alias=alias))[0] == "pump/level"
    assert desk.node.tag("pump", Metric("speed")) is None
    assert desk.node.tag("fan", Metric("level")) is None


def test_the_death_has_the_number_of_its_session_and_no_seq():
    """One metric, bdSeq, the same as in the birth."""
    desk = Desk()
    desk.node.bdseq = 200
    birth = desk.born()[0][-1].metrics[0]
    ((_, said),) = desk.read([desk.node.death()])
    assert not said.HasField("seq")
    assert [(m.name, m.datatype, proto.value(m)) for m in (*said.metrics, birth)] == [
        ("bdSeq", 4, 200)] * 2  # fmt: skip


def test_results_of_a_candidate_are_no_metrics_of_what_serves():
    """A version in shadow has a device of its own, which is born and dies with it."""
    assert device_of("model/pump1") == "model.pump1"
    assert device_of("model/pump1~shadow") == "model.pump1.shadow"
    assert device_of("pump1~slow") == "pump1"
