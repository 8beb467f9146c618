"""The Modbus source against real servers."""

import time

import numpy as np
import pytest

from agent.config.base import Context
from agent.config.load import loads
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.links.pace import SLOTS, first_due_s
from agent.plugins import installed
from agent.runtime.clock import SystemClock
from simulators.modbus_server import FaultyServer, ModbusServer, RegisterImage
from tests.polling import modbus, polling
from tests.tools import until


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


async def test_mixed_types_tables_and_classes(ctx):
    """Tags of all tables and types arrive in file order, per scan class."""
    image = RegisterImage()
    image.set_float32(10, 31.25)
    image.holding[300] = 0xFFFE
    image.input[5] = 7
    image.coils[3] = image.discrete[1999] = True
    tags = {
        "f": {"reg": 10, "as": "float32", "unit": "bar"},
        "i": {"reg": 300, "as": "int16", "scale": 0.5, "offset": 1},
        "in": {"reg": 5, "table": "input"},
        "on": {"reg": 3, "table": "coil"},
        "shut": {"reg": 1999, "table": "discrete", "scale": -1, "offset": 1},
        "bit15": {"reg": 300, "bit": 15},
        "bit0": {"reg": 300, "bit": 0},
        "slow": {"reg": 5, "table": "input", "class": "slow"},
    }
    async with ModbusServer({1: image}) as server:
        source = modbus(server.url, tags, classes={"slow": "50ms"}).build("d", ctx)
        assert list(source.streams) == ["d", "d~slow"]
        async with polling(source) as rows:
            await until(lambda: rows.good() and rows.good("d~slow"))
            assert rows.good()[0].v.tolist() == [[31.25, 0.0, 7.0, 1.0, 0.0, 1.0, 0.0]]
            assert rows.good("d~slow")[0].v.tolist() == [[7.0]]


async def test_the_first_row_of_a_reachable_device_is_good(ctx):
    """A start does not look like an outage: polling waits for the first attempt to connect."""
    async with (
        ModbusServer({1: RegisterImage()}) as server,
        polling(modbus(server.url).build("d", ctx)) as rows,
    ):
        await until(lambda: rows)
        assert rows.last_q() == Quality.GOOD


async def test_facts_and_counts(ctx):
    """The status says what a technician asks first; the counters count rows and samples."""
    async with ModbusServer({1: RegisterImage()}) as server:
        source = modbus(server.url, {"a": {"reg": 0}, "b": {"reg": 900}}).build("d", ctx)
        assert not source.facts()["connected"]
        async with polling(source) as rows:
            await until(lambda: len(rows) >= 3)
        facts = source.facts()
        assert facts.pop("since_s") > 0
        assert facts == {
            "connected": True,
            "endpoint": server.url,
            "unit": 1,
            "last_error": "",
            "requests": 2,
            "latency_ms": None,
        }
        numbers = ctx.stats.snapshot()
        assert numbers["source/d.received_batches"] == len(rows)
        assert numbers["source/d.received_samples"] == 2 * len(rows)
        assert 0 < numbers["source/d.scan_ms.p50"] < 100


async def test_one_connection_serves_all_units_of_an_endpoint(ctx):
    """Devices behind one address share its connection, and each gets its own values."""
    images = {1: RegisterImage(), 2: RegisterImage()}
    images[2].holding[0] = 22
    async with ModbusServer(images) as server, FaultyServer() as counting:
        two = [modbus(server.url, unit=u).build(f"d{u}", ctx) for u in (1, 2)]
        three = [modbus(counting.url, unit=u).build(f"c{u}", ctx) for u in (1, 2, 3)]
        async with polling(*two, *three) as rows:
            await until(lambda: all(len(rows.good(s)) > 5 for s in ("d1", "d2", "c1", "c2", "c3")))
        assert (rows.values("d1"), rows.values("d2")) == ({0.0}, {22.0})
        assert counting.connections == 1


async def test_many_requests_under_way_bring_every_block_its_own_data(ctx):
    """With `window: 8` eight requests are under way; each answer lands in its block."""
    async with FaultyServer() as server:
        server.image = RegisterImage()
        server.image.holding[:] = np.arange(2000)
        tags = {f"t{reg}": {"reg": reg} for reg in range(0, 2000, 3)}
        source = modbus(server.url, tags, window=8, poll="50ms").build("d", ctx)
        assert source.facts()["requests"] == 16
        async with polling(source) as rows:
            await until(lambda: len(rows.good()) >= 5)
        want = np.arange(0, 2000, 3, dtype=np.float64)
        assert all((b.v[0] == want).all() for b in rows.good())
        assert len(rows.good()) == len(rows)


def test_the_first_scans_are_spread_over_shared_slots():
    """Each stream begins within a period (a second of a long one), always in the same slot of
    the clock, and all slots are used.
    """
    for period_s, within_s in ((0.1, 0.1), (1.0, 1.0), (60.0, 1.0)):
        found = set()
        for n in range(400):
            for now_s in (1000.0, 1000.0371, 7.25):
                due_s = first_due_s(f"pump{n}", period_s, now_s)
                assert 0 <= due_s - now_s <= within_s
                found.add(round(SLOTS * (due_s % within_s) / within_s, 6) % SLOTS)
        assert found == set(map(float, range(SLOTS)))


async def test_scans_keep_their_grid_and_never_stack(ctx):
    """A device slower than its period is polled at every second or third point of the grid."""
    async with FaultyServer("late", delay_s=0.025) as server:
        source = modbus(server.url, timeout="500ms").build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(rows) >= 10)
        times = np.array([int(b.t[0]) for b in rows])
        assert np.diff(times).min() > 24e6
        assert ctx.stats.values["modbus/d.overruns"] >= 2 * (len(rows) - 1)
        assert rows.values() == {float(0x2222)}


async def test_a_busy_machine_leaves_no_scan_out(ctx):
    """Arrears of the agent itself are made good at once: only a slow device loses its turns."""
    async with ModbusServer({1: RegisterImage()}) as server:
        source = modbus(server.url).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(rows) >= 3)
            began, first = time.monotonic(), len(rows)
            while time.monotonic() < began + 0.2:
                pass  # the loop stands still, as on a machine that is busy elsewhere
            await until(lambda: len(rows) >= first + 30)
        assert ctx.stats.values.get("modbus/d.overruns", 0) < 15


async def test_a_row_polled_twice_is_dropped(ctx):
    """`once_per`: a row whose number was seen is no new row."""
    image = RegisterImage()
    reads = []
    image.on_read = lambda *_: reads.append(0)
    async with ModbusServer({1: image}) as server:
        source = modbus(server.url, {"row": {"reg": 0}}, once_per="row").build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(reads) > 5)
            assert len(rows) == 1
            image.holding[0] = 1
            await until(lambda: len(rows) == 2)
            assert rows.last().v.tolist() == [[1.0]]


async def test_a_device_can_be_named(ctx):
    """`localhost` has two addresses; the one that nobody serves does not stop the other."""
    async with ModbusServer({1: RegisterImage()}) as server:
        source = modbus(f"tcp://localhost:{server.port}").build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good, within_s=10)


async def test_an_endpoint_is_used_again_after_a_reload(ctx):
    """When all devices behind an endpoint left, the next one gets a fresh connection."""
    async with FaultyServer() as server:
        for expected in (1, 2):
            async with polling(modbus(server.url).build("d", ctx)) as rows:
                await until(rows.good)
            assert server.connections == expected


async def test_the_period_is_kept(ctx):
    """Sixty polls of 10 ms take their time and not more."""
    async with (
        ModbusServer({1: RegisterImage()}) as server,
        polling(modbus(server.url).build("d", ctx)) as rows,
    ):
        await until(rows.good)
        began = time.monotonic()
        seen = len(rows)
        await until(lambda: len(rows) >= seen + 60)
        assert 0.5 < time.monotonic() - began < 1.5


async def test_every_kind_of_tag_on_the_wire(ctx):
    """Bytes, bit fields, codes, special values, scale factors and texts, as their settings say."""
    image = RegisterImage()
    image.holding[10:20] = 0x1234, 0xFFFF, 0x8000, 0xFFFE, 250, 0x0F70, 0x2345, 1, 0x0012, 0x9999
    image.holding[30:33] = [int.from_bytes(w, "big") for w in (b"OL", b"T ", b"71")]
    image.holding[40:43] = [ord(c) for c in "x-1"]
    tags = {
        "high": {"reg": 10, "as": "uint8", "byte": "high"},
        "low": {"reg": 10, "as": "int8"},
        "gone": {"reg": 11, "invalid": 0xFFFF},
        "none": {"reg": 12, "as": "int16", "invalid": [0x7FFF, 0x8000]},
        "power": {"reg": 13, "as": "int16"},
        "scaled": {"reg": 14, "scale_by": "power"},
        "part": {"reg": 15, "mask": 0x0FF0, "scale": 0.5},
        "state": {"reg": 17, "enum": {"0": "off", "1": "running"}},
        "bcd": {"reg": 16, "as": "bcd16"},
        "wide": {"reg": 18, "as": "bcd32"},
        "int24": {"reg": 11, "as": "int24", "order": "CDAB"},
        "lot": {"reg": 30, "as": "text", "length": 6, "order": "BADC"},
        "recipe": {"reg": 40, "as": "text", "length": 3, "per_register": 1},
    }
    async with ModbusServer({1: image}) as server:
        source = modbus(server.url, tags).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: rows)
            row = dict(zip(tags, rows[0].v[0], strict=True))
            q = dict(zip(tags, rows[0].q[0].tolist(), strict=True))
            assert {t for t, code in q.items() if code != Quality.GOOD} == {"gone", "none"}
            assert q["gone"] == q["none"] == Quality.BAD_SENSOR
            assert (row["high"], row["low"], row["scaled"]) == (18.0, 52.0, 2.5)
            assert (row["part"], row["state"], row["bcd"], row["wide"]) == (123.5, 1, 2345, 129999)
            assert row["int24"] == 0x00FFFF
            assert ctx.texts.text("d/lot", row["lot"]) == "LO T17"
            assert ctx.texts.text("d/recipe", row["recipe"]) == "x-1"
            image.holding[42] = ord("2")
            await until(lambda: rows[-1].v[0, -1] == row["recipe"] + 1)
            assert ctx.texts.text("d/recipe", row["recipe"] + 1) == "x-2"


async def test_a_refusal_names_the_tags_as_the_file_and_as_the_wire_do(ctx):
    """The technician reads the number of the manual and the address that was sent."""
    image = RegisterImage(hole=range(10, 12))
    tags = {"flow": {"reg": 40011}, "temp": {"reg": 40012}}
    async with ModbusServer({1: image}) as server:
        source = modbus(server.url, tags, addressing="modicon5").build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: rows)
            error = source.facts()["last_error"]
            assert "(flow 40011 to temp 40012 -> holding, wire 10 to 11)" in error


@pytest.mark.parametrize("name", ["energy-meter", "vfd", "pump-controller"])
async def test_our_profiles_read_a_device(ctx, name):
    """Every stream of a profile arrives, in few requests, and nothing of it is refused."""
    async with ModbusServer({1: RegisterImage()}) as server:
        text = "version: 1\ngateway: {id: g}\ndevices:\n"
        text += f'  d: {{profile: {name}, connect: "{server.url}", unit: 1}}\n'
        device = loads(text, "c.yaml", installed()).devices["d"]
        source = device.build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: all(rows.of(stream) for stream in source.streams))
            for stream, tags in source.streams.items():
                row = rows.of(stream)[0]
                assert (row.q >= Quality.UNCERTAIN).all()
                assert len(tags) == row.v.shape[1]
            assert source.facts()["last_error"] == ""
            assert source.facts()["requests"] <= 8
