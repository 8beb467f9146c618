"""Every fault of a Modbus device or its link, over every transport: no wrong value."""

from contextlib import AsyncExitStack
from functools import partial

import numpy as np
import pytest

from agent.config.base import Context
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from simulators.modbus_server import FaultyServer, ModbusServer, RegisterImage
from simulators.proxy import Proxy
from simulators.rtu_device import RtuDevice
from tests.certificates import Authority
from tests.polling import modbus, polling
from tests.tools import until

TAGS = {"t": {"reg": 0}, "u": {"reg": 1}}
RIGHT, HALVES = 0x1111, 0x2222

BOTH = ("late", "never", "short", "long", "unit", "function", "bytecount", "exception")
MBAP = (*BOTH, "tid", "protocol", "garbage", "close", "split", "drip", "glued")
RTU = (*BOTH, "corrupt", "noise", "split", "drip", "glued")
LINK = ("half_open", "flipped", "reset")
HARMLESS = {"split", "drip", "glued", "noise"}
"""The right answer comes, in pieces or amid other bytes, and in time: it must be found."""

FAULTS = {"tcp": MBAP + LINK, "tls": MBAP + LINK, "rtu": RTU, "rtu+tcp": RTU + LINK}
CASES = [(transport, fault) for transport, faults in FAULTS.items() for fault in faults]
REASON = {
    "exception": {Quality.BAD_DEVICE, Quality.BAD_CONFIG},
    "close": {Quality.BAD_NOT_CONNECTED},
    "reset": {Quality.BAD_NOT_CONNECTED},
    "flipped": {Quality.BAD_COMM, Quality.BAD_NOT_CONNECTED},
}
"""Quality of the rows meanwhile; otherwise BAD_COMM."""

SOCKETS = ["tcp", "tls", "rtu+tcp"]

MANY = pytest.mark.slow
TURNS = pytest.mark.parametrize("turns", [1, pytest.param(10, marks=MANY)])


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


class Far:
    """A device behind a link, and what can go wrong with both."""

    def __init__(self, transport, authority):
        self.transport, self._authority = transport, authority
        self.more, self.link = {}, None

    async def __aenter__(self):
        self._stack = stack = AsyncExitStack()
        await stack.__aenter__()
        if self.transport in {"tcp", "tls"}:
            self.device = device = await stack.enter_async_context(FaultyServer())
            port = device.port
        else:
            image = RegisterImage()
            image.holding[:] = RIGHT
            device = RtuDevice({1: image}, tcp=self.transport == "rtu+tcp")
            self.device = await stack.enter_async_context(device)
            self.more["serial"] = {"parity": "none", "baud": 115200}  # a pty has no parity
            port = int(device.url.rpartition(":")[2]) if device.url.startswith("rtu+tcp") else 0
        if self.transport == "tls":
            port = (await stack.enter_async_context(Proxy(port, self._authority.server()))).port
            cert, key = self._authority.issue("gateway")
            self.more = {"ca": self._authority.ca, "cert": cert, "key": key}
        if port:
            self.link = await stack.enter_async_context(Proxy(port))
        return self

    async def __aexit__(self, *exc):
        await self._stack.__aexit__(*exc)

    def config(self, timeout, **more):
        url = f"{self.transport}://127.0.0.1:{self.link.port}" if self.link else self.device.url
        return modbus(url, TAGS, timeout=timeout, **self.more, **more)

    def begin(self, fault):
        """Let it go wrong; `late` answers come in the time of the next request."""
        self.device.delay_s = 0.01 if fault == "split" else 0.1
        if fault == "reset":
            self.link.cut()
        elif fault in LINK:
            self.link.mode = "corrupt" if fault == "flipped" else fault
        else:
            self.device.mode = fault

    def end(self):
        self.device.mode = "ok"
        if self.link:
            self.link.mode = "pass"


@TURNS
@pytest.mark.parametrize(("transport", "fault"), CASES)
async def test_no_wrong_value_and_no_neighbour_disturbed(ctx, authority, transport, fault, turns):
    """A fault gives Bad rows with its reason, or right ones where the right answer can be found;
    they are right again when it is over. Another device keeps its period meanwhile.
    """
    async with Far(transport, authority) as far, ModbusServer({1: RegisterImage()}) as other:
        source = far.config("60ms").build("d", ctx)
        neighbour = modbus(other.url).build("n", ctx)
        async with polling(source, neighbour) as rows:
            for _ in range(turns):
                await good_again(rows, 3)
                seen, why = len(rows), REASON.get(fault, {Quality.BAD_COMM})
                far.begin(fault)
                if fault in HARMLESS:
                    await good_again(rows, 5)
                else:
                    await until(partial(seen_to_fail, far, fault, why, rows, seen), within_s=10)
                far.end()
            await good_again(rows, 3)
            await until(lambda: len(rows.of("n")) > 30)
    assert rows.values() <= {float(RIGHT), float(HALVES if fault == "split" else RIGHT)}
    assert not bad(rows.of("n"), "n")
    times = np.array([int(b.t[0]) for b in rows.of("n")])
    assert np.median(np.diff(times)) < 20e6


def seen_to_fail(far, fault, why, rows, seen):
    """Is there a row with the reason; a link cut between two requests may be back before one."""
    if fault == "reset":
        far.begin(fault)
    return why & reasons(rows[seen:])


async def good_again(rows, count):
    wanted = len(rows.good()) + count
    await until(lambda: len(rows.good()) >= wanted, within_s=15)


def reasons(rows):
    return {int(b.q[0, 0]) for b in bad(rows)}


def bad(rows, stream="d"):
    return [b for b in rows if b.stream == stream and (b.q < Quality.UNCERTAIN).any()]


@TURNS
@pytest.mark.parametrize("transport", SOCKETS)
async def test_the_loss_of_a_link_is_seen_at_once(ctx, authority, transport, turns):
    """Where the socket tells, no timeout is waited for: under 50 ms in the median."""
    waits = []
    async with Far(transport, authority) as far:
        source = far.config("5s", poll="5ms").build("d", ctx)
        async with polling(source) as rows:
            for _ in range(3 + turns):
                await good_again(rows, 3)
                far.begin("reset")
                began_ns = ctx.clock.wall_ns()
                await until(lambda: rows.last_q() == Quality.BAD_NOT_CONNECTED)
                lost = next(b for b in rows if bad([b]) and b.t[0] > began_ns)
                waits.append((int(lost.t[0]) - began_ns) / 1e9)
    assert np.median(waits) < 0.05


@TURNS
@pytest.mark.parametrize("transport", SOCKETS)
async def test_a_dead_link_is_recycled_within_two_timeouts(ctx, authority, transport, turns):
    """A connection over which nothing comes any more is replaced; half a timeout is for the
    machine.
    """
    waits = []
    async with Far(transport, authority) as far:
        source = far.config("200ms").build("d", ctx)
        async with polling(source) as rows:
            for _ in range(2 + turns):
                await good_again(rows, 3)
                before, began_s = far.link.connections, ctx.clock.mono_s()
                far.begin("half_open")
                await until(lambda before=before: far.link.connections > before)
                waits.append(ctx.clock.mono_s() - began_s)
                far.end()
                far.link.cut()
    assert np.median(waits) < 2.5 * 0.2
