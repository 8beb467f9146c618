"""The MQTT sink against a real broker."""

import asyncio
import gc
import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from agent.config.base import Context
from agent.config.journal import JournalConfig
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch, Origin
from agent.core.errors import AgentError, TransientError
from agent.core.ports import Lane, Rejected, Stored
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.clock import SystemClock
from agent.runtime.uplink import Uplink
from agent.sinks.mqtt_json import MqttJsonConfig
from agent.storage.db import open_store
from simulators.broker import Broker, Collector
from simulators.proxy import OldBroker, Proxy
from tests.contracts import problems
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")

TAGS = TagSet((Tag("pump1/flow", "L/min", 0, 50), Tag("pump1/pressure", "bar")))
T0 = 1_700_000_000_123_456_000


def sink(ctx, url, **more):
    raw = {"type": "mqtt_json", "connect": url} | more
    return MqttJsonConfig.model_validate(raw).build("plant", ctx)


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g1", "north/g1", tmp_path)


def stored(seq=1, rows=1, lane=Lane.LIVE, q=192, **more):
    batch = Batch(
        more.pop("stream", "pump1"),
        more.pop("tags", TAGS),
        np.arange(rows, dtype=np.int64) * 10**9 + T0,
        np.arange(2 * rows, dtype=float).reshape(rows, 2),
        np.full((rows, 2), q, np.uint8),
        **more,
    )
    return Stored(batch.stream, "0a1b2c3d", 7, seq, seq + rows - 1, lane, batch)


async def test_a_take_over_is_named(ctx):
    """Two gateways with one id throw each other out: after the third time it is called so, or at
    once where the broker says it (mosquitto 2.0.21 does, 2.0.11 does not).
    """
    codes = []
    with Broker() as broker:
        mine = sink(ctx, broker.url)
        for _ in range(3):
            async with mine, sink(ctx, broker.url), asyncio.timeout(5):
                with pytest.raises(TransientError) as lost:
                    await mine.lost()
                codes.append(lost.value.code)
    assert codes in ([*["E404"] * 2, "E408"], ["E408"] * 3)
    assert "g1-plant" in str(lost.value)


async def test_a_row_reads_as_the_contract_says(ctx):
    """Values by name, usual quality once, deviating ones apart, null where Bad."""
    with Broker() as broker, Collector(broker.url, "#") as seen:
        async with sink(ctx, broker.url) as s:
            one = stored()
            one.record.q[0, 1] = 24
            assert await s.send(one) is None
        await until(lambda: seen.json("north/g1/data/pump1"))
    (message,) = seen.json("north/g1/data/pump1")
    assert message == {
        "v": 1, "stream": "pump1", "lineage": "0a1b2c3d", "epoch": 7, "from": 1, "seq": 1,
        "ts": "2023-11-14T22:13:20.123456Z", "clock": "synced", "q": "bad_comm",
        "values": {"flow": 0.0, "pressure": None}, "bad": {"flow": "good"},
    }  # fmt: skip


async def test_every_kind_of_message_keeps_the_contract(ctx):
    """Births, status, results, history and alarms are as docs/topics.md promises."""
    with Broker() as broker, Collector(broker.url, "#") as seen:
        async with sink(ctx, broker.url) as s:
            await s.publish_status({"config": "abc", "version": "0.1.0", "clock": "synced",
                                    "durable": True, "lineage": "0a1b2c3d"})  # fmt: skip
            await s.publish_alarms([{"alarm": "hot", "tag": "pump1/flow", "since_ns": T0,
                                     "priority": 2, "value": 1.0, "limit": 0.5,
                                     "text": "", "acked": False, "shelved": False}])  # fmt: skip
            await s.announce("pump1", TAGS)
            await s.send(stored())
            await s.send(stored(rows=3, lane=Lane.HISTORY))
            origin = Origin("m", "1.0", 1, "d" * 64, "active")
            result = TagSet((Tag("model/p1/a"), Tag("model/p1/b")))
            await s.send(
                stored(stream="model/p1", tags=result, origin=origin, window=np.array([T0]))
            )
            event = AlarmEvent("hot", "pump1/flow", "pump1", T0, True, 2, 1.0, 0.5, 192)
            await s.send(Stored("pump1", "0a1b2c3d", 7, 3, 3, Lane.ALARM, event))
        await until(lambda: len(seen.messages) >= 8)
        topics = {m.topic.removeprefix("north/g1/") for m in seen.messages}
        assert topics == {"_status", "_alarms", "_birth/pump1", "data/pump1", "history/pump1",
                          "_model/p1", "_alarm/hot"}  # fmt: skip
        assert [v for m in seen.messages for v in problems(m.topic, m.payload)] == []
        assert seen.json("north/g1/_status")[-1]["online"] is False
        (history,) = [m for m in seen.messages if "history" in m.topic]
        assert history.content_type == "application/json+zlib"
        with Collector(broker.url, "#") as late:
            await until(lambda: len(late.messages) == 3)
            assert all(m.retain for m in late.messages)


async def test_a_311_broker_is_served_too(ctx):
    """A broker that refuses MQTT 5 is spoken to in 3.1.1, and remembered."""
    with Broker() as broker:
        async with OldBroker(broker.port) as old:
            s = sink(ctx, f"mqtt://127.0.0.1:{old.port}")
            for _ in range(2):
                async with s:
                    assert await s.send(stored(rows=2, lane=Lane.HISTORY)) is None
            assert old.versions == [5, 4, 4]


async def test_a_lost_broker_is_a_transient_error_and_then_works(ctx):
    """The loss is seen at once; a later connection delivers."""
    with Broker() as broker:
        s = sink(ctx, broker.url)
        with pytest.raises(TransientError, match="E404"):
            async with s:
                broker.kill()
                await s.lost()
        with pytest.raises(TransientError, match="E401"):
            async with s:
                pass
        broker.restart()
        async with s:
            assert await s.send(stored()) is None


async def test_the_will_speaks_when_the_agent_cannot(ctx):
    """A broken connection turns the retained status to offline."""
    with Broker() as broker, Collector(broker.url, "north/g1/_status") as seen:
        async with Proxy(broker.port) as proxy:
            with pytest.raises(TransientError):
                async with sink(ctx, f"mqtt://127.0.0.1:{proxy.port}") as s:
                    await s.publish_status({"version": "x"})
                    proxy.cut()
                    await s.lost()
        await until(lambda: [m["online"] for m in seen.json()] == [True, False], within_s=15)


async def test_no_ack_ends_the_connection(ctx):
    """A broker that takes messages and never acknowledges is left after `ack_timeout`."""
    with Broker() as broker:
        async with Proxy(broker.port) as proxy:
            with pytest.raises(TransientError):
                url = f"mqtt://127.0.0.1:{proxy.port}"
                async with sink(ctx, url, ack_timeout="1s") as s:
                    proxy.mode = "half_open"
                    await s.send(stored())


async def test_the_brokers_receive_maximum_is_kept(ctx):
    """Never more under way than the broker takes."""
    with Broker(["max_inflight_messages 5"]) as broker:
        async with sink(ctx, broker.url) as s:
            assert s.window == 5
            assert await asyncio.gather(*(s.send(stored(i)) for i in range(50))) == [None] * 50


async def test_what_the_broker_never_takes_is_rejected(ctx, tmp_path):
    """A refused topic and a packet too large go to the dead letters, the rest goes on."""
    acl = tmp_path / "acl"
    acl.write_text("topic write north/g1/data/#\n", encoding="utf-8")
    acl.chmod(0o644)
    with Broker([f"acl_file {acl}", "max_packet_size 2000"]) as broker:
        async with sink(ctx, broker.url) as s:
            refused = await s.send(stored(rows=2, lane=Lane.HISTORY))
            assert isinstance(refused, Rejected)
            assert "E411" in refused.reason
            too_large = await s.send(stored(stream="p" * 3000))
            assert isinstance(too_large, Rejected)
            assert "E410" in too_large.reason
            assert await s.send(stored()) is None


async def test_user_and_password_from_a_file(ctx, tmp_path):
    """The password comes from a file; a wrong one is told clearly."""
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    subprocess.run(
        ["mosquitto_passwd", "-c", "-b", str(passwords), "me", "right"], check=True, timeout=20
    )
    passwords.chmod(0o644)
    secret.write_text("right\n", encoding="utf-8")
    with Broker(["allow_anonymous false", f"password_file {passwords}"]) as broker:
        async with sink(ctx, broker.url, user="me", password={"file": str(secret)}) as s:
            assert await s.send(stored()) is None
        secret.write_text("wrong\n", encoding="utf-8")
        with pytest.raises(TransientError, match="E403"):
            async with sink(ctx, broker.url, user="me", password={"file": str(secret)}):
                pass


async def test_mutual_tls(ctx, tmp_path):
    """The broker proves who it is, and so do we; a broker of another authority is refused."""
    for name, subject in (("ca", "/CN=ca"), ("other", "/CN=other")):
        _openssl(tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                 "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", subject)  # fmt: skip
    (tmp_path / "san").write_text("subjectAltName=IP:127.0.0.1\n", encoding="utf-8")
    for name in ("server", "client"):
        _openssl(tmp_path, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key",
                 "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        _openssl(tmp_path, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey",
                 "ca.key", "-CAcreateserial", "-days", "2", "-out", f"{name}.crt",
                 "-extfile", "san")  # fmt: skip
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    tmp_path.chmod(0o755)
    lines = [f"cafile {tmp_path}/ca.crt", f"certfile {tmp_path}/server.crt",
             f"keyfile {tmp_path}/server.key", "require_certificate true"]  # fmt: skip
    mine = {
        k: str(tmp_path / f)
        for k, f in (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key"))
    }
    with Broker(lines) as broker:
        url = broker.url.replace("mqtt:", "mqtts:")
        async with sink(ctx, url, **mine) as s:
            assert await s.send(stored()) is None
        with pytest.raises(AgentError):
            async with sink(ctx, url, **(mine | {"ca": f"{tmp_path}/other.crt"})):
                pass
    gc.collect()  # a socket left open by the failed handshake would now fail this test


def _openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True, timeout=30)


async def test_a_silent_name_server_does_not_block_the_loop(ctx):
    """A name that cannot be looked up is a transient error; the loop goes on meanwhile."""
    attempt = asyncio.ensure_future(_enter(sink(ctx, "mqtt://no-such-broker.invalid:1883")))
    ticks = 0

    def tick():
        nonlocal ticks
        ticks += 1
        return attempt.done()

    await until(tick, within_s=20)
    with pytest.raises(TransientError, match="E401"):
        await attempt


async def _enter(s):
    async with s:
        pass


def test_numbers_survive_the_json():
    """What goes out as a number comes back as the same number."""
    from agent.codecs import json as codec  # noqa: PLC0415

    one = stored()
    one.record.v[:] = [[0.1 + 0.2, 1e-300]]
    values = json.loads(codec.row(one, one.record))["values"]
    assert list(values.values()) == [0.1 + 0.2, 1e-300]


async def test_what_a_dead_link_swallowed_is_sent_again(ctx, tmp_path):
    """The keep-alive hole: a link that is half open takes messages for as long as nobody notices.
    None of them was acknowledged, so each follows over the next connection, in order, as history.
    """
    config = JournalConfig.model_validate({"commit": "100ms"})
    clock, stats = SystemClock(), Stats()
    with Broker() as broker, Collector(broker.url, "#") as seen:
        async with (
            Proxy(broker.port) as link,
            open_store(tmp_path, config, clock, stats, "m") as store,
        ):
            far = sink(ctx, f"mqtt://127.0.0.1:{link.port}", ack_timeout="1s", keepalive="1s")
            uplink = Uplink("plant", lambda: far, store.journal, clock, stats, thin=None,
                            history_rate=10.0, facts=dict, alarms=list)  # fmt: skip

            def put(n):
                for _ in range(n):
                    batch = stored().record
                    uplink.offer(store.journal.put(replace(batch, t=batch.t + 10**9)))

            first = asyncio.create_task(uplink.run())
            await until(lambda: uplink.connected)
            put(5)
            await until(lambda: uplink.depth() == 0)
            link.mode = "half_open"
            put(20)
            with pytest.raises(TransientError):
                await first
            assert uplink.depth() == 20
            link.mode = "pass"
            second = asyncio.create_task(uplink.run())
            await until(lambda: uplink.depth() == 0)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
        await until(lambda: seen.json("north/g1/history/#"))
        live = [m["seq"] for m in seen.json("north/g1/data/#")]
        again = [(m["from"], m["seq"]) for m in seen.json("north/g1/history/#")]
    assert live == [1, 2, 3, 4, 5]
    assert [s for a, b in again for s in range(a, b + 1)] == list(range(6, 26))
