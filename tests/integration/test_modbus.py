"""The Modbus source against real servers."""

import asyncio
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

from agent.config.base import Context
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.sources.modbus import ModbusConfig
from simulators.modbus_server import FaultyServer, ModbusServer, RegisterImage
from tests.tools import until


class Rows(list):
    """What a source emitted."""

    def __call__(self, batch, *, on_durable=None):
        self.append(batch)

    def good(self, stream="d"):
        return [b for b in self if b.stream == stream and (b.q == Quality.GOOD).all()]

    def last(self, stream="d"):
        return next((b for b in reversed(self) if b.stream == stream), None)


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


def config(url, tags=None, **more):
    raw = {"type": "modbus", "connect": url, "unit": 1, "addressing": "zero_based",
           "poll": "10ms", "timeout": "200ms", "tags": tags or {"t": {"reg": 0}}}  # fmt: skip
    return ModbusConfig.model_validate(raw | more)


@asynccontextmanager
async def polling(*sources):
    """Runs the sources and gives what they emit."""
    rows = Rows()
    tasks = [asyncio.create_task(s.run(rows)) for s in sources]
    try:
        yield rows
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_mixed_types_tables_and_classes(ctx):
    """Tags of all tables and types arrive in file order, per scan class."""
    image = RegisterImage()
    image.set_float32(10, 31.25)
    image.holding[300] = 0xFFFE
    image.input[5] = 7
    image.coils[3] = True
    tags = {
        "f": {"reg": 10, "as": "float32", "unit": "bar"},
        "i": {"reg": 300, "as": "int16", "scale": 0.5, "offset": 1},
        "in": {"reg": 5, "table": "input"},
        "on": {"reg": 3, "table": "coil"},
        "bit": {"reg": 300, "bit": 15},
        "slow": {"reg": 5, "table": "input", "class": "slow"},
    }
    async with ModbusServer({1: image}) as server:
        source = config(server.url, tags, classes={"slow": "50ms"}).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: rows.good() and rows.good("d~slow"))
            assert rows.good()[0].v.tolist() == [[31.25, 0.0, 7.0, 1.0, 1.0]]
            assert rows.good("d~slow")[0].v.tolist() == [[7.0]]
            assert source.facts()["connected"]


async def test_one_connection_serves_all_units_of_an_endpoint(ctx):
    """Devices behind one address share its connection."""
    async with FaultyServer() as server:
        two = [config(server.url, unit=u).build(f"d{u}", ctx) for u in (1, 2)]
        async with polling(*two) as rows:
            await until(lambda: rows.good("d1") and rows.good("d2"))
        assert server.connections == 1


async def test_a_dead_device_does_not_slow_another(ctx):
    """A neighbour keeps its period while another device takes connections and never answers."""
    async with ModbusServer({1: RegisterImage()}) as server, FaultyServer("never") as dead:
        sources = config(server.url).build("d", ctx), config(dead.url).build("dead", ctx)
        async with polling(*sources) as rows:
            await until(lambda: len(rows.good()) >= 60, within_s=10)
            times = np.array([b.t[0] for b in rows.good()[:60]])
            assert np.median(np.diff(times)) < 20e6
            await until(lambda: rows.last("dead") is not None)
            assert (rows.last("dead").q < Quality.UNCERTAIN).all()


async def test_a_silent_unit_behind_a_gateway_costs_its_neighbour_little(ctx):
    """After its first timeouts a unit that does not answer is asked less often."""
    async with FaultyServer() as gateway:
        gateway.silent_units = {2}
        alive = config(gateway.url, unit=1).build("d", ctx)
        silent = config(gateway.url, unit=2, timeout="100ms").build("silent", ctx)
        async with polling(alive, silent) as rows:
            await until(lambda: len(rows.good()) >= 20)
            await until(lambda: rows.last("silent") is not None)
            began, seen = time.monotonic(), len(rows.good())
            await until(lambda: len(rows.good()) >= seen + 60)
            assert time.monotonic() - began < 60 * 0.010 * 2.5
            assert gateway.connections == 1


async def test_gone_and_back(ctx):
    """A lost device gives Bad rows at its period, at once, and good ones when it is back."""
    server = ModbusServer({1: RegisterImage()})
    async with server:
        source = config(server.url).build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            await server.__aexit__()
            await until(lambda: rows.last().q[0, 0] == Quality.BAD_NOT_CONNECTED, within_s=1)
            seen = len(rows)
            await until(lambda: len(rows) > seen + 3, within_s=1)
            assert not source.facts()["connected"]
            await server.__aenter__()
            await until(lambda: rows.last().q[0, 0] == Quality.GOOD, within_s=10)


async def test_a_refused_block_spoils_only_its_own_tags(ctx):
    """Exception 2 for one request leaves the others good."""
    tags = {"ok": {"reg": 0}, "gone": {"reg": 5000}}
    async with (
        ModbusServer({1: RegisterImage()}) as server,
        polling(config(server.url, tags).build("d", ctx)) as rows,
    ):
        await until(lambda: rows.last() is not None and rows.last().q[0, 0] == Quality.GOOD)
        assert rows.last().q.tolist() == [[Quality.GOOD, Quality.BAD_CONFIG]]


async def test_a_row_polled_twice_is_dropped(ctx):
    """`once_per`: a row whose number was seen is no new row."""
    image = RegisterImage()
    reads = []
    image.on_read = lambda *_: reads.append(0)
    async with ModbusServer({1: image}) as server:
        source = config(server.url, {"row": {"reg": 0}}, once_per="row").build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(reads) > 5)
            assert len(rows.good()) == 1
            image.holding[0] = 1
            await until(lambda: len(rows.good()) == 2)


WRONG = ["short", "unit", "function", "tid", "bytecount", "exception", "never", "close", "garbage"]


@pytest.mark.parametrize("mode", WRONG)
async def test_no_wrong_answer_becomes_a_value(ctx, mode):
    """A wrong answer is a Bad row; when the device is right again so are the rows."""
    async with FaultyServer() as server:
        source = config(server.url, timeout="50ms").build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            server.mode = mode
            await until(lambda: rows.last().q[0, 0] < Quality.UNCERTAIN)
            server.mode = "ok"
            seen = len(rows.good())
            await until(lambda: len(rows.good()) > seen + 5, within_s=10)
            assert {float(b.v[0, 0]) for b in rows.good()} == {float(0x1111)}


async def test_a_late_answer_is_never_taken_for_the_next(ctx):
    """An answer that comes after its timeout belongs to no later scan."""
    async with FaultyServer(delay_s=0.08) as server:
        source = config(server.url, timeout="50ms").build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            server.mode = "late"
            await until(lambda: rows.last().q[0, 0] < Quality.UNCERTAIN)
            bad = len(rows) - len(rows.good())
            await until(lambda: len(rows) - len(rows.good()) > bad + 3)
            server.mode = "ok"
            seen = len(rows.good())
            await until(lambda: len(rows.good()) > seen + 5, within_s=10)
            assert {float(b.v[0, 0]) for b in rows.good()} == {float(0x1111)}


async def test_a_name_nobody_knows_stops_nothing(ctx):
    """A host that cannot be looked up is a Bad row and a clear error."""
    source = config("tcp://no-such-host.invalid:502", timeout="300ms").build("d", ctx)
    async with polling(source) as rows:
        await until(lambda: "no-such-host.invalid" in source.facts()["last_error"], within_s=10)
        assert rows.last().q[0, 0] == Quality.BAD_NOT_CONNECTED
