"""The MQTT source and a real broker: flow control, shared load, sessions, TLS, losses."""

import asyncio
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest

from agent.config.base import Context
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.sources.mqtt import MqttConfig
from agent.storage.db import open_store
from simulators.broker import Broker
from tests.certificates import Authority
from tests.journals import limits
from tests.mqtt_feeding import publisher
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")

LIMITS = limits(commit_s=1.0)


class Taker:
    """A pipeline whose disk is as fast as the test wants: it says "on disk" when told to."""

    def __init__(self, *, held=False):
        self.held, self.owed, self.batches, self.within = held, [], [], []

    def __call__(self, batch, *, on_durable=None, within_s=0.1):
        self.batches.append(batch)
        self.within.append(within_s)
        if self.held:
            self.owed.append(on_durable)
        elif on_durable is not None:
            asyncio.get_running_loop().call_soon(on_durable)

    def release(self):
        self.held = False
        for done in self.owed:
            done()

    def values(self):
        return [b.v[0, 0] for b in self.batches if b.q[0, 0] == 192]


@asynccontextmanager
async def listening(folder, taker, url, name="m1", **section):
    """A source that runs, connected."""
    document = {"type": "mqtt", "connect": url, "topic": "t", "tags": {"n": {"path": "n"}}}
    config = MqttConfig.model_validate(document | section)
    async with open_store(folder / name, LIMITS, SystemClock(), Stats(), "m") as store:
        ctx = Context(SystemClock(), Stats(), "gw", "edge/gw", folder, state=store.state)
        source = config.build(name, ctx)
        task = asyncio.create_task(source.run(taker))
        try:
            await until(lambda: source.facts()["connected"] or task.done(), 10)
            yield source
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def send(p, numbers, qos=1):
    for n in numbers:
        p.publish("t", json.dumps({"n": n}), qos)


@pytest.mark.parametrize(("protocol", "qos"), [("auto", 1), ("3.1.1", 1), ("auto", 0)])
async def test_a_flood_waits_in_the_network(tmp_path, protocol, qos):
    """Beyond the window nothing is read until the disk has caught up: memory is bounded. At
    QoS 1 all of it comes then, in order.
    """
    taker, other = Taker(held=True), Taker()
    how = {"protocol": protocol, "qos": qos, "window": 50}
    with Broker(["max_queued_messages 0", "max_inflight_messages 0"]) as broker:
        async with (
            listening(tmp_path, taker, broker.url, **how),
            listening(tmp_path, other, broker.url, "m2", **how),
        ):
            with publisher(broker.url) as p:
                send(p, range(3000), qos)
                await until(lambda: len(other.batches) >= 3000, 20)
                assert 50 <= len(taker.batches) <= 52
                taker.release()
                if qos:
                    await until(lambda: len(taker.values()) >= 3000, 20)
                    assert taker.values() == list(range(3000))


@pytest.mark.parametrize(("qos", "patience"), [(1, 0.1), (0, float("inf"))])
async def test_how_soon_a_commit_must_come(tmp_path, qos, patience):
    """An owed PUBACK waits 100 ms, nobody waits at QoS 0; with half of the window it is at once."""
    taker = Taker(held=True)
    with Broker() as broker:
        async with listening(tmp_path, taker, broker.url, qos=qos, window=10):
            with publisher(broker.url) as p:
                send(p, range(6), qos)
                await until(lambda: len(taker.batches) == 6)
    assert taker.within == [patience] * 4 + [0.0] * 2


async def test_a_disk_that_refuses_does_not_stop_the_plant(tmp_path):
    """Nothing will be on disk: what waits is acknowledged without it, and values flow live."""
    taker = Taker(held=True)
    with Broker(["max_queued_messages 0"]) as broker:
        async with listening(tmp_path, taker, broker.url) as source:
            with publisher(broker.url) as p:
                send(p, range(500))
                await until(lambda: len(taker.batches) >= 20)
                source._ctx.stats.set("journal.durable", 0.0)
                await until(lambda: taker.values() == list(range(500)), 15)


async def test_gateways_share_a_load(tmp_path):
    """Every message goes to exactly one of the group."""
    a, b = Taker(), Taker()
    with Broker() as broker:
        async with (
            listening(tmp_path, a, broker.url, "a", share="g"),
            listening(tmp_path, b, broker.url, "b", share="g"),
        ):
            with publisher(broker.url) as p:
                send(p, range(200))
                await until(lambda: len(a.batches) + len(b.batches) >= 200)
            assert sorted(a.values() + b.values()) == list(range(200))
            assert a.batches
            assert b.batches


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
async def test_the_broker_keeps_what_comes_meanwhile(tmp_path, protocol):
    """The session outlives the source, and the filters of an older file do not."""
    taker = Taker()
    with Broker() as broker:
        async with listening(tmp_path, taker, broker.url, protocol=protocol):
            pass
        with publisher(broker.url) as p:
            send(p, range(30))
            p.publish("t", "{}", 1).wait_for_publish(5)
            async with listening(tmp_path, taker, broker.url, protocol=protocol):
                await until(lambda: taker.values() == list(range(30)))
            async with listening(
                tmp_path, taker, broker.url, protocol=protocol, topic="u"
            ) as source:
                p.publish("t", "{}", 1).wait_for_publish(5)
                p.publish("u", '{"n": 99}', 1)
                await until(lambda: taker.values()[-1] == 99)
                assert source._ctx.stats.values.get("source/m1.strangers", 0) == 0


async def test_what_lies_at_the_broker_comes_once_in_a_session(tmp_path):
    """A retained message is told when the subscription is new, not with every connection."""
    taker = Taker()
    with Broker() as broker, publisher(broker.url) as p:
        p.publish("t", '{"n": 1}', 1, retain=True).wait_for_publish(5)
        for n in (2, 3):
            async with listening(tmp_path, taker, broker.url):
                send(p, [n])
                await until(lambda n=n: n in taker.values())
    assert [(b.v[0, 0], int(b.q[0, 0])) for b in taker.batches] == [(1, 68), (2, 192), (3, 192)]


async def test_a_broker_that_goes_and_comes(tmp_path):
    """The connection is made again; the status knows; silence becomes a row all the same."""
    taker = Taker()
    with Broker() as broker:
        async with listening(tmp_path, taker, broker.url, stale_after="200ms") as source:
            with publisher(broker.url) as p:
                send(p, [1])
                await until(lambda: taker.values() == [1])
            broker.kill()
            await until(lambda: not source.facts()["connected"], 10)
            assert "broker 127.0.0.1" in source.facts()["last_error"]
            await until(lambda: taker.batches[-1].q[0, 0] == 24)
            broker.restart()
            await until(lambda: source.facts()["connected"], 20)
            with publisher(broker.url) as p:
                send(p, [2])
                await until(lambda: taker.values() == [1, 2])
    assert [int(b.q[0, 0]) for b in taker.batches] == [192, 68, 24, 192]
    assert np.isnan(taker.batches[2].v[0, 0])


async def test_tls_with_certificates_on_both_sides_and_a_password(tmp_path):
    """As with the sink: the broker knows the gateway, and the gateway the broker."""
    authority = Authority(tmp_path / "ca")
    crt, key = authority.issue("server")
    cert, own = authority.issue("gw")
    (tmp_path / "password").write_text("secret\n", encoding="utf-8")
    lines = [f"cafile {authority.ca}", f"certfile {crt}", f"keyfile {key}",
             "require_certificate true", "use_identity_as_username false"]  # fmt: skip
    section = {"ca": authority.ca, "cert": cert, "key": own, "user": "gw",
               "password": {"file": str(tmp_path / "password")}}  # fmt: skip
    taker = Taker()
    with Broker(lines) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}"
        async with listening(tmp_path, taker, url, **section) as source:
            assert source.facts()["connected"]
