"""Turns on a line."""

import asyncio
from contextlib import suppress

from agent.links.turns import URGENT_IN_A_ROW, Priority, Turns


class Line:
    """A line that notes who had it, and holds everybody until `go`."""

    def __init__(self):
        self.turns, self.order, self.inside, self.gate = Turns(), [], 0, asyncio.Event()

    async def use(self, name, priority):
        async with self.turns.taken(priority):
            self.inside += 1
            assert self.inside == 1
            await self.gate.wait()
            self.order.append(name)
            self.inside -= 1

    def start(self, *names):
        kinds = {"w": Priority.WRITE, "d": Priority.DEMAND, "s": Priority.SCAN}
        return [asyncio.ensure_future(self.use(n, kinds[n[0]])) for n in names]


async def test_writes_go_before_demand_reads_before_scans():
    """Who waits is served by priority, then by arrival; who has the line keeps it."""
    line = Line()
    tasks = line.start("s0", "s1", "d1", "w1", "d2", "w2", "s2")
    await asyncio.sleep(0)
    line.gate.set()
    await asyncio.gather(*tasks)
    assert line.order == ["s0", "w1", "w2", "d1", "d2", "s1", "s2"]


async def test_a_scan_is_not_starved():
    """While a scan waits, only so many urgent requests go before it."""
    line = Line()
    tasks = line.start("s0", "s1", *(f"w{i}" for i in range(10)))
    await asyncio.sleep(0)
    line.gate.set()
    await asyncio.gather(*tasks)
    assert line.order.index("s1") == 1 + URGENT_IN_A_ROW


async def test_a_scan_steps_back_and_goes_on_before_other_scans():
    """Between two requests a scan gives way to who is more urgent, not to another scan; after
    `URGENT_IN_A_ROW` of them it goes on, pressed or not.
    """
    turns, order = Turns(), []

    async def urgent(name):
        async with turns.taken(Priority.WRITE):
            order.append(name)

    async def other():
        async with turns.taken(Priority.SCAN):
            order.append("other")

    async with turns.taken(Priority.SCAN) as turn:
        assert not turns.pressed()
        tasks = [asyncio.ensure_future(c) for c in (other(), *(urgent(f"w{i}") for i in range(6)))]
        await asyncio.sleep(0)
        assert turns.pressed()
        await turn.step_back()
        order.append("again")
        assert turns.pressed()
        await turn.step_back()
    await asyncio.gather(*tasks)
    assert order == ["w0", "w1", "w2", "w3", "again", "w4", "w5", "other"]


async def test_a_scan_that_is_cancelled_while_it_stands_back_holds_nobody_up():
    """It does not have the turn then, and does not give it on a second time."""
    turns, gate = Turns(), asyncio.Event()

    async def urgent():
        async with turns.taken(Priority.WRITE):
            await gate.wait()

    async def scan():
        async with turns.taken(Priority.SCAN) as turn:
            write = asyncio.ensure_future(urgent())
            await asyncio.sleep(0)
            try:
                await turn.step_back()
            finally:
                gate.set()
                assert turns._busy
                await write

    task = asyncio.ensure_future(scan())
    for _ in range(4):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    async with asyncio.timeout(1), turns.taken(Priority.SCAN):
        pass


async def test_who_leaves_holds_nobody_up():
    """A cancelled waiter is passed over, even when the turn was just given to it."""
    for when in ("waiting", "given"):
        line = Line()
        line.gate.set()
        async with line.turns.taken(Priority.SCAN):
            gone, last = line.start("s1", "s2")
            await asyncio.sleep(0)
            if when == "waiting":
                gone.cancel()
                await asyncio.sleep(0)
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        await asyncio.wait_for(last, 1)
        assert line.order == ["s2"]
        async with line.turns.taken(Priority.SCAN):
            pass
