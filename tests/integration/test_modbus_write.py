"""Writing to Modbus devices: pymodbus' server, libmodbus' server, and devices that misbehave."""

import asyncio
import struct
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest

from agent.config.base import Context
from agent.config.schema import WriteRule, WritesSection
from agent.core.requests import Declined
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.runtime.writes import Writes
from simulators.libmodbus import LibmodbusServer
from simulators.modbus_server import ModbusServer, RegisterImage
from simulators.pty_line import PtyLine
from tests.polling import modbus, polling
from tests.tools import until

ANY = {"min": -1e9, "max": 1e9, "every": "0s"}
TAGS = {
    "word": {"reg": 0},
    "signed": {"reg": 1, "as": "int16", "scale": 0.1, "offset": -5},
    "long": {"reg": 2, "as": "uint32", "order": "CDAB"},
    "real": {"reg": 4, "as": "float32", "order": "BADC"},
    "wide": {"reg": 6, "as": "float64", "order": "DCBA"},
    "huge": {"reg": 10, "as": "int64"},
    "bit": {"reg": 20, "bit": 9},
    "coil": {"reg": 3, "table": "coil"},
    "inverted": {"reg": 4, "table": "coil", "scale": -1, "offset": 1},
}


class Trail:
    """An audit trail that remembers."""

    def __init__(self):
        self.rows = []

    async def write(self, kind, actor, facts):
        self.rows.append((kind, actor, dict(facts)))


class Me:
    """Somebody who asks."""

    actor = "uid:0"

    def __init__(self, *, late=False):
        self._late = late

    def expired(self):
        return self._late


class Plant:
    """One device `d`, polled and written to."""

    def __init__(self, source, rows, **rules):
        self.source, self.rows, self.trail = source, rows, Trail()
        self.section = WritesSection.model_validate({"read_only": False, "tags": rules})
        self.writes = Writes(
            lambda: self.section, {"d": source}.get, self.trail, SystemClock(), Stats()
        )

    async def write(self, tag, value, caller=None):
        return await self.writes.write({"tag": f"d/{tag}", "value": value}, caller or Me())

    async def declined(self, tag, value, caller=None):
        with pytest.raises(Declined) as e:
            await self.write(tag, value, caller)
        kind, actor, facts = self.trail.rows[-1]
        assert (kind, actor, facts["result"]) == ("write", "uid:0", e.value.result)
        return e.value


@asynccontextmanager
async def plant(url, tmp_path, tags=None, rule=None, **more):
    ctx = Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)
    tags = tags or TAGS
    if url.startswith("rtu"):  # a pseudo-terminal takes no parity
        more["serial"] = {
            "parity": "none",
            "stop": 1,
            "baud": 115200,
        }  # a pseudo-terminal takes no parity
    source = modbus(url, tags, **more).build("d", ctx)
    async with polling(source) as rows:
        await until(rows.of)
        yield Plant(source, rows, **{f"d/{t}": ANY | (rule or {}) for t in tags})


@asynccontextmanager
async def real_server(kind):
    if kind == "libmodbus":
        with LibmodbusServer() as server:
            yield server
    elif kind == "libmodbus-rtu":
        with PtyLine() as line, LibmodbusServer(line=line.theirs) as server:
            yield SimpleNamespace(url=f"rtu://{line.ours}", requests=server.requests)
    else:
        async with ModbusServer({1: RegisterImage(200)}) as server:
            yield server


SERVERS = ["pymodbus", *(
    pytest.param(k, marks=pytest.mark.needs("gcc")) for k in ("libmodbus", "libmodbus-rtu")
)]  # fmt: skip


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("rule", [{}, {"function": "many"}], ids=["single", "many"])
async def test_every_type_is_written_and_read_back(kind, rule, tmp_path):
    """Each type, order and table: the value is in the device, its neighbours are as before."""
    values = {
        "word": 65535, "signed": -5.3, "long": 3_000_000_000, "real": 31.25, "wide": 0.1,
        "huge": -(2**53) + 1, "bit": True, "coil": True, "inverted": 1,
    }  # fmt: skip
    limits = {"min": -1e17, "max": 1e17} | rule
    async with real_server(kind) as server, plant(server.url, tmp_path, rule=limits) as p:
        for tag, value in values.items():
            done = await p.write(tag, value)
            assert (done["result"], done["echo"]) == ("written", True), tag
            assert done["found"] == pytest.approx(float(value)), tag
        want = [float(v) for v in values.values()]
        await until(lambda: p.rows.last().v[0].tolist() == pytest.approx(want))
        (undone,) = [await p.write("bit", 0)]
        assert (undone["old"], undone["found"]) == (1.0, 0.0)
        assert [r[2]["result"] for r in p.trail.rows] == ["written"] * (len(values) + 1)
        if kind != "pymodbus":
            codes = {15, 16, 22} if rule else {5, 6, 16, 22}
            await until(lambda: {f for f, _ in server.requests} - {1, 3, 8} == codes)


@pytest.mark.parametrize("kind", SERVERS)
async def test_writes_under_a_fast_scan_never_give_a_wrong_sample(kind, tmp_path):
    """A scan sees the value before or after a write, whole, and nothing else."""
    tags = {"a": {"reg": 0, "as": "uint32"}, "b": {"reg": 2}, "c": {"reg": 3, "as": "uint32"}}
    async with (
        real_server(kind) as server,
        plant(server.url, tmp_path, tags, poll="1ms") as p,
    ):
        wanted = [k << 16 | (0xFFFF - k) for k in range(1, 80)]
        await p.write("b", 77)
        await p.write("c", 0x12345678)
        seen = len(p.rows)
        for value in wanted:
            assert (await p.write("a", value))["result"] == "written"
        rows = p.rows[seen + 1 :]
        assert len(rows) > 10
        a = [int(r.v[0, 0]) for r in rows]
        assert set(a) <= {0, 1, *wanted}
        assert a == sorted(a)
        assert {(float(r.v[0, 1]), float(r.v[0, 2])) for r in rows} == {(77.0, float(0x12345678))}
        assert all((r.q == 192).all() for r in rows)


@pytest.mark.needs("gcc")
async def test_the_devices_refusal_is_told_in_words(tmp_path):
    """A register that the device does not have: its code, the words, and nothing else happens."""
    tags = {"t": {"reg": 0}, "far": {"reg": 5000}}
    with LibmodbusServer() as server:
        async with plant(server.url, tmp_path, tags, rule={"confirm": "echo"}) as p:
            e = await p.declined("far", 1)
            assert (e.result, e.facts["exception_code"], e.code) == ("refused", 2, "E353")
            assert "illegal data address" in str(e)
        await until(lambda: (6, 5000) in server.requests)
        async with plant(server.url, tmp_path, tags) as p:
            assert (await p.declined("far", 1)).result == "not_sent"
        assert server.requests.count((6, 5000)) == 1


class Odd:
    """A device with one register that answers a write as told.

    Attributes:
        reply: Given the PDU of a write, its answer: bytes, or None for silence; it may change
            `value` or not, as the device under test would.
        silent: It answers nothing at all.
    """

    def __init__(self, reply):
        self.reply, self.value, self.silent, self.writes, self.hang_up = reply, 7, False, [], False

    @property
    def url(self):
        return f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc):
        self._server.close()

    async def _serve(self, reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(7)
                pdu = await reader.readexactly(struct.unpack(">H", head[4:6])[0] - 1)
                if self.silent:
                    continue
                if pdu[0] <= 4:
                    count = pdu[4]
                    answer = bytes([pdu[0], 2 * count]) + struct.pack(">H", self.value) * count
                else:
                    self.writes.append(pdu)
                    answer = self.reply(self, pdu)
                    if self.hang_up:
                        break
                if answer is not None:
                    writer.write(head[:4] + struct.pack(">H", len(answer) + 1) + head[6:7] + answer)
        writer.close()


def takes(device, pdu):
    device.value = struct.unpack(">H", pdu[3:5])[0]
    return pdu


def takes_silently(device, pdu):
    takes(device, pdu)


def ignores(device, pdu):
    return None


def lies(device, pdu):
    return pdu


def clamps(device, pdu):
    device.value = 10
    return pdu


def takes_and_hangs_up(device, pdu):
    takes(device, pdu)
    device.hang_up = True


def other_value(device, pdu):
    takes(device, pdu)
    return pdu[:4] + bytes([pdu[4] ^ 1])


def other_address(device, pdu):
    takes(device, pdu)
    return pdu[:2] + bytes([pdu[2] ^ 1]) + pdu[3:]


def too_short(device, pdu):
    return pdu[:-1]


def acknowledges(device, pdu):
    takes(device, pdu)
    return bytes([pdu[0] | 0x80, 5])


def busy(device, pdu):
    return bytes([pdu[0] | 0x80, 6])


@pytest.mark.parametrize(
    ("reply", "result", "found"),
    [
        (takes, "written", 42), (takes_silently, "written", 42), (ignores, "unknown", 7),
        (lies, "differs", 7), (clamps, "differs", 10), (takes_and_hangs_up, "written", 42),
        (other_value, "written", 42), (other_address, "written", 42), (too_short, "unknown", 7),
        (acknowledges, "written", 42), (busy, "refused", None),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)  # fmt: skip
async def test_the_outcome_is_what_the_device_has(reply, result, found, tmp_path):
    """Whatever the device answers, it is asked once; what it has afterwards decides."""
    async with Odd(reply) as device, plant(device.url, tmp_path, {"t": {"reg": 0}}) as p:
        await until(p.rows.good)
        if result == "written":
            done = await p.write("t", 42)
            assert (done["old"], done["found"], done["echo"]) == (7.0, found, reply is takes)
        else:
            e = await p.declined("t", 42)
            assert (e.result, e.facts.get("found"), e.facts["old"]) == (result, found, 7.0)
        assert len(device.writes) == 1
        device.hang_up = False
        seen = len(p.rows.good())
        await until(lambda: len(p.rows.good()) > seen + 3, within_s=10)
        assert p.rows.values() <= {7.0, float(device.value)}


async def test_a_silent_device_is_not_written_to(tmp_path):
    """Who does not even give the old value gets no write."""
    async with Odd(takes) as device, plant(device.url, tmp_path, {"t": {"reg": 0}}) as p:
        await until(p.rows.good)
        device.silent = True
        assert (await p.declined("t", 42)).result == "not_sent"
        assert device.writes == []


async def test_an_agent_that_ends_in_mid_write_says_that_nobody_knows(tmp_path):
    """Stopped between a write and its answer: the trail has it, and the outcome is unknown."""
    async with (
        Odd(ignores) as device,
        plant(device.url, tmp_path, {"t": {"reg": 0}}, timeout="20s") as p,
    ):
        await until(p.rows.good)
        writing = asyncio.ensure_future(p.write("t", 42))
        await until(lambda: device.writes)
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        (row,) = p.trail.rows
        assert (row[2]["result"], row[2]["new"]) == ("unknown", 42)


async def test_without_reading_back_the_echo_must_do(tmp_path):
    """`confirm: echo`: sent when the device says so, unknown when it says nothing."""
    async with (
        Odd(lies) as device,
        plant(device.url, tmp_path, {"t": {"reg": 0}}, {"confirm": "echo"}) as p,
    ):
        assert await p.write("t", 42) == {"tag": "d/t", "new": 42.0, "old": None, "result": "sent"}
        device.reply = ignores
        assert (await p.declined("t", 43)).result == "unknown"
        assert len(device.writes) == 2


async def test_a_device_without_mask_write_is_never_read_modified_written_unasked(tmp_path):
    """A bit where function 22 is refused: told what to do; `bit: rewrite` keeps the other bits."""

    def old(device, pdu):
        return bytes([pdu[0] | 0x80, 1]) if pdu[0] == 22 else takes(device, pdu)

    tags = {"t": {"reg": 0, "bit": 4}}
    async with Odd(old) as device:
        device.value = 0x8003
        async with plant(device.url, tmp_path, tags) as p:
            e = await p.declined("t", True)
            assert (e.result, e.facts["exception_code"]) == ("refused", 1)
            assert "bit: rewrite" in e.fix
            assert device.value == 0x8003
        async with plant(device.url, tmp_path, tags, {"bit": "rewrite"}) as p:
            assert (await p.write("t", True))["result"] == "written"
            assert device.value == 0x8013
            assert [w[0] for w in device.writes] == [22, 6]


async def test_the_rules_hold_before_anything_is_sent(tmp_path):
    """Limits, steps, pace, list, switch, expiry, rubbish: each has its word, no byte leaves."""
    rule = {"min": 10, "max": 20, "step": 0.5, "every": "1h"}
    tags = {"t": {"reg": 0, "scale": 0.1}, "other": {"reg": 1}}
    async with Odd(takes) as device, plant(device.url, tmp_path, tags, rule) as p:
        for value, word in [(9.5, "out_of_range"), (20.5, "out_of_range"), (10.2, "step"),
                            (float("nan"), "malformed"), (float("inf"), "malformed"),
                            ("12", "malformed"), (None, "malformed"), ([12], "malformed"),
                            (10**400, "malformed"), (-(10**400), "malformed")]:  # fmt: skip
            assert (await p.declined("t", value)).result == word
        assert (await p.declined("nowhere", 12)).result == "not_listed"
        assert (await p.declined("t", 12, Me(late=True))).result == "expired"
        assert device.writes == []
        p.writes._last_s.clear()
        assert (await p.write("t", 12.5))["found"] == 12.5
        assert (await p.declined("t", 13)).result == "rate"
        p.section = WritesSection.model_validate(
            {"read_only": True, "tags": {"d/t": ANY, "d/other": ANY}}
        )
        for tag, value in [("t", 12), ("other", 1), ("nowhere", None)]:
            assert (await p.declined(tag, value)).result == "read_only"
        p.section = None
        assert (await p.declined("t", 12)).result == "read_only"
        assert len(device.writes) == 1


async def test_a_switch_thrown_while_a_write_waits_still_wins(tmp_path):
    """Read-only, or expired, while waiting for the line: nothing is sent."""
    async with Odd(takes) as device, plant(device.url, tmp_path, {"t": {"reg": 0}}) as p:
        await until(p.rows.good)
        async with p.source._endpoint.held(1):
            waiting = asyncio.ensure_future(p.write("t", 42))
            await until(lambda: p.source._endpoint._turns._queues[0])
            p.section = WritesSection.model_validate({"read_only": True})
        with pytest.raises(Declined) as e:
            await waiting
        assert e.value.result == "read_only"
        assert device.writes == []


async def test_a_tag_is_read_on_demand(tmp_path):
    """One tag, now, whatever its scan class; a refused one says why."""
    async with ModbusServer({1: RegisterImage(100)}) as server:
        server.units[1].set_float32(10, 31.25)
        tags = {"t": {"reg": 0}, "slow": {"reg": 10, "as": "float32", "class": "slow"},
                "far": {"reg": 500, "class": "slow"}}  # fmt: skip
        async with plant(server.url, tmp_path, tags, classes={"slow": "1h"}) as p:
            assert await p.source.demand("slow") == (31.25, 192, "")
            value, quality, why = await p.source.demand("far")
            assert np.isnan(value)
            assert (quality, "illegal data address" in why) == (4, True)
        assert (await p.source.demand("slow"))[1] == 8, "no connection any more"


def test_a_rule_states_its_limits():
    """A rule is upright in itself."""
    for wrong in [{"min": 2, "max": 1}, {"step": 0}, {"bit": "rewrite", "confirm": "echo"}]:
        with pytest.raises(ValueError, match=r"must|needs|greater"):
            WriteRule.model_validate(wrong)
