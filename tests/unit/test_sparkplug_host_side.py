"""What comes from the other side of a Sparkplug node: commands, the primary host, the broker."""

import asyncio
import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import TransientError
from agent.links.mqtt_barrier import Barrier
from agent.links.mqtt_peer import Incoming
from agent.sinks.sparkplug_commands import MOST, SparkplugCommands
from agent.sinks.sparkplug_host import PrimaryHost
from tests import sparkplug_proto as proto
from tests.tools import until
from tests.unit.test_sparkplug_node import T0, Desk

DCMD, NCMD = "spBv1.0/g/DCMD/n/pump", "spBv1.0/g/NCMD/n"


class Office:
    """Commands on a node with one device; what they offered, and how often births were asked."""

    def __init__(self, *, allowed=True):
        self.requests, self.births = [], 0
        desk = Desk()
        desk.born(pump=desk.batch())
        offer = self.requests.append if allowed else None
        self.commands = SparkplugCommands("scada", desk.node, offer, self._birth, 30.0)

    def _birth(self):
        self.births += 1

    def hear(self, *metrics, where=DCMD, at_ms=T0, retained=False):
        said = proto.Payload(metrics=metrics)
        if at_ms is not None:
            said.timestamp = at_ms
        self.commands.heard(Incoming(where, said.SerializeToString(), retained))
        return self.requests


def test_a_write_is_a_request_with_an_id_and_an_end():
    """The verb `write` with tag and value; it expires `command_age` after its timestamp."""
    office = Office()
    (request,) = office.hear({"name": "level", "double_value": 2.5})
    body = json.loads(request.payload)
    assert (request.via, request.verb, request.flaw) == ("scada", "write", "")
    assert body["args"] == {"tag": "pump/level", "value": 2.5}
    assert datetime.fromisoformat(body["expires"]).timestamp() == T0 / 1000 + 30


def test_the_same_command_has_the_same_id():
    """So it is done once, however often it comes; another time or value is another command."""
    office = Office()
    one = {"name": "level", "double_value": 2.5}
    office.hear(one)
    office.hear(one)
    office.hear(one, at_ms=T0 + 1)
    office.hear(one | {"double_value": 2.6})
    ids = [json.loads(r.payload)["id"] for r in office.requests]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ({"name": "on", "boolean_value": True}, True),
        ({"name": "fill", "long_value": 2**64 - 5}, -5),
        ({"name": "fill", "int_value": 7}, 7),
        ({"name": "level", "float_value": 0.5}, 0.5),
    ],
)
def test_a_value_is_taken_in_the_type_of_its_metric(metric, value):
    """Integers travel without a sign, and some hosts write them into the smaller field."""
    (request,) = Office().hear(metric)
    assert json.loads(request.payload)["args"]["value"] == value
    assert not request.flaw


@pytest.mark.parametrize(
    "metric",
    [
        {"name": "on", "double_value": 1.0},
        {"name": "level", "boolean_value": True},
        {"name": "level", "string_value": "2"},
        {"name": "lot", "string_value": "L8"},
        {"name": "level", "is_null": True},
        {"name": "level"},
    ],
)
def test_a_value_of_another_type_is_refused(metric):
    """It goes to the trail with its flaw, and never to a device."""
    (request,) = Office().hear(metric)
    assert request.flaw


def test_a_command_without_its_time_is_refused():
    """Nobody could say whether it is an old one."""
    (request,) = Office().hear({"name": "level", "double_value": 2.5}, at_ms=None)
    assert "timestamp" in request.flaw


def test_without_permission_nothing_is_offered():
    """Off by default; the rebirth is not."""
    office = Office(allowed=False)
    assert office.hear({"name": "level", "double_value": 2.5}) == []
    office.hear({"name": "Node Control/Rebirth", "boolean_value": True}, where=NCMD)
    assert office.births == 1


def test_only_a_fresh_true_is_a_rebirth():
    """A retained request would be granted at each connection, for ever."""
    office = Office()
    true = {"name": "Node Control/Rebirth", "boolean_value": True}
    office.hear(true, where=NCMD, retained=True)
    office.hear(true | {"boolean_value": False}, where=NCMD)
    office.hear({"name": "Node Control/Reboot", "boolean_value": True}, where=NCMD)
    office.hear(true)
    assert (office.births, office.requests) == (0, [])


def test_of_a_command_with_many_metrics_some_are_looked_at():
    """A flood in one message is no way around the limits of the command channel."""
    office = Office()
    office.hear(*[{"name": "level", "double_value": float(i)} for i in range(10 * MOST)])
    assert len(office.requests) == MOST


@given(st.binary(max_size=200), st.sampled_from([DCMD, NCMD]))
def test_whatever_comes_is_no_defect(data, where):
    """Bytes that are no command are logged and forgotten."""
    Office().commands.heard(Incoming(where, data, retained=False))


def state(host, **said):
    host.heard(Incoming(host.topic, json.dumps(said).encode(), retained=True))
    return host.online.is_set(), host.offline.is_set()


def test_the_newest_word_of_the_host_counts():
    """Online and offline exclude each other; an older timestamp changes nothing."""
    host = PrimaryHost("scada")
    assert state(host, online=True, timestamp=100) == (True, False)
    assert state(host, online=False, timestamp=99) == (True, False)
    assert state(host, online=False, timestamp=100) == (False, True)
    host.fresh()
    assert state(host, online=True, timestamp=99) == (False, False)
    assert state(host, online=True, timestamp=101) == (True, False)


@pytest.mark.parametrize(
    "said", [b"ONLINE", b"[]", b"{}", b'{"online":1,"timestamp":5}', b'{"online":true}', b"\xff",
             b'{"online":true,"timestamp":"5"}', b'{"online":true,"timestamp":true}'],
)  # fmt: skip
def test_what_is_no_state_is_not_believed(said):
    """Also not the text of earlier versions of Sparkplug."""
    host = PrimaryHost("scada")
    host.heard(Incoming(host.topic, said, retained=True))
    host.heard(Incoming("spBv1.0/STATE/other", b'{"online":true,"timestamp":5}', retained=True))
    assert not host.online.is_set()


class Inbox:
    """Answers an UNSUBSCRIBE when it is told to."""

    def __init__(self):
        self.asked = 0
        self.answer = asyncio.Event()

    async def leave(self, filters):
        self.asked += 1
        await self.answer.wait()


async def test_those_who_wait_share_an_answer_to_a_question_of_after():
    """One under way says nothing of what was sent after it: the others share the next."""
    inbox = Inbox()
    barrier = Barrier(inbox, "x")
    first = asyncio.create_task(barrier.passed())
    await until(lambda: inbox.asked == 1)
    later = [asyncio.create_task(barrier.passed()) for _ in range(10)]
    inbox.answer.set()
    await asyncio.gather(first, *later)
    assert inbox.asked == 2


async def test_a_barrier_that_is_lost_is_lost_for_all():
    """Nobody who waits takes silence for an answer."""

    class Dead(Inbox):
        async def leave(self, filters):
            raise TransientError("connection lost")

    barrier = Barrier(Dead(), "x")
    found = await asyncio.gather(*(barrier.passed() for _ in range(3)), return_exceptions=True)
    assert [type(e) for e in found] == [TransientError] * 3
