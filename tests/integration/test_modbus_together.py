"""Scan classes that are due at once are read at once: fewer requests, the same rows."""

from itertools import pairwise

import numpy as np
import pytest

from agent.config.base import Context
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.runtime.clock import SystemClock
from agent.sources.modbus_cost import scan_seconds
from agent.sources.modbus_plan import Span
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.planning import cheapest
from tests.polling import modbus, polling
from tests.tools import until

WEIGHT = 10.0
"""What a request weighs in registers, with the latency below (100 Mbit/s: 0.2 us a register)."""

LIMIT = 30


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


class Device(RegisterImage):
    """Every register holds its own address; what was asked is noted."""

    def __init__(self):
        super().__init__()
        self.holding[:] = np.arange(self.size)
        self.asked = []
        self.on_read = lambda _fc, first, count: self.asked.append(Span(first, count))


class Noted:
    """A source, and how many requests had been made when it gave which streams' rows."""

    def __init__(self, source, asked):
        self._source, self._asked, self.cycles = source, asked, {}

    async def run(self, emit):
        def noted(batch):
            upto = len(self._asked)
            self.cycles[upto] = (*self.cycles.get(upto, ()), batch.stream)
            emit(batch)

        await self._source.run(noted)


def two_classes(url, fast, slow, **more):
    tags = {f"f{s.first}": {"reg": s.first, "as": f"uint{16 * s.count}"} for s in fast}
    tags |= {
        f"s{s.first}": {"reg": s.first, "as": f"uint{16 * s.count}", "class": "slow"} for s in slow
    }
    return modbus(url, tags, poll="20ms", classes={"slow": "100ms"}, max_registers=LIMIT,
                  latency="2us", **more)  # fmt: skip


def cost(spans):
    return sum(WEIGHT + s.count for s in spans)


@pytest.mark.parametrize("number", range(2))
async def test_requests_equal_the_optimum_and_rows_are_those_of_each_class(ctx, rng, number):
    """When the slow class is due with the fast one, the requests cost what the cheapest way to
    read both costs; in between, what the fast one alone costs. Every class keeps its tags, its
    values and its period.
    """
    del number
    firsts = sorted(rng.sample(range(0, 80, 4), 6))
    spans = [Span(f, rng.choice([1, 2])) for f in firsts]
    fast = sorted(rng.sample(spans, 3))
    slow = [s for s in spans if s not in fast]
    device = Device()
    async with ModbusServer({1: device}) as server:
        source = Noted(two_classes(server.url, fast, slow).build("d", ctx), device.asked)
        async with polling(source) as rows:
            await until(lambda: len(rows.of("d~slow")) >= 3)
    optimum = {
        ("d",): cheapest(fast, LIMIT, WEIGHT),
        ("d", "d~slow"): cheapest(spans, LIMIT, WEIGHT),
    }
    assert set(source.cycles.values()) == set(optimum)
    asked_before = 0
    for upto, streams in source.cycles.items():
        assert cost(device.asked[asked_before:upto]) == optimum[streams]
        asked_before = upto
    for stream, wanted, period_s in (("d", fast, 0.02), ("d~slow", slow, 0.1)):
        got = rows.of(stream)
        assert all((b.q == Quality.GOOD).all() for b in got)
        want = [
            sum((s.first + i) << 16 * (s.count - 1 - i) for i in range(s.count)) for s in wanted
        ]
        assert all(b.v[0].tolist() == want for b in got)
        apart = [(int(b.t[0]) - int(a.t[0])) / 1e9 for a, b in pairwise(got)]
        assert np.median(apart) == pytest.approx(period_s, rel=0.4)


def test_a_period_that_does_not_fit_is_planned_alone():
    """Who is due together is known from the periods, and so is what a slow class adds."""
    tags = {
        "a": {"reg": 0},
        "b": {"reg": 1, "class": "slow"},
        "c": {"reg": 2, "class": "odd"},
        "e": {"reg": 3, "class": "same"},
    }
    classes = {"slow": "5s", "odd": "2500ms", "same": "1s"}
    config = modbus("tcp://127.0.0.1:1", tags, poll="1s", classes=classes)
    assert config.company(None) == [None]
    assert config.company("same") == [None, "same"]
    assert config.company("odd") == ["odd"]
    assert config.company("slow") == [None, "odd", "same", "slow"]
    request_s = scan_seconds(config.cost(), config._reads([None], config.cost()))
    fast, slow, odd, same = config.loads()
    assert (fast.need_s, odd.need_s) == (request_s, request_s)
    assert max(slow.need_s, same.need_s) < request_s / 100
    assert "registers 0 to 3" in config.origin("b")["request"]
    assert "registers 0 to 0 " in config.origin("a")["request"]


async def test_a_register_that_only_the_slow_class_has_spoils_nothing(ctx):
    """What the device refuses in the common request is found, and the others stay good."""
    device = Device()
    device.hole = range(12, 14)
    async with ModbusServer({1: device}) as server:
        fast, slow = [Span(8, 1), Span(16, 1)], [Span(10, 1), Span(12, 1)]
        source = two_classes(server.url, fast, slow).build("d", ctx)
        async with polling(source) as rows:
            await until(lambda: len(rows.of("d~slow")) >= 3 and len(rows.of()) >= 10)
        assert all((b.q == Quality.GOOD).all() for b in rows.of())
        assert [b.q[0].tolist() for b in rows.of("d~slow")] == [
            [Quality.GOOD, Quality.BAD_CONFIG]
        ] * len(rows.of("d~slow"))
        assert "wire 12" in source.facts()["last_error"]
