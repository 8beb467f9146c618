"""What a device takes to answer is measured, and becomes part of the plan."""

from dataclasses import replace
from math import nan

import pytest

from agent.config.base import Context
from agent.config.journal import JournalConfig
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.sources.modbus_latency import LEAST_S, MOST_S, PAUSE_S, SCANS, Latency
from agent.storage.db import open_store
from agent.storage.peek import kept
from simulators.modbus_server import RegisterImage
from simulators.rtu_device import RtuDevice
from tests.polling import modbus, polling
from tests.tools import ManualClock, until


def test_a_plan_is_made_anew_on_change_only():
    """By the median of `SCANS` complete scans, when it is another by half, once in `PAUSE_S` at
    most, and within bounds.
    """
    clock = ManualClock()
    latency = Latency("d", modbus("tcp://127.0.0.1:1", latency="10ms"), None, clock)

    def scans(seconds, requests=2):
        return [latency.took(requests * seconds + 0.1, 0.1, requests) for _ in range(SCANS)]

    assert latency.planned_s == 0.010
    assert not any(scans(0.012))
    assert (latency.planned_s, latency.version) == (0.010, 0)
    assert latency.measured_s == pytest.approx(0.012)
    assert scans(0.1) == [False] * (SCANS - 1) + [True]
    assert (latency.planned_s, latency.version) == (pytest.approx(0.1), 1)
    assert not any(scans(0.4))
    clock.advance(PAUSE_S)
    assert any(scans(600.0))
    assert latency.planned_s == MOST_S
    clock.advance(PAUSE_S)
    assert any(scans(-0.001))
    assert (latency.planned_s, latency.measured_s) == (LEAST_S, 0.0)
    assert not any(latency.took(nan, 0.1, 1) for _ in range(2 * SCANS))


async def test_a_slow_device_on_a_fast_line_gets_fewer_requests(tmp_path):
    """Two registers with a hundred between them: two requests while the device is thought to be
    quick, one when it was measured; the rows stay good, and the next start begins with that.
    """
    ctx = Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)
    image = RegisterImage()
    async with (
        open_store(tmp_path, JournalConfig.model_validate({}), ctx.clock, ctx.stats, "m") as store,
        RtuDevice({1: image}) as device,
    ):
        ctx = replace(ctx, state=store.state)
        device.slow_s = 0.025
        config = modbus(device.url, {"a": {"reg": 0}, "b": {"reg": 100}}, latency="1ms",
                        timeout="1s", serial={"parity": "none", "baud": 115200})  # fmt: skip
        source = config.build("d", ctx)
        assert source.facts()["requests"] == 2
        assert "registers 0 to 0" in source.origin("a")["request"]
        async with polling(source) as rows:
            await until(lambda: source.facts()["requests"] == 1, within_s=20)
            seen = len(rows)
            await until(lambda: len(rows) >= seen + 3)
        assert len(rows.good()) == len(rows)
        told = source.origin("b")
        assert "registers 0 to 100" in told["request"]
        assert told["latency_ms"] == source.facts()["latency_ms"]
        assert 20 < told["latency_ms"] < 200
        again = config.build("d", ctx)
        assert again.facts()["requests"] == 1
        await until(lambda: kept(tmp_path, "latency"))
    (seconds,) = kept(tmp_path, "latency").values()
    assert 0.02 < seconds < 0.2
    assert kept(tmp_path / "nowhere", "latency") == {}
