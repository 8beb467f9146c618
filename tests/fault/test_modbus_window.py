"""Several requests under way (`window:`): faster where a device can, one by one where it cannot."""

import asyncio
import struct
from contextlib import suppress

import numpy as np
import pytest

from agent.config.base import Context
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from simulators.libmodbus import LibmodbusServer
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.polling import modbus, polling
from tests.tools import until

BLOCKS = 8
TAGS = {f"t{125 * i + n}": {"reg": 125 * i + n} for i in range(BLOCKS) for n in (0, 124 - i)}


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


class Overtaxed:
    """A device whose register i holds i, and which fails in its *way* at several requests."""

    def __init__(self, way):
        self.way, self.most, self.down = way, 0, False

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc):
        self._server.close()

    async def _serve(self, reader, writer):
        with suppress(ConnectionError):
            while data := await reader.read(4096):
                requests = [data[i : i + 12] for i in range(0, len(data), 12)]
                self.most = max(self.most, len(requests))
                if self.down or (len(requests) > 1 and self.way == "hangs up"):
                    break
                writer.write(b"".join(self._answers(requests)))
        writer.close()

    def _answers(self, requests):
        found = [answer(r) for r in requests]
        if len(found) > 1 and self.way == "mute":
            return []
        if len(found) > 1 and self.way == "loses":
            return found[:1]
        if len(found) > 1 and self.way == "mixes up":
            return [b[:2] + a[2:] for a, b in zip(found, found[1:] + found[:1], strict=True)]
        return found


def answer(request):
    """The right one."""
    tid, unit, first, count = struct.unpack(">H4xBxHH", request)
    words = np.arange(first, first + count).astype(">u2").tobytes()
    return struct.pack(">HHHBBB", tid, 0, len(words) + 3, unit, 3, len(words)) + words


def wide(url, **more):
    return modbus(url, TAGS, window=BLOCKS, timeout="60ms", **more)


@pytest.mark.parametrize("way", ["loses", "mixes up", "mute", "hangs up"])
async def test_a_device_for_which_several_are_too_much_gets_one_at_a_time(ctx, way):
    """Whatever it does to several requests, it is asked one by one soon, and every row is whole;
    no wrong value before that.
    """
    async with Overtaxed(way) as device:
        source = wide(device.url).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: device.most > 1)
            await until(lambda: len(rows) >= 20 and all_good(rows[-10:]), within_s=15)
            device.most = 0
            seen = len(rows)
            await until(lambda: len(rows) > seen + 10)
        assert device.most == 1
        assert all_good(rows[seen:])
        right(rows)


def all_good(rows):
    return all((b.q == Quality.GOOD).all() for b in rows)


def right(rows):
    want = np.array([float(t["reg"]) for t in TAGS.values()])
    for b in rows:
        good = b.q[0] == Quality.GOOD
        assert (b.v[0][good] == want[good]).all()


async def test_a_device_that_was_away_gets_several_again(ctx):
    """A loss of the connection is no sign that several are too much."""
    async with Overtaxed("none") as device:
        async with polling(wide(device.url).build("d", ctx)) as rows:
            for _ in range(4):
                device.most, seen = 0, len(rows.good())
                await until(lambda: device.most == BLOCKS, within_s=10)
                await until(lambda seen=seen: len(rows.good()) > seen + 3, within_s=10)
                device.down = True
                await until(lambda: rows.last_q() == Quality.BAD_NOT_CONNECTED)
                device.down = False
        right(rows)


async def test_pymodbus_own_server_loses_requests(ctx):
    """It answers only the first of several: after one lost answer every scan is whole."""
    image = RegisterImage()
    image.holding[:] = np.arange(2000)
    async with (
        ModbusServer({1: image}) as server,
        polling(wide(server.url).build("d", ctx)) as rows,
    ):
        await until(lambda: len(rows.good()) >= 5, within_s=10)
        seen = len(rows)
        await until(lambda: len(rows) >= seen + 10, within_s=10)
    assert all_good(rows[seen:])
    right(rows)


@pytest.mark.needs("gcc")
async def test_a_device_with_nagles_algorithm_is_not_slower(ctx):
    """libmodbus' server keeps its second answer back until the first is acknowledged: that is
    done at once, and not after the 40 ms that Linux takes otherwise.
    """
    with LibmodbusServer(1000, numbered=True) as server:
        async with polling(wide(server.url, poll="5ms").build("d", ctx)) as rows:
            await until(lambda: len(rows.good()) >= 50)
    times = np.array([int(b.t[0]) for b in rows.good()])
    assert np.median(np.diff(times)) < 20e6
    right(rows)
