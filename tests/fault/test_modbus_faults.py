"""Modbus devices that are wrong, slow, silent or gone: Bad rows, never wrong values."""

import time
from dataclasses import replace

import numpy as np
import pytest

from agent.config.base import Context
from agent.config.journal import JournalConfig
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.storage.db import open_store
from simulators.modbus_server import FaultyServer, ModbusServer, RegisterImage
from tests.polling import modbus, polling
from tests.tools import until


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


@pytest.mark.parametrize("mode", ["late", "split"])
async def test_a_late_answer_is_dropped_and_the_connection_kept(ctx, mode):
    """What comes after its timeout belongs to no later scan, even when it comes in halves."""
    async with FaultyServer(delay_s=0.035) as server:
        server.delay_s = 0.06 if mode == "late" else 0.035
        source = modbus(server.url, timeout="50ms").build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            for _ in range(5):
                seen = len(rows) - len(rows.good())
                server.once.append(mode)
                await until(lambda seen=seen: len(rows) - len(rows.good()) > seen)
                good = len(rows.good())
                await until(lambda good=good: len(rows.good()) > good + 3)
            assert rows.values() == {float(0x1111)}
            assert server.connections == 1


async def test_an_answer_that_does_not_fit_ends_the_connection(ctx):
    """After a misfit nothing more is believed that comes over the same connection."""
    async with FaultyServer() as server:
        source = modbus(server.url).build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            server.once.append("short")
            await until(lambda: server.connections == 2)
            await until(lambda: rows.last_q() == Quality.GOOD)


async def test_a_lost_connection_is_seen_at_once(ctx):
    """A device that closes costs no timeout: the row says so immediately."""
    async with FaultyServer() as server:
        source = modbus(server.url, timeout="30s").build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            server.mode = "close"
            await until(lambda: rows.last_q() == Quality.BAD_NOT_CONNECTED, within_s=1)


async def test_a_silent_device_is_connected_to_again(ctx):
    """A connection over which nothing comes may be half open: after two timeouts it is new."""
    async with FaultyServer() as server:
        source = modbus(server.url, timeout="30ms").build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            server.mode = "never"
            await until(lambda: server.connections >= 2)
            await until(lambda: not source.facts()["connected"])


async def test_gone_and_back(ctx):
    """A lost device gives Bad rows at its period, at once, and good ones when it is back."""
    server = ModbusServer({1: RegisterImage()})
    async with server:
        source = modbus(server.url).build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            await server.__aexit__()
            await until(lambda: rows.last_q() == Quality.BAD_NOT_CONNECTED, within_s=1)
            seen = len(rows)
            await until(lambda: len(rows) > seen + 20, within_s=1)
            facts = source.facts()
            assert not facts["connected"]
            assert facts["last_error"]
            assert np.isnan(rows.last().v).all()
            await server.__aenter__()
            await until(lambda: rows.last_q() == Quality.GOOD, within_s=10)
            assert source.facts()["last_error"] == ""
    assert ctx.stats.values["source/d.bad_samples"] == len(rows) - len(rows.good())


async def test_a_dead_device_does_not_slow_another(ctx):
    """A neighbour keeps its period while another device takes connections and never answers."""
    async with ModbusServer({1: RegisterImage()}) as server, FaultyServer("never") as dead:
        sources = modbus(server.url).build("d", ctx), modbus(dead.url).build("dead", ctx)
        async with polling(*sources) as rows:
            await until(lambda: len(rows.good()) >= 60, within_s=10)
            times = np.array([b.t[0] for b in rows.good()[:60]])
            assert np.median(np.diff(times)) < 20e6
            await until(lambda: rows.last("dead") is not None)
            assert not rows.values("dead")


async def time_of_good_rows(rows, count):
    """Seconds until *count* more good rows have come."""
    began, wanted = time.monotonic(), len(rows.good()) + count
    await until(lambda: len(rows.good()) >= wanted, within_s=30)
    return time.monotonic() - began


@pytest.mark.parametrize("mode", ["never", "short"])
async def test_a_bad_unit_behind_a_gateway_costs_its_neighbour_little(ctx, mode):
    """A unit that does not answer, or not right, is asked ever less often."""
    async with FaultyServer() as gateway:
        gateway.rule = lambda unit, _: mode if unit == 2 else None
        alive = modbus(gateway.url, unit=1).build("d", ctx)
        bad = modbus(gateway.url, unit=2, timeout="100ms").build("bad", ctx)
        async with polling(alive) as rows:
            await until(rows.good)
            alone_s = await time_of_good_rows(rows, 150)
        async with polling(alive, bad) as rows:
            await until(lambda: rows.good() and rows.last("bad") is not None)
            assert await time_of_good_rows(rows, 150) < 2.5 * alone_s
            assert not rows.values("bad")
            if mode == "never":
                assert gateway.connections == 2


async def test_a_lying_unit_that_is_asked_first_keeps_no_neighbour_out(ctx):
    """Before anybody has answered: the unit that answers wrongly is spared sooner than the new
    connections to the gateway are.
    """
    async with FaultyServer() as gateway:
        gateway.rule = lambda unit, _: "short" if unit == 2 else None
        alive = modbus(gateway.url, unit=1, poll="200ms").build("d", ctx)
        bad = modbus(gateway.url, unit=2, timeout="100ms", poll="5ms").build("bad", ctx)
        async with polling(bad, alive) as rows:
            await until(rows.good)
            assert not rows.values("bad")


async def test_a_refused_block_spoils_only_its_own_tags(ctx):
    """Exception 2 for one request leaves the others good, and the status names it."""
    tags = {"ok": {"reg": 0}, "gone": {"reg": 5000}}
    async with ModbusServer({1: RegisterImage()}) as server:
        source = modbus(server.url, tags).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(rows) >= 3)
            assert {tuple(b.q[0].tolist()) for b in rows} == {(Quality.GOOD, Quality.BAD_CONFIG)}
            assert "wire 5000: 2 illegal data address" in source.facts()["last_error"]
            assert source.facts()["connected"]


async def test_registers_that_nobody_asked_for_may_be_missing(ctx):
    """A device without the registers between two tags is read in two requests instead of one."""
    image = RegisterImage()
    image.holding[:] = np.arange(2000)
    image.hole = range(11, 19)
    async with ModbusServer({1: image}) as server:
        source = modbus(server.url, {"a": {"reg": 10}, "b": {"reg": 19}}).build("d", ctx)
        assert source.facts()["requests"] == 1
        async with polling(source) as rows:
            await until(lambda: len(rows.good()) > 3)
            assert rows.last().v.tolist() == [[10.0, 19.0]]
            assert source.facts()["requests"] == 2
            assert source.facts()["last_error"] == ""


async def test_only_the_guilty_are_quarantined(ctx, tmp_path):
    """One refused register among sixty: from the first row on the others are good; the device is
    not asked for it again with them, also not after a restart, until it is tried again.
    """
    image = RegisterImage()
    image.hole = range(30, 31)
    tags = {f"t{reg}": {"reg": reg} for reg in range(60)}
    want = [Quality.BAD_CONFIG if reg == 30 else Quality.GOOD for reg in range(60)]
    async with open_store(
        tmp_path, JournalConfig.model_validate({}), ctx.clock, ctx.stats, "m"
    ) as store:
        ctx = replace(ctx, state=store.state)
        async with ModbusServer({1: image}) as server:
            source = modbus(server.url, tags).build("d", ctx)
            async with polling(source) as rows:
                await until(lambda: len(rows) >= 3)
            assert all(b.q[0].tolist() == want for b in rows)
            assert source.facts()["requests"] == 2
            assert "t30 30 -> holding, wire 30: 2 illegal" in source.facts()["last_error"]
            again = modbus(server.url, tags).build("d", ctx)
            assert again.facts()["requests"] == 2
            image.hole = range(0)
            again._holes._try_at_s = 0.0
            async with polling(again) as rows:
                await until(lambda: len(rows.good()) >= 3)
            assert again.facts()["requests"] == 1
            assert store.state.items("hole") == {}


async def test_a_value_whose_scale_factor_is_refused_is_bad(ctx):
    """Without its power of ten a number means nothing: it is never given out unscaled."""
    image = RegisterImage()
    image.holding[:] = 7
    image.hole = range(5, 6)
    tags = {"w": {"reg": 0, "scale_by": "sf"}, "sf": {"reg": 5, "as": "int16"}, "n": {"reg": 9}}
    async with ModbusServer({1: image}) as server:
        source = modbus(server.url, tags).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(rows) >= 3)
    assert rows.values() == set()
    want = [Quality.BAD_CONFIG, Quality.BAD_CONFIG, Quality.GOOD]
    assert all(b.q[0].tolist() == want for b in rows)


async def test_a_device_that_fails_is_not_taken_apart(ctx):
    """Device failure for everything is no quarantine: when it works again all tags are good."""
    async with FaultyServer() as server:
        tags = {f"t{reg}": {"reg": reg} for reg in range(20)}
        source = modbus(server.url, tags).build("d", ctx)
        async with polling(source) as rows:
            await until(rows.good)
            server.mode = "exception"
            await until(lambda: len([b for b in rows if b.q[0, 0] == Quality.BAD_DEVICE]) > 5)
            server.mode = "ok"
            seen = len(rows.good())
            await until(lambda: len(rows.good()) > seen + 5)
            assert source.facts()["requests"] == 1


async def test_a_block_without_answer_does_not_hide_the_others(ctx):
    """A device that keeps silent about some registers still gives the rest."""
    async with FaultyServer() as server:
        server.rule = lambda _, first: "never" if first == 0 else None
        tags = {f"t{reg}": {"reg": reg} for reg in (0, 300, 600)}
        source = modbus(server.url, tags, timeout="50ms").build("d", ctx)
        want = [Quality.BAD_COMM, Quality.GOOD, Quality.GOOD]
        async with polling(source) as rows:
            await until(lambda: sum(b.q[0].tolist() == want for b in rows) > 5)
            assert server.connections == 1
            assert source.facts()["connected"]
            assert "no answer to function 3, registers 0 to 0" in source.facts()["last_error"]


async def test_a_name_nobody_knows_stops_nothing(ctx):
    """A host that cannot be looked up is a Bad row and a clear error."""
    source = modbus("tcp://no-such-host.invalid:502", timeout="300ms").build("d", ctx)
    async with polling(source) as rows:
        await until(lambda: "no-such-host.invalid" in source.facts()["last_error"], within_s=10)
        assert rows.last_q() == Quality.BAD_NOT_CONNECTED
