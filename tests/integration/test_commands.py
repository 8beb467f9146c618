"""The command channel over a real broker, on MQTT 5 and on 3.1.1."""

import asyncio
import json
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from agent.config.base import Context
from agent.config.schema import CommandsSection, JournalConfig
from agent.core.errors import PermanentError
from agent.core.requests import Declined, Request, Verb
from agent.core.stats import Stats
from agent.links.mqtt_dial import Dial
from agent.runtime.command_ids import CommandIds
from agent.runtime.commands import REFUSALS_BURST, RUNNING, WAITING, Commands
from agent.sinks.mqtt_json import MqttJsonConfig
from agent.storage.db import open_store
from simulators.asker import Asker
from simulators.broker import Broker, Collector
from tests.contracts import problems
from tests.tools import ManualClock, until

pytestmark = pytest.mark.needs("mosquitto")

ROOT = "north/g1"
BOTH = pytest.mark.parametrize("v5", [True, False], ids=["v5", "v311"])


class Now(ManualClock):
    """The real wall clock, whose state a test sets."""

    def wall_ns(self):
        return int(datetime.now(UTC).timestamp() * 1e9)


class Channel:
    """An agent as far as commands go: a store, the channel, verbs that note what they did."""

    def __init__(self, store, ctx, **rules):
        self.store, self.ctx, self.done = store, ctx, []
        self.rules = section(**rules)
        self.durable, self.gate = True, asyncio.Event()
        self.gate.set()
        verbs = {
            "read": Verb(self._read, remote=True),
            "write": Verb(self._write, admin=True, remote=True),
            "reload": Verb(self._break, admin=True, remote=True),
            "models.pull": Verb(self._fail, admin=True, remote=True),
            "status": Verb(self._read),
        }
        self.commands = Commands(
            lambda: self.rules, verbs, store.state, store.audit, ctx.clock, ctx.stats,
            lambda: self.durable,
        )  # fmt: skip

    async def _read(self, args, caller):
        await self.gate.wait()
        self.done.append(("read", dict(args), caller.actor))
        return {"value": 1.5}

    async def _write(self, args, caller):
        self.done.append(("write", dict(args), caller.actor))
        return {"result": "written"}

    async def _break(self, args, caller):
        return args["missing"]

    async def _fail(self, args, caller):
        raise PermanentError("there is no model `x`", fix="Name one.", code="E640")

    async def trail(self):
        return [r["facts"] | {"actor": r["actor"]} for r in await self.store.audit.rows()]


def section(**rules):
    usual = {"sinks": ["plant"], "verbs": ["read", "write", "reload", "models.pull"]}
    return CommandsSection.model_validate(usual | rules)


@asynccontextmanager
async def opened(folder):
    limits = JournalConfig.model_validate({"commit": "1s"})
    async with open_store(folder, limits, Now(), Stats(), "") as store:
        yield store


@asynccontextmanager
async def channel(broker, folder, *, v5=True, **rules):
    ctx = Context(Now(), Stats(), "g1", ROOT, folder)
    raw = {"type": "mqtt_json", "connect": broker.url}
    async with opened(folder) as store:
        one = Channel(store, ctx, **rules)
        sink = MqttJsonConfig.model_validate(raw).build("plant", ctx)
        sink._dial, sink.offer = Dial(ctx.clock, v5=v5), one.commands.offer
        running = asyncio.create_task(one.commands.run())
        try:
            async with sink:
                yield one
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def said(asker, name):
    return await asyncio.to_thread(asker.answer, name)


def request(name="i", for_s=60.0, **more):
    expires = (datetime.now(UTC) + timedelta(seconds=for_s)).isoformat()
    return json.dumps({"id": name, "expires": expires, "args": {}} | more).encode()


@BOTH
async def test_a_request_is_done_and_answered_where_it_was_asked(tmp_path, v5):
    """The answer goes to the response topic with its correlation data, or to the promised one."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=v5) as asker:
        async with channel(broker, tmp_path, v5=v5) as c:
            asker.ask("read", "r-1", {"tag": "a/b"})
            answer = await said(asker, "r-1")
            topic, _, correlation = asker.answers[0]
            assert topic == (asker.here if v5 else f"{ROOT}/_cmd/read/reply/r-1")
            assert correlation == (b'{"id": "r-1", "e' if v5 else None)
            assert answer.pop("ts").endswith("Z")
            assert answer == {"v": 1, "id": "r-1", "verb": "read", "ok": True, "result": "done",
                              "data": {"value": 1.5}}  # fmt: skip
            asker.ask("write", "w-1", {"tag": "a/b", "value": 3}, here="")
            assert (await said(asker, "w-1"))["result"] == "written"
            assert asker.answers[-1][0] == f"{ROOT}/_cmd/write/reply/w-1"
            assert c.done == [("read", {"tag": "a/b"}, "mqtt:plant"),
                              ("write", {"tag": "a/b", "value": 3}, "mqtt:plant")]  # fmt: skip
            trail = await c.trail()
            assert [(r["verb"], r["id"], r["result"]) for r in trail] == [
                ("read", "r-1", "accepted"), ("write", "w-1", "accepted"),
            ]  # fmt: skip


@BOTH
async def test_what_is_refused_has_its_word_and_is_in_the_trail(tmp_path, v5):
    """Expired, too far ahead, repeated, not allowed, malformed, too large: nothing is done."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=v5) as asker:
        async with channel(broker, tmp_path, v5=v5, verbs=["read"], max_size="1kB") as c:
            asker.ask("read", "once")
            assert (await said(asker, "once"))["ok"]
            asker.answers.clear()
            asker.ask("read", "once")
            asker.ask("read", "late", for_s=-2)
            asker.ask("read", "soon", for_s=7200)
            asker.ask("write", "w")
            asker.ask("status", "s")
            asker.send("read", request("naive", expires="2099-01-01T00:00:00"))
            asker.send("read", request("extra", more=1))
            asker.send("read", request("a" * 65))
            asker.send("read", request("large", args={"x": "y" * 1100}))
            asker.send("read", b"\xff\x00 no JSON")
            want = {"once": "repeated", "late": "expired", "soon": "malformed", "w": "not_allowed",
                    "s": "not_allowed", "naive": "malformed", "extra": "malformed"}  # fmt: skip
            for name, word in want.items():
                answer = await said(asker, name)
                assert (answer["ok"], answer["result"]) == (False, word)
                assert answer["error"]["code"].startswith("E79")
                assert answer["error"]["what"]
            await until(lambda: c.ctx.stats.values["commands.refused"] == 10)
            assert len(c.done) == 1
            words = [r["result"] for r in await c.trail()]
            assert words == ["accepted", *want.values(), "malformed", "too_large", "malformed"]


@BOTH
async def test_a_retained_request_is_refused(tmp_path, v5):
    """It would be done again at each connection; on MQTT 5 it is refused when it is sent, too."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=v5) as asker:
        asker.ask("write", "kept", retain=True)
        for _ in range(2):
            async with channel(broker, tmp_path, v5=v5) as c:
                assert (await said(asker, "kept"))["result"] == "retained"
                asker.answers.clear()
                assert c.done == []
        if v5:
            async with channel(broker, tmp_path) as c:
                asker.ask("write", "live", retain=True)
                assert (await said(asker, "live"))["result"] == "retained"
                assert c.done == []


@BOTH
async def test_an_id_is_good_for_one_request_whatever_restarts(tmp_path, v5):
    """What was taken is on disk before it is done."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=v5) as asker:
        for word in ("written", "repeated", "repeated"):
            async with channel(broker, tmp_path, v5=v5) as c:
                asker.ask("write", "once")
                assert (await said(asker, "once"))["result"] == word
                asker.answers.clear()
                assert len(c.done) == (word == "written")


async def test_a_doubtful_clock_refuses(tmp_path):
    """Without a clock nobody knows what has expired: refused, or as the configuration says."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=True) as asker:
        async with channel(broker, tmp_path) as c:
            for state in ("unsynced", "stepped"):
                c.ctx.clock.state = state
                asker.ask("read", state)
                answer = await said(asker, state)
                assert (answer["result"], answer["error"]["code"]) == ("no_clock", "E795")
            c.rules = section(without_clock="accept")
            asker.ask("read", "old", for_s=-1e6)
            assert (await said(asker, "old"))["ok"]
            c.ctx.clock.state = "holdover"
            asker.ask("read", "trusted")
            asker.ask("read", "late", for_s=-1)
            assert (await said(asker, "trusted"))["ok"]
            assert (await said(asker, "late"))["result"] == "expired"


async def test_the_rules_of_a_reload_hold_for_the_next_request(tmp_path):
    """A verb that was taken off the list, a broker that was, the whole section."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=True) as asker:
        async with channel(broker, tmp_path) as c:
            for n, rules in enumerate([section(verbs=["read"]), section(sinks=["other"]), None]):
                c.rules = rules
                asker.ask("write", f"w{n}")
                assert (await said(asker, f"w{n}"))["result"] == "not_allowed"
            assert c.done == []


async def test_a_verb_that_fails_is_an_answer(tmp_path):
    """An error of the agent with its code and cure; a defect too, and the channel goes on."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=True) as asker:
        async with channel(broker, tmp_path):
            asker.ask("models.pull", "p")
            answer = await said(asker, "p")
            assert (answer["result"], answer["error"]["code"]) == ("failed", "E640")
            asker.ask("reload", "b")
            assert (await said(asker, "b"))["error"]["code"] == "E779"
            asker.ask("read", "r")
            assert (await said(asker, "r"))["ok"]


async def test_without_a_disk_nothing_is_changed(tmp_path):
    """What could not be written down is not done; reading goes on."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=True) as asker:
        async with channel(broker, tmp_path) as c:
            c.durable = False
            asker.ask("write", "w")
            asker.ask("read", "r")
            assert (await said(asker, "w"))["result"] == "not_durable"
            assert (await said(asker, "r"))["ok"]


async def test_the_agent_publishes_no_answer_where_it_must_not(tmp_path):
    """A response topic of the agent's own, of somebody's requests, or of the broker is refused."""
    with (
        Broker() as broker,
        Collector(broker.url, "#") as seen,
        Asker(broker.url, ROOT, v5=True) as asker,
    ):
        async with channel(broker, tmp_path) as c:
            for n, topic in enumerate([f"{ROOT}/_status", f"{ROOT}/data/pump1",
                                       "north/g2/_cmd/write", "$SYS/x", "a" * 600]):  # fmt: skip
                asker.ask("write", f"x{n}", here=topic)
                assert (await said(asker, f"x{n}"))["result"] == "malformed"
            assert c.done == []
            asker.ask("read", "fine", here="north/g2/_cmd/read/reply/fine")
            await until(lambda: seen.json("north/g2/_cmd/read/reply/fine"))
        asked = {m.topic for m in seen.messages}
        assert asked.isdisjoint({f"{ROOT}/data/pump1", "north/g2/_cmd/write"})
        replies = [m for m in seen.messages if "/reply/" in m.topic]
        assert [p for m in replies for p in problems(m.topic, m.payload)] == []
        assert not any(m.retain for m in replies)


def hostile(rng):
    """Bytes that somebody might send: cut, mixed, deep, huge, strange."""
    good = request("f", for_s=-200_000, args={"tag": "a/b", "value": 1})
    pieces = [b"{", b"}", b"[", b'"', b":", b",", b"\\u0000", b"1e999", b"NaN", b"null", b"\xff",
              b'{"id":', b"[" * 500, b"9" * 400, b'"expires"', b"true", b"\\ud800"]  # fmt: skip
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(300))
    if kind == 1:
        at = rng.randrange(len(good))
        return good[:at] + rng.choice(pieces) + good[at + rng.randrange(30) :]
    if kind == 2:
        return b"".join(rng.choice(pieces) for _ in range(rng.randrange(12)))
    odd = [None, True, 0, -1, 10**30, 1.5, "", "x" * 300, [], {}, {"id": {}}, "2026-13-45T99:99Z",
           "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "a/b", "a#", "../x", "é",
           "\u0000"]  # fmt: skip
    keys = ["id", "expires", "args", "v", "other"]
    raw = {k: rng.choice(odd) for k in rng.sample(keys, rng.randrange(len(keys) + 1))}
    return json.dumps(raw if kind == 3 else rng.choice([*odd, [raw]])).encode()


async def test_hostile_requests_are_refused_and_the_channel_lives(tmp_path):
    """Whatever the bytes are: no verb runs, nothing breaks, a flood is a number in the trail."""
    rng = random.Random(11)
    ctx = Context(Now(), Stats(), "g1", ROOT, tmp_path)
    answers = []

    async def answer(name, facts):
        answers.append((name, facts))

    async with opened(tmp_path) as store:
        c = Channel(store, ctx)
        running = asyncio.create_task(c.commands.run())
        for _ in range(3000):
            verb = rng.choice(["write", "read", "", "x" * 70, "wr\u0000ite", "reload/x"])
            payload, kept = hostile(rng), rng.random() < 0.1
            c.commands.offer(Request("plant", verb, payload, kept, answer))
            if rng.random() < 0.1:
                await asyncio.sleep(0)
                await until(lambda: not c.commands._waiting)
        await until(lambda: not c.commands._waiting)
        assert c.done == []
        assert all(not facts["ok"] for _, facts in answers)
        assert len(answers) <= REFUSALS_BURST + 10
        c.commands.offer(Request("plant", "write", request("fine"), False, answer))
        await until(lambda: c.done)
        await until(lambda: any(f.get("result") == "written" for _, f in answers))
        await until(lambda: ctx.stats.values.get("commands.dropped", 0) > 1000)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        trail = await c.trail()
        assert sum(r.get("count", 0) for r in trail) == ctx.stats.values["commands.dropped"]
        assert len(trail) < 100
        assert await store.audit.verify() == ""


async def test_what_waits_and_runs_is_bounded(tmp_path):
    """Eight at work, thirty-two waiting: the next ones are refused or dropped, and counted."""
    ctx = Context(Now(), Stats(), "g1", ROOT, tmp_path)
    words = []

    async def answer(name, facts):
        words.append(facts["result"])

    async with opened(tmp_path) as store:
        c = Channel(store, ctx)
        c.gate.clear()
        for n in range(WAITING + 20):
            c.commands.offer(Request("plant", "read", request(f"n{n}"), False, answer))
        running = asyncio.create_task(c.commands.run())
        await until(lambda: words.count("busy") == WAITING - RUNNING)
        c.gate.set()
        await until(lambda: words.count("done") == RUNNING)
        await until(lambda: ctx.stats.values.get("commands.dropped") == 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_ids_are_kept_until_they_have_expired(tmp_path):
    """At least the last ones are known; one that may still be replayed is never forgotten."""
    async with opened(tmp_path) as store:
        ids = CommandIds(store.state)
        for n in range(5):
            assert await ids.take(f"n{n}", expires_ns=100 + n, now_ns=50, keep=5) == ""
        assert await ids.take("more", expires_ns=999, now_ns=99, keep=5) == "busy"
        assert await ids.take("more", expires_ns=999, now_ns=102, keep=5) == ""
        assert await ids.take("n0", expires_ns=100, now_ns=102, keep=5) == ""
        assert await ids.take("n4", expires_ns=100, now_ns=102, keep=5) == "repeated"
        assert await ids.take("none", expires_ns=200, now_ns=None, keep=5) == ""
        assert len(store.state.items("command")) == 5


async def test_a_broker_that_forbids_listening_still_gets_its_values(tmp_path):
    """The subscription is refused: said loudly, and the connection serves the data. MQTT 3.1.1
    does not say whether for ever, as a cluster says it that has no leader yet: so it is asked
    again, and what it then allows is heard.
    """
    sent = []

    async def serve(reader, writer):
        """CONNACK, SUBACK with failure, PUBACKs, and a SUBACK without (3.1.1)."""
        while head := await reader.read(2):
            body = await reader.readexactly(head[1])
            kind = head[0] >> 4
            at = 2 + (body[0] << 8 | body[1]) if kind == 3 else 0
            code = b"\x01" if 8 in sent else b"\x80"
            answer = {1: b"\x20\x02\0\0", 8: b"\x90\x03" + body[:2] + code,
                      3: b"\x40\x02" + body[at : at + 2]}.get(kind, b"")  # fmt: skip
            sent.append(kind)
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ctx = Context(Now(), Stats(), "g1", ROOT, tmp_path)
        raw = {"type": "mqtt_json", "connect": url}
        sink = MqttJsonConfig.model_validate(raw).build("plant", ctx)
        sink._dial, sink.offer = Dial(ctx.clock, v5=False), [].append
        async with sink:
            await sink.publish_alarms([])
            await until(lambda: sent.count(8) == 2 and not sink._link.inbox.refused)
        assert ctx.stats.values["sink/plant.commands_refused"] == 1
        await until(lambda: sent[-1] == 14)
        assert sent[:3] == [1, 8, 3]


def test_declined_carries_its_word():
    """An error that programs compare by one word."""
    e = Declined("rate", "too fast", code="E358", facts={"wait_s": 1})
    assert (e.result, e.facts, e.code) == ("rate", {"wait_s": 1}, "E358")
