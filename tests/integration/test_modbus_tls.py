"""Modbus/TCP Security: the same frames inside TLS, with certificates on both sides."""

import pytest

from agent.config.base import Context
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from simulators.modbus_server import ModbusServer, RegisterImage
from simulators.proxy import Proxy
from tests.certificates import Authority
from tests.polling import modbus, polling
from tests.tools import until


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


async def test_a_device_behind_mutual_tls(ctx, tmp_path):
    """Both prove who they are, and many registers come through."""
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("gateway")
    tags = {f"t{reg}": {"reg": reg} for reg in range(0, 2000, 10)}
    async with (
        ModbusServer({1: RegisterImage()}) as server,
        Proxy(server.port, authority.server()) as proxy,
    ):
        url = f"tls://127.0.0.1:{proxy.port}"
        config = modbus(url, tags, poll="50ms", ca=authority.ca, cert=cert, key=key)
        async with polling(config.build("d", ctx)) as rows:
            await until(lambda: len(rows.good()) >= 5)


async def test_who_cannot_prove_it_is_not_read(ctx, tmp_path):
    """A device of another authority, or one that does not know us, gives a clear error."""
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    cert, key = authority.issue("gateway")
    async with (
        ModbusServer({1: RegisterImage()}) as server,
        Proxy(server.port, authority.server()) as proxy,
    ):
        url = f"tls://127.0.0.1:{proxy.port}"
        stranger = modbus(url, ca=other.ca, cert=cert, key=key).build("stranger", ctx)
        nobody = modbus(url, ca=authority.ca).build("nobody", ctx)
        async with polling(stranger, nobody) as rows:
            await until(lambda: "certificate" in stranger.facts()["last_error"])
            await until(lambda: len(rows.of("nobody")) >= 5)
        assert not rows.good("stranger")
        assert not rows.good("nobody")


async def test_missing_files_are_named(ctx, tmp_path):
    """A path that is wrong is in the error, and polling goes on trying."""
    source = modbus("tls://127.0.0.1:1", ca=str(tmp_path / "none.crt")).build("d", ctx)
    async with polling(source):
        await until(lambda: "none.crt" in source.facts()["last_error"])
