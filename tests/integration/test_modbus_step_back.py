"""A person does not wait for a machine: writes and reads on demand within a long scan."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from agent.config.base import Context
from agent.config.schema import WriteRule
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from simulators.modbus_server import ModbusServer, RegisterImage
from simulators.proxy import Proxy
from simulators.rtu_device import RtuDevice
from tests.polling import modbus, polling
from tests.tools import until

REQUESTS = 30
SLOW_S = 0.01
TAGS = {f"t{i}": {"reg": 10 * i} for i in range(REQUESTS)}
"""One request each: the device gives one register at a time."""


class Journal(RegisterImage):
    """Registers that note what was read of them."""

    def __init__(self):
        super().__init__()
        self.asked, self.on_read = [], lambda fc, first, _count: self.asked.append((fc, first))


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


@asynccontextmanager
async def slow_device(kind):
    """(its address, what it was asked: function and first register, its registers)."""
    image = Journal()
    if kind == "tcp":
        async with ModbusServer({1: image}) as server, Proxy(server.port) as proxy:
            proxy.delay_s = SLOW_S
            yield f"tcp://127.0.0.1:{proxy.port}", image.asked, image.holding
    else:
        async with RtuDevice({1: image}, tcp=kind == "rtu+tcp") as device:
            device.slow_s = SLOW_S
            yield device.url, device.asked, image.holding


@pytest.mark.parametrize("kind", ["tcp", "rtu", "rtu+tcp"])
async def test_a_write_waits_for_one_request_not_for_the_scan(kind, ctx):
    """Within a scan of 30 slow requests a write, and then a read on demand, are done while few
    of them go by; the write's own requests stay together, and the scan is whole and right.
    """
    serial = {"serial": {"parity": "none", "baud": 115200}} if kind == "rtu" else {}
    async with slow_device(kind) as (url, asked, holding):
        config = modbus(url, TAGS, max_registers=1, timeout="2s", **serial)
        source = config.build("d", ctx)
        writer, rule = source.writer(), WriteRule(min=0, max=9)
        async with polling(source) as rows:
            await until(lambda: len(rows.good()) > 0, within_s=20)
            began, at = time.monotonic(), len(asked)
            await until(lambda: len(asked) >= at + 5)
            a_request_s = (time.monotonic() - began) / 5
            before, at = len(rows), len(asked)
            began = time.monotonic()
            done = await writer.write("t7", 5.0, rule, lambda: None)
            took_s = time.monotonic() - began
            theirs = asked[at:]
            value, _, flaw = await source.demand("t7")
            assert len(rows) - before <= 1
            assert len(asked) - at < REQUESTS / 2
            await until(lambda: len(rows.good()) >= before + 2, within_s=20)
    assert (done["result"], value, flaw, holding[70]) == ("written", 5.0, "", 5)
    assert theirs.count((3, 70)) >= 2
    first = theirs.index((3, 70))
    assert first <= 2  # what was under way, and the next if its answer was there
    assert [r for r in theirs[first : first + 3] if r != (6, 70)][:2] == [(3, 70)] * 2
    assert took_s < REQUESTS / 2 * a_request_s
    assert rows.values() == {0.0}
    assert all((b.q == 192).all() for b in rows)
    assert {float(b.v[0, 7]) for b in rows} == {0.0, 5.0}


async def test_many_writes_do_not_stop_a_scan(ctx):
    """While somebody asks without end, the scan still goes on, request by request."""
    async with slow_device("rtu") as (url, asked, _):
        few = dict(list(TAGS.items())[:12])
        config = modbus(url, few, max_registers=1, timeout="2s",
                        serial={"parity": "none", "baud": 115200})  # fmt: skip
        source = config.build("d", ctx)

        async def curious():
            while True:
                await source.demand("t0")

        async with polling(source) as rows, asyncio.TaskGroup() as crowd:
            await until(lambda: len(rows.good()) > 0, within_s=20)
            people = [crowd.create_task(curious()) for _ in range(8)]
            before, at = len(rows), len(asked)
            await until(lambda: len(rows) > before, within_s=30)
            scanned = [r for r in asked[at:] if r != (3, 0)]
            assert len(scanned) >= (len(asked) - at) / 6
            for one in people:
                one.cancel()
