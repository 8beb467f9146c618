"""The Sparkplug sink at a real broker: its number on disk, births on demand, what is too large."""

import asyncio

import numpy as np
import pytest

from agent.config.base import Context
from agent.core.batch import Batch
from agent.core.errors import PermanentError, TransientError
from agent.core.ports import Lane, Stored
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.clock import SystemClock
from agent.sinks.sparkplug import STATE, SparkplugConfig
from simulators.broker import Broker, Collector
from tests import sparkplug_proto as proto
from tests.sparkplug.scene import Host, rebirth
from tests.tools import until
from tests.unit.test_sparkplug_losses import GAP
from tests.unit.test_sparkplug_node import Plant

pytestmark = pytest.mark.needs("mosquitto")

TAGS = TagSet((Tag("pump/level", "m"),))


class Kept:
    """A state store that keeps what it is given."""

    def __init__(self, number=0):
        self.values = {(STATE, "plant/gw"): number}

    def get(self, ns, key):
        return self.values.get((ns, key))

    async def put(self, ns, key, value):
        self.values[ns, key] = value

    @property
    def number(self):
        return self.values[STATE, "plant/gw"]


def batch(level, t=1, tags=TAGS):
    k = len(tags)
    return Batch("pump", tags, np.array([t * 10**9]), np.full((1, k), level),
                 np.full((1, k), 192, np.uint8))  # fmt: skip


def sink(folder, url, state, tags=TAGS):
    ctx = Context(SystemClock(), Stats(), "gw", "edge/gw", folder, state=state)
    config = SparkplugConfig.model_validate({"type": "sparkplug", "connect": url, "group": "plant"})
    made = config.build("scada", ctx)
    plant = Plant()
    plant.rows = {"pump": (tags, batch(1.0, tags=tags))}
    made.see(plant)
    return made


def numbers(seen, kind):
    """bdSeq of the messages of a kind, in their order."""
    found = [proto.Payload.FromString(m.payload) for m in seen.messages if kind in m.topic]
    return [m.long_value for said in found for m in said.metrics if m.name == "bdSeq"]


async def test_the_number_of_the_session_is_kept_and_wraps(tmp_path):
    """255 is followed by 0, and what is on the disk is the number of the next session."""
    state = Kept(255)
    with Broker() as broker, Collector(broker.url, "spBv1.0/#") as seen:
        for left in (0, 1):
            async with sink(tmp_path, broker.url, state):
                assert state.number == left
        await until(lambda: len(numbers(seen, "NDEATH")) == 4)
        assert numbers(seen, "NBIRTH") == [255, 0]
        assert numbers(seen, "NDEATH") == [255, 255, 0, 0]


async def test_a_broker_that_is_not_there_uses_up_no_number(tmp_path):
    """Only a CONNECT does."""
    state = Kept(7)
    with Broker() as broker:
        url = broker.url
    with pytest.raises(TransientError):
        await sink(tmp_path, url, state).__aenter__()
    assert state.number == 7


async def test_many_who_ask_for_births_get_them_together(tmp_path):
    """A crowd of hosts that come at once is answered once a second."""
    with Broker() as broker, Collector(broker.url, "spBv1.0/#") as seen:
        async with sink(tmp_path, broker.url, Kept()), Host(broker.port) as host:
            for _ in range(20):
                host.say("spBv1.0/plant/NCMD/gw", rebirth())
            await until(lambda: len(numbers(seen, "NBIRTH")) == 2)
        assert numbers(seen, "NBIRTH") == [0, 0]


async def test_a_row_is_delivered_when_the_broker_has_read_it(tmp_path):
    """`send` returns behind the barrier, at once where there is nothing to tell."""
    with Broker() as broker, Collector(broker.url, "spBv1.0/#") as seen:
        async with sink(tmp_path, broker.url, Kept()) as made:
            for i, level in enumerate((2.0, 2.0, 3.0)):
                row = batch(level, t=2 + i)
                assert await made.send(Stored("pump", "0a", 1, i, i, Lane.LIVE, row)) is None
            await until(lambda: sum("DDATA" in m.topic for m in seen.messages) == 2)


async def test_a_connection_that_is_lost_is_no_delivery(tmp_path):
    """What nobody has confirmed is tried again."""
    with Broker() as broker:
        made = sink(tmp_path, broker.url, Kept())
        async with made:
            broker.kill()
            with pytest.raises(TransientError):
                await made.send(Stored("pump", "0a", 1, 1, 1, Lane.LIVE, batch(2.0, t=2)))
            with pytest.raises(TransientError):
                await made.publish_facts("_gap", GAP)


async def test_a_take_over_is_named(tmp_path):
    """Two gateways that are one edge node throw each other out: after the third time it is so
    called.
    """
    codes = []
    with Broker() as broker:
        mine = sink(tmp_path, broker.url, Kept())
        for _ in range(3):
            async with mine, sink(tmp_path, broker.url, Kept()), asyncio.timeout(5):
                with pytest.raises(TransientError) as lost:
                    await mine.lost()
                codes.append(lost.value.code)
    assert codes in ([*["E404"] * 2, "E408"], ["E408"] * 3)


async def test_a_gap_is_told_when_the_broker_has_read_it(tmp_path):
    """It leaves the journal for good then, and so not before."""
    with Broker() as broker, Collector(broker.url, "spBv1.0/+/NDATA/+") as seen:
        async with sink(tmp_path, broker.url, Kept()) as made:
            await made.publish_facts("_gap", GAP)
            await until(lambda: seen.messages)
    (metric,) = proto.Payload.FromString(seen.messages[0].payload).metrics
    assert proto.value(metric) == "size"


async def test_an_event_of_a_model_needs_no_words(tmp_path):
    """Sparkplug has no message for it: it is taken as told, and the sink goes on."""
    with Broker() as broker:
        async with sink(tmp_path, broker.url, Kept()) as made:
            await made.publish_facts("_model/pump/stale", {"id": "1"})


async def test_births_that_are_too_large_say_so(tmp_path):
    """The uplink is parked with a cure instead of being thrown out by the broker for ever."""
    many = TagSet(tuple(Tag(f"pump/tag{i:04}") for i in range(2000)))
    with Broker(["max_packet_size 20000"]) as broker:
        with pytest.raises(PermanentError) as found:
            await sink(tmp_path, broker.url, Kept(), many).__aenter__()
        assert found.value.code == "E433"
