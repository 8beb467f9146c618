"""The uplink over a real journal: lanes, order, acknowledgements, births; the far end is ours."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest

from agent.config.journal import JournalConfig
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch
from agent.core.errors import TransientError
from agent.core.ports import Rejected
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.budget import Budget
from agent.runtime.thin import Thin
from agent.runtime.uplink import LIVE_BOUND, Uplink
from agent.storage.db import open_store
from tests.tools import ManualClock, until

TAGS = TagSet((Tag("p/a", "bar", 0, 10),))


class FarEnd:
    """A sink whose acknowledgements are given by hand (port `Sink`).

    Attributes:
        got: (lane, stream, first, last) in the order of arrival, births as ("birth", hi).
        hold: Keep every acknowledgement until `answer`.
    """

    def __init__(self, window=10):
        self.window, self.hold, self.got = window, False, []
        self.rejects, self.status, self.lists, self.facts = set(), [], [], []
        self.waiting, self.carried = [], 0

    async def __aenter__(self):
        self.cut = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(self, *exc):
        self.waiting.clear()

    async def announce(self, stream, tags):
        self.got.append(("birth", stream, tags.hi[0]))

    async def send(self, stored):
        self.got.append((stored.lane.value, stored.stream, stored.first, stored.last))
        if self.hold:
            self.waiting.append(answer := asyncio.get_running_loop().create_future())
            await answer
        if stored.first in self.rejects:
            return Rejected(stored, "too large")
        return None

    def answer(self):
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting.clear()

    async def publish_status(self, facts):
        self.status.append(dict(facts))

    async def publish_alarms(self, active):
        self.lists.append(list(active))

    where = "the far end"

    async def publish_facts(self, topic, facts):
        self.facts.append((topic, facts))

    def traffic(self):
        return self.carried

    async def lost(self):
        await self.cut
        raise TransientError("connection lost")

    def rows(self, lane):
        return [(first, last) for kind, _, first, last in self.data() if kind == lane]

    def data(self):
        return [g for g in self.got if g[0] != "birth"]


class Bench:
    """One uplink, its journal and its far end."""

    def __init__(self, store, thin, folder, **more):
        self.journal, self.far, self.folder = store.journal, FarEnd(), folder
        self.clock, self.stats = ManualClock(), Stats()
        self.facts, self.active, self.t = {"durable": True}, [], 0
        self.uplink = Uplink(
            "out", lambda: self.far, store.journal, self.clock, self.stats,
            thin=Thin() if thin else None, history_rate=10.0,
            facts=lambda: dict(self.facts), alarms=lambda: self.active, **more,
        )  # fmt: skip

    def put(self, value=1.0, tags=TAGS, n=1, *, late=False):
        self.t += 1
        batch = Batch(
            "p", tags, np.arange(self.t, self.t + n) * 10**9,
            np.full((n, 1), float(value)), np.full((n, 1), 192, np.uint8),
            late=np.full(n, True) if late else None,
        )  # fmt: skip
        self.t += n - 1
        self.uplink.offer(self.journal.put(batch))

    def alarm(self, active=True, durable=True):
        event = AlarmEvent("hot", "p/a", "p", self.t, active, 1, 1.0, 1.0, 192)

        def leave():
            self.uplink.offer(stored if durable else replace(stored, durable=False))

        stored = self.journal.put(event, on_durable=leave if durable else None)
        if not durable:
            leave()

    @asynccontextmanager
    async def connected(self):
        task = asyncio.create_task(self.uplink.run())
        try:
            await until(lambda: self.uplink.connected or task.done())
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, TransientError):
                await task

    async def caught_up(self):
        await until(lambda: self.uplink.depth() == 0)


@asynccontextmanager
async def bench(folder, *, thin=False, **more):
    config = JournalConfig.model_validate({"commit": "1h"})
    async with open_store(folder, config, ManualClock(), Stats(), "m") as store:
        yield Bench(store, thin, folder, **more)


async def test_live_rows_do_not_wait_for_their_commit(tmp_path):
    """With a commit an hour away a row is sent at once, and owed until it is acknowledged."""
    async with bench(tmp_path) as b, b.connected():
        await until(lambda: b.far.status)
        b.far.hold = True
        b.put()
        await until(lambda: b.far.rows("live") == [(1, 1)])
        assert b.uplink.depth() == 1
        b.far.answer()
        await b.caught_up()
        b.put()
        assert b.far.rows("history") == []


async def test_the_birth_comes_first_and_again_when_a_range_changes(tmp_path):
    """Birth before the first row of a connection, and before the first row with other limits."""
    async with bench(tmp_path) as b:
        for _ in range(2):
            async with b.connected():
                b.put()
                b.put()
                b.put(tags=TagSet((Tag("p/a", "bar", 0, 20),)))
                await b.caught_up()
            live = [g[:1] + g[2:3] for g in b.far.got]
            assert live[0] == ("birth", 10)
            assert ("birth", 20) in live
            assert live.count(("birth", 20)) == 1
            assert live.index(("birth", 20)) == len(live) - 2
            b.far.got.clear()


async def test_nothing_is_delivered_before_it_is_acknowledged(tmp_path):
    """Rows under way when the connection ends are owed, and follow as history."""
    async with bench(tmp_path) as b:
        async with b.connected() as task:
            b.far.hold = True
            b.put()
            b.put()
            await until(lambda: len(b.far.rows("live")) == 2)
            b.far.cut.set_result(None)
            with pytest.raises(TransientError):
                await task
        assert b.uplink.depth() == 2
        b.far.hold = False
        async with b.connected():
            await b.caught_up()
        assert b.far.rows("history") == [(1, 2)]


async def test_what_was_missed_comes_in_order_beside_live_rows(tmp_path):
    """After an outage live rows go at once; history of the stream is complete and in order."""
    async with bench(tmp_path) as b:
        b.journal.outbox("out")
        for _ in range(1500):
            b.put()
        await b.journal.flush()
        async with b.connected():
            b.uplink.finish()
            b.put()
            await b.caught_up()
        assert b.far.rows("live") == [(1501, 1501)]
        history = b.far.rows("history")
        assert [f for f, _ in history] == [1, *(last + 1 for _, last in history[:-1])]
        assert history[-1][1] == 1500


@pytest.mark.parametrize("thin", [False, True])
async def test_late_rows_go_as_history(tmp_path, thin):
    """The live lane never steps back in time; a message that covers rows held back by the report
    filter never covers a late one that nobody has sent.
    """
    async with bench(tmp_path, thin=thin) as b, b.connected():
        b.put()
        b.put()
        b.put(late=True)
        b.put()
        b.uplink.finish()
        await b.caught_up()
        sent = [n for first, last in b.far.rows("history") for n in range(first, last + 1)]
        assert sent == ([2, 3] if thin else [3])
        assert (4, 4) in b.far.rows("live")


async def test_alarms_overtake_rows_but_never_each_other(tmp_path):
    """Alarms missed go before alarms of now: "cleared" is never followed by an old "raised"."""
    async with bench(tmp_path) as b:
        b.alarm(True)
        await b.journal.flush()
        async with b.connected():
            b.far.hold = True
            b.alarm(False)
            b.alarm(True)
            b.put()
            await until(lambda: b.far.rows("alarm") and b.far.rows("live"))
            b.alarm(False)
            await b.journal.flush()
            b.far.hold = False
            b.far.answer()
            await b.caught_up()
            assert b.far.rows("alarm") == [(1, 1), (2, 2), (3, 3), (4, 4)]
            b.alarm(True)
            await b.caught_up()
        assert b.far.rows("alarm")[-1] == (5, 5)


async def test_an_alarm_that_is_not_on_disk_goes_at_once(tmp_path):
    """While the disk refuses, an alarm cannot be read back: it does not wait for its turn."""
    async with bench(tmp_path) as b, b.connected():
        b.alarm(durable=False)
        await until(lambda: b.far.rows("alarm") == [(1, 1)])


async def test_alarms_go_before_waiting_rows(tmp_path):
    """When the window is full, the next message is the alarm, however many rows wait."""
    async with bench(tmp_path) as b, b.connected():
        await until(lambda: not b.uplink._alarms_behind)
        b.far.window, b.far.hold = 1, True
        for _ in range(5):
            b.put()
        await until(lambda: len(b.far.waiting) == 1)
        b.alarm()
        await b.journal.flush()
        b.far.answer()
        await until(lambda: len(b.far.waiting) == 1)
        assert [g[0] for g in b.far.data()] == ["live", "alarm"]
        b.far.hold = False
        b.far.answer()
        await b.caught_up()


async def test_more_live_rows_than_there_is_room_for_follow_as_history(tmp_path):
    """A slow broker costs no memory: what does not fit is owed, and none is missing at the end."""
    async with bench(tmp_path) as b, b.connected():
        b.far.hold = True
        for _ in range(LIVE_BOUND + 50):
            b.put()
        assert len(b.uplink._live) == LIVE_BOUND
        b.far.hold = False
        await asyncio.sleep(0)
        b.far.answer()
        b.uplink.finish()
        await b.caught_up()
    assert b.far.rows("history") == [(LIVE_BOUND + 1, LIVE_BOUND + 50)]
    assert len(b.far.rows("live")) == LIVE_BOUND


async def test_a_refused_record_is_a_dead_letter_and_not_in_the_way(tmp_path):
    """What the far end will never take is counted, and the next row is sent."""
    async with bench(tmp_path) as b, b.connected():
        b.far.rejects = {1}
        b.put()
        b.put()
        await b.caught_up()
        assert b.far.rows("live") == [(1, 1), (2, 2)]


async def test_many_rows_at_once_are_one_message_each(tmp_path):
    """A batch of several rows goes live as one message per scan."""
    async with bench(tmp_path) as b, b.connected():
        b.put(n=3)
        await b.caught_up()
        assert b.far.rows("live") == [(1, 1), (2, 2), (3, 3)]


async def test_report_by_exception_costs_no_memory_and_makes_no_gap(tmp_path):
    """A thousand quiet rows are one range in memory; the next change covers them all."""
    async with bench(tmp_path, thin=True) as b, b.connected():
        await until(lambda: b.far.status)
        b.put()
        await b.caught_up()
        for _ in range(50):
            b.put()
        assert len(b.uplink._open) == 0
        assert b.uplink.depth() == 50
        b.put(5.0)
        await b.caught_up()
        assert b.far.rows("live") == [(1, 1), (2, 52)]
        for _ in range(65):
            b.put(5.0)
        await until(lambda: b.uplink.depth() < 10)
        assert b.far.rows("live")[2] == (53, 112), "the heartbeat, 60 s after the change"


async def test_rows_held_back_are_sent_at_the_end(tmp_path):
    """An orderly stop leaves nothing behind and waits for nothing that cannot come."""
    async with bench(tmp_path, thin=True) as b, b.connected():
        for _ in range(5):
            b.put()
        await until(lambda: b.uplink.depth() == 4)
        b.uplink.finish()
        await b.caught_up()
        assert b.far.rows("live") == [(1, 1), (2, 5)]


async def test_rows_held_back_when_the_connection_ends_are_history(tmp_path):
    """Nobody has been told of them: they are owed, every row of them."""
    async with bench(tmp_path, thin=True) as b:
        async with b.connected():
            await until(lambda: b.far.status)
            for _ in range(5):
                b.put()
            await until(lambda: b.uplink.depth() == 4)
        async with b.connected():
            await b.caught_up()
        assert b.far.rows("history") == [(2, 5)]


async def test_a_message_does_not_cover_rows_that_nobody_compared(tmp_path):
    """Rows that found no room break the range: what follows covers only what Thin has seen."""
    async with bench(tmp_path, thin=True) as b, b.connected():
        await until(lambda: b.far.status)
        b.put(1)
        await b.caught_up()
        b.put(1)
        b.far.hold = True
        b.uplink._live.extend([None] * LIVE_BOUND)
        b.put(9)
        b.uplink._live.clear()
        b.far.hold = False
        b.put(1)
        await b.caught_up()
        assert b.far.rows("live") == [(1, 1), (4, 4)]
        assert b.far.rows("history") == [(2, 3)]


async def test_status_and_alarm_list_are_told_when_they_change(tmp_path):
    """At once with the connection, and whenever something is another than it was."""
    async with bench(tmp_path) as b, b.connected():
        await until(lambda: b.far.status == [{"durable": True}] and b.far.lists == [[]])
        b.active = [{"alarm": "hot"}]
        b.uplink.alarms_changed()
        await until(lambda: b.far.lists[-1] == [{"alarm": "hot"}])
        b.facts["durable"] = False
        b.uplink.alarms_changed()
        await until(lambda: b.far.status[-1] == {"durable": False})


async def test_in_strict_order_live_waits_for_what_was_missed(tmp_path):
    """`order: strict`: no row overtakes an older one; when the backlog is gone rows go live."""
    async with bench(tmp_path, strict=True) as b:
        for n in range(5):
            b.put(n)
        async with b.connected():
            b.put(5)
            b.put(6)
            await b.caught_up()
            assert b.far.rows("live") == []
            assert [r for first, last in b.far.rows("history")
                    for r in range(first, last + 1)] == list(range(1, 8))  # fmt: skip
            await until(lambda: not b.uplink._draining)
            b.put(7)
            await until(lambda: b.far.rows("live") == [(8, 8)])


async def test_a_budget_that_runs_out_holds_the_backlog_and_never_an_alarm(tmp_path):
    """With the bucket empty neither history nor rows go out, an alarm does; the status says so.
    When it fills again, everything that is owed follows.
    """
    budget = Budget(2400, 0.0)
    async with bench(tmp_path, thin=True, budget=budget) as b:
        b.put(1)
        b.far.carried = 1000
        budget.spend(1000, 0.0)
        async with b.connected():
            b.alarm()
            await until(lambda: b.far.rows("alarm"))
            await until(lambda: b.far.status and b.far.status[-1]["budget"]["rung"] == 5)
            await until(lambda: b.stats.values.get("sink/out.line_bytes") == 1000)
            assert b.far.rows("history") == []
            b.clock.elapsed_s = 1e6
            await until(lambda: b.far.rows("history") == [(1, 1)])
            await until(lambda: b.far.status[-1]["budget"]["rung"] == 0)


async def test_what_is_held_back_is_not_behind(tmp_path):
    """A mean of ten minutes holds rows for ten minutes: no alarm on a backlog comes of that."""
    async with bench(tmp_path, thin=True) as b, b.connected():
        b.put(1)
        await b.caught_up()
        b.put(1)
        b.clock.now_ns += 600 * 10**9
        assert b.uplink.depth() == 1
        assert b.uplink.oldest_age_s() == 0.0
        b.far.hold = True
        b.put(2)
        await until(lambda: b.far.waiting)
        assert b.uplink.oldest_age_s() > 0
        b.far.answer()
        await b.caught_up()
