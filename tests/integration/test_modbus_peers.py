"""Devices that nobody here wrote: every register rightly, and their loss seen at once."""

import asyncio
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from modbus_tk import defines, modbus_tcp
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from pyModbusTCP.server import DataBank, ModbusServer

from agent.config.base import Context
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from simulators.broker import free_port
from simulators.libmodbus import LibmodbusServer
from simulators.modbus_server import ModbusServer as Simulated
from simulators.modbus_server import RegisterImage
from simulators.pty_line import PtyLine
from tests.polling import modbus, polling
from tests.tools import until

ROOT = Path(__file__).parents[2]
SIZE = 400
TAGS = {f"r{i}": {"reg": i} for i in range(0, SIZE, 7)} | {
    "in": {"reg": 33, "table": "input"},
    "even": {"reg": 20, "table": "coil"},
    "odd": {"reg": 21, "table": "discrete"},
    "pair": {"reg": 10, "as": "uint32"},
}
WANT = [*range(0, SIZE, 7), 33, 0, 1, 10 << 16 | 11]


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


@contextmanager
def libmodbus() -> Iterator[str]:
    with LibmodbusServer(SIZE, numbered=True) as server:
        yield server.url


@contextmanager
def pymodbustcp() -> Iterator[str]:
    bank = DataBank(h_regs_size=SIZE, i_regs_size=SIZE, coils_size=SIZE, d_inputs_size=SIZE)
    bank.set_holding_registers(0, list(range(SIZE)))
    bank.set_input_registers(0, list(range(SIZE)))
    bank.set_coils(0, [bool(i & 1) for i in range(SIZE)])
    bank.set_discrete_inputs(0, [bool(i & 1) for i in range(SIZE)])
    server = ModbusServer("127.0.0.1", 0, no_block=True, data_bank=bank)
    server.start()
    try:
        yield f"tcp://127.0.0.1:{server._service.server_address[1]}"
    finally:
        server.stop()


@contextmanager
def modbus_tk() -> Iterator[str]:
    port = free_port()  # its thread opens it later; the agent tries until it has
    server = modbus_tcp.TcpServer(port=port, address="127.0.0.1", timeout_in_sec=1)
    server.start()
    slave = server.add_slave(1)
    for name, kind in (("h", defines.HOLDING_REGISTERS), ("i", defines.ANALOG_INPUTS)):
        slave.add_block(name, kind, 0, SIZE)
        slave.set_values(name, 0, list(range(SIZE)))
    for name, kind in (("c", defines.COILS), ("d", defines.DISCRETE_INPUTS)):
        slave.add_block(name, kind, 0, SIZE)
        slave.set_values(name, 0, [i & 1 for i in range(SIZE)])
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        open_now = [server._sock, *server._sockets]
        server.stop()
        for sock in open_now:  # it leaves them to the garbage collector
            sock.close()


@contextmanager
def pymodbus_simulator() -> Iterator[str]:
    """pymodbus' own simulated device, in a loop and thread of its own."""
    numbers = SimData(0, values=list(range(SIZE)), datatype=DataType.REGISTERS)
    bits = SimData(0, values=[bool(i & 1) for i in range(SIZE)], datatype=DataType.BITS)
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found: list[ModbusTcpServer] = []

    async def serve() -> None:
        device = SimDevice(1, simdata=([bits], [bits], [numbers], [numbers]))
        found.append(ModbusTcpServer(device, address=("127.0.0.1", 0)))
        await found[0].serve_forever(background=True)
        ready.set()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    try:
        yield f"tcp://127.0.0.1:{found[0].transport.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(found[0].shutdown(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def libmodbus_rtu() -> Iterator[str]:
    with PtyLine() as line, LibmodbusServer(SIZE, line=line.theirs):
        yield f"rtu://{line.ours}"


@contextmanager
def node(package: str) -> Iterator[str]:
    """A server in JavaScript; `make setup` fetches it where npm is."""
    modules = ROOT / "build" / "peers" / "node_modules"
    if not (modules / package).is_dir():
        pytest.skip("apt-get install nodejs npm, then make setup")
    port = free_port()
    command = ["node", str(ROOT / "simulators" / "node_server.js"), package, str(SIZE), str(port)]
    env = {**os.environ, "NODE_PATH": str(modules)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield f"tcp://127.0.0.1:{port}"
        finally:
            process.kill()


def jsmodbus():
    return node("jsmodbus")


def modbus_serial():
    return node("modbus-serial")


NEED_GCC = pytest.mark.needs("gcc")
NEED_NODE = pytest.mark.needs("node")
PEERS = [
    pytest.param(libmodbus, marks=NEED_GCC),
    pytest.param(libmodbus_rtu, marks=NEED_GCC),
    pymodbustcp,
    modbus_tk,
    pymodbus_simulator,
    pytest.param(jsmodbus, marks=NEED_NODE),
    pytest.param(modbus_serial, marks=NEED_NODE),
]


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.__name__)
@pytest.mark.filterwarnings("ignore:isSet:DeprecationWarning")  # modbus_tk's own affair
async def test_every_register_is_right(ctx, peer):
    """All tables, spread over several requests, as the peer has them."""
    with peer() as url:
        serial = {"serial": {"parity": "none", "baud": 115200}} if url.startswith("rtu") else {}
        config = modbus(url, TAGS, poll="100ms", timeout="1s", max_registers=60, **serial)
        async with polling(config.build("d", ctx)) as rows:
            await until(lambda: len(rows.good()) >= 3, within_s=10)
        assert all(b.v[0].tolist() == WANT for b in rows.good())


@pytest.mark.needs("mbpoll")
async def test_an_independent_client_reads_the_simulator_alike(ctx):
    """mbpoll sees in our simulated device what the agent sees: nobody's off-by-one is hidden."""
    image = RegisterImage()
    image.holding[:] = np.arange(len(image.holding))
    async with Simulated({1: image}) as server:
        command = f"mbpoll -m tcp -p {server.port} -a 1 -0 -r 100 -c 20 -t 4 -1 -q 127.0.0.1"
        process = await asyncio.create_subprocess_exec(
            *command.split(), stdout=asyncio.subprocess.PIPE
        )
        told = (await asyncio.wait_for(process.communicate(), 10))[0].decode()
        tags = {f"r{i}": {"reg": i} for i in range(100, 120)}
        async with polling(modbus(server.url, tags).build("d", ctx)) as rows:
            await until(rows.good)
    seen = [int(value) for value in re.findall(r"^\[\d+\]:\s+(\d+)", told, re.MULTILINE)]
    assert seen == rows.good()[0].v[0].tolist() == list(range(100, 120))


@pytest.mark.needs("gcc")
async def test_a_register_beyond_the_end_spoils_nothing(ctx):
    """libmodbus refuses what it does not have: that tag alone is Bad."""
    with libmodbus() as url:
        tags = {"last": {"reg": SIZE - 1}, "beyond": {"reg": SIZE}}
        async with polling(modbus(url, tags).build("d", ctx)) as rows:
            await until(lambda: len(rows) >= 3)
        want = [Quality.GOOD, Quality.BAD_CONFIG]
        assert all(b.q[0].tolist() == want for b in rows)


@pytest.mark.needs("gcc")
async def test_the_loss_of_the_link_is_seen_at_once(ctx):
    """Where the socket tells, a lost device costs no timeout: under 50 ms in the median."""
    loop, waits = asyncio.get_running_loop(), []
    for _ in range(5):
        with LibmodbusServer(SIZE, numbered=True) as server:
            source = modbus(server.url, {"a": {"reg": 0}}, poll="5ms", timeout="3s").build("d", ctx)
            async with polling(source) as rows:
                await until(lambda rows=rows: len(rows.good()) >= 3)
                began = loop.time()
                server.kill()
                await until(lambda rows=rows: rows.last_q() == Quality.BAD_NOT_CONNECTED)
                waits.append(loop.time() - began)
    assert np.median(waits) < 0.05
