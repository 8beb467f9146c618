"""RTU on a pseudo-terminal and over TCP, with a device that answers wrongly: no wrong value."""

import asyncio

import pytest

from agent.config.base import Context
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from simulators.modbus_server import RegisterImage
from simulators.rtu_device import WRONG, RtuDevice
from tests.polling import modbus, polling
from tests.tools import until

RIGHT = 0x1111


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


@pytest.fixture(params=[False, True], ids=["pty", "tcp"])
async def device(request):
    images = {unit: RegisterImage() for unit in (1, 2)}
    for image in images.values():
        image.holding[:] = RIGHT
    async with RtuDevice(images, tcp=request.param) as device:
        yield device


def line(device, serial=None, **more):
    serial = {"parity": "none", "baud": 115200} | (serial or {})  # a pty has no parity
    tags = {"t": {"reg": 0}, "u": {"reg": 1}}
    return modbus(device.url, tags, timeout="60ms", serial=serial, **more)


async def test_registers_of_two_units_on_one_line(ctx, device):
    """Units behind one line share it, and each gets its own values."""
    device._images[2].holding[:] = 22
    one, two = (line(device, unit=u).build(f"d{u}", ctx) for u in (1, 2))
    async with polling(one, two) as rows:
        await until(lambda: len(rows.good("d1")) > 5 and len(rows.good("d2")) > 5)
    assert (rows.values("d1"), rows.values("d2")) == ({float(RIGHT)}, {22.0})


async def test_a_late_answer_never_serves_the_next_request(ctx, device):
    """An answer that comes while the next request waits is not taken for its answer."""
    device.delay_s = 0.1  # after timeout and line time, when the next request is under way
    async with polling(line(device).build("d", ctx)) as rows:
        for _ in range(10):
            device.once.append("late")
            seen, bad = len(rows.good()), len(rows) - len(rows.good())
            await until(lambda b=bad: len(rows) - len(rows.good()) > b, within_s=10)
            await until(lambda s=seen: len(rows.good()) > s, within_s=10)
    assert float(WRONG) not in rows.values()
    assert 8 in device.requests


async def test_a_device_that_cannot_echo_is_read_again(ctx, device):
    """A device without function 8 comes back after some silence."""
    device.echoes = False
    async with polling(line(device).build("d", ctx)) as rows:
        await until(lambda: len(rows.good()) >= 3)
        device.once.append("never")
        await until(lambda: rows.last_q() == Quality.BAD_COMM, within_s=10)
        seen = len(rows.good())
        await until(lambda: len(rows.good()) >= seen + 5, within_s=10)
    assert rows.values() == {float(RIGHT)}


async def test_a_refusal_is_told(ctx, device):
    """Exception 2 is a wrong address, also on a line."""
    device.mode = "exception"
    source = line(device).build("d", ctx)
    async with polling(source) as rows:
        await until(lambda: rows.last_q() == Quality.BAD_CONFIG)
        assert "illegal data address" in source.facts()["last_error"]


async def test_a_silent_unit_leaves_its_neighbour_alone(ctx, device):
    """A unit that nobody wired costs its neighbour on the line little."""
    one = line(device, unit=1).build("d", ctx)
    gone = line(device, unit=9).build("gone", ctx)
    async with polling(one, gone) as rows:
        await until(lambda: len(rows.good()) >= 20 and rows.of("gone"), within_s=10)
        good = len([b for b in rows.of() if (b.q == Quality.GOOD).all()])
        assert good > 0.5 * len(rows.of())


async def test_a_converter_that_echoes(ctx):
    """With `local_echo` our own bytes are not read as the device's."""
    image = RegisterImage()
    image.holding[:] = RIGHT
    async with RtuDevice({1: image}) as device:
        device.local_echo = True
        source = line(device, serial={"local_echo": True}).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(rows.good()) >= 5)
    assert rows.values() == {float(RIGHT)}


async def test_an_unplugged_converter_is_seen_at_once(ctx):
    """The loss of the port costs no timeout, and the status says what to look at."""
    image = RegisterImage()
    loop = asyncio.get_running_loop()
    async with RtuDevice({1: image}) as device:
        serial = {"parity": "none"}
        tags = {"t": {"reg": 0}}
        source = modbus(device.url, tags, timeout="5s", serial=serial).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(rows.good()) >= 3)
            began = loop.time()
            device.unplug()
            await until(lambda: rows.last_q() == Quality.BAD_NOT_CONNECTED, within_s=2)
            assert loop.time() - began < 1.0
            await until(lambda: "is the converter plugged in" in source.facts()["last_error"])
