"""The flash-wear budget of a running agent: the whole daemon, by a clock that the test moves."""

import asyncio
import json
import sqlite3
from contextlib import AsyncExitStack, closing

import yaml

from agent.app.boot import Loaded
from agent.app.daemon import Daemon
from agent.app.status import status
from agent.config.load import loads_whole
from agent.core.stats import Stats
from agent.plugins import installed
from agent.storage.db import open_store
from tests.tools import ManualClock, until

MINUTE_S, HOUR_S = 60.0, 3600.0


async def test_more_than_the_budget_for_an_hour_is_told_once(tmp_path):
    """What the journal really writes: the alarm comes after an hour above `wear_per_day`, not
    before; stands without a second event; goes when the mean of the hour is a tenth below, and
    the state says so.
    """
    document = {
        "version": 1, "gateway": {"id": "gw"}, "data_dir": str(tmp_path),
        "journal": {"commit": "50ms", "wear_per_day": "1MB"}, "self": {"period": "100ms"},
        "devices": {}, "sinks": {},
    }  # fmt: skip
    whole = loads_whole(yaml.safe_dump(document), "c.yaml", installed())
    loaded, clock, stats = Loaded(whole, tmp_path / "c.yaml"), ManualClock(), Stats()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            open_store(tmp_path, loaded.settings.journal, clock, stats, "0" * 32)
        )
        daemon = Daemon(loaded, store, clock, stats)
        running = asyncio.create_task(daemon.run(stack))

        async def row(seconds):
            """The agent measures itself again, *seconds* later by its clock."""
            seen = stats.values.get("journal.written_bytes", 0)
            clock.advance(seconds)
            now = clock.wall_ns()
            await until(lambda: measured(daemon)[0] == now)
            await until(lambda: stats.values.get("journal.written_bytes", 0) > seen)

        await until(lambda: measured(daemon)[0])
        while measured(daemon)[1] < 2e6:
            await row(MINUTE_S)
        raised = clock.wall_ns()
        while not (told := events(tmp_path)):
            assert clock.wall_ns() - raised < 2 * HOUR_S * 1e9
            await row(5 * MINUTE_S)
        assert (told[0]["t_ns"] - raised) / 1e9 + 15 * MINUTE_S >= HOUR_S
        assert [(e["active"], e["limit"]) for e in told] == [(True, 1e6)]
        assert "agent.wear" in {a["alarm"] for a in status(daemon)["alarms"]}
        for _ in range(10):
            await row(5 * MINUTE_S)
        assert [e["active"] for e in events(tmp_path)] == [True]
        while [e["active"] for e in events(tmp_path)] == [True]:
            assert measured(daemon)[1] > 0
            await row(12 * HOUR_S)
        assert [e["active"] for e in events(tmp_path)] == [True, False]
        assert measured(daemon)[1] < 0.9e6
        for _ in range(3):
            await row(12 * HOUR_S)
        assert [e["active"] for e in events(tmp_path)] == [True, False]
        daemon.end()
        await running


def measured(daemon):
    """When the agent measured itself last, and the bytes a day that the journal writes."""
    channel = daemon.pipeline.channels.get("agent")
    if channel is None or channel.latest is None:
        return 0, 0.0
    batch = channel.latest
    at = batch.tags.column["agent/journal.wear_bytes_per_day"]
    return int(batch.t[-1]), float(batch.v[-1, at])


def events(folder):
    """What became durable of the alarm."""
    with closing(sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT event FROM alarms ORDER BY epoch, seq").fetchall()
    return [e for (text,) in rows if (e := json.loads(text))["alarm"] == "agent.wear"]
