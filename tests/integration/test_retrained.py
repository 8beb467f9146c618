"""A retrained version waits for a person, unless the configuration lets it and nothing holds it."""

import json

import numpy as np

from agent.app.schooling import Schooling
from agent.registries.directory import publish
from simulators import models
from simulators.packages import mean_manifest, signed
from tests.models_bench import MODEL, bench, document

AUTO = {"backtest": "0s", "shadow": "0s", "probation": "0s", "retrained": "auto"}
FROM = {"retrained_from": "m 1, release 1", "event": "e1"}


def put(folder, release, **provenance):
    """A version in a folder; its model differs from the others."""
    model = models.with_metadata(models.tiny(), v=str(release))
    said = mean_manifest("m", str(release), release, model, provenance=provenance)
    publish(folder, said, model, signed(said), "stable")


def schooling(b):
    """As the daemon has it."""
    return Schooling(
        lambda: b.daemon.loaded.settings,
        lambda: b.daemon.models.drift.events,
        b.daemon.pipeline.alarms,
        b.daemon.clock,
    )


async def story(tmp_path, sections, *, dismissed, rows=0, **provenance):
    """Version 1 serves, an event was told, version 2 comes; does it serve, and the entry of the
    model. Whoever promotes it gets it into service in any case.
    """
    doc = document(tmp_path / "data", f"dir://{tmp_path}/r", m=MODEL) | sections
    put(tmp_path / "r", 1)
    async with bench(doc) as b:
        await b.start()
        assert await b.poll(), b.entry()["last_error"]
        label = "dismissed" if dismissed else ""
        alarms = [{"alarm": "pump1.m", "since": "2026-11-25T00:00:00Z", "label": label}]
        event = {"instance": "pump1", "model": {"name": "m"}, "alarms": alarms, "sample": None}
        await b.daemon.models.drift.events.put("e1", event, hook=False)
        put(tmp_path / "r", 2, **provenance)
        b.feed(rows)
        taken = await b.poll()
        entry = dict(b.entry())
        if not taken:
            await b.rollout.by_hand.promote("m", "uid:0/anna", "she has looked at the pump")
        assert b.serving() == "2"
    return taken, json.dumps(entry)


async def test_it_goes_by_itself_when_it_may(tmp_path):
    """`retrained: auto`, and every alarm of its rows was dismissed."""
    rollout = {"rollout": AUTO}
    taken, _ = await story(tmp_path, rollout, dismissed=True, **FROM)
    assert taken


async def test_it_waits_by_default(tmp_path):
    """`retrained: ask` is the default; and without `rollout:` it waits, too."""
    for i, rollout in enumerate(({"rollout": AUTO | {"retrained": "ask"}}, {})):
        folder = tmp_path / str(i)
        folder.mkdir()
        taken, entry = await story(folder, rollout, dismissed=True, **FROM)
        assert (taken, "a person" in entry) == (False, True)


async def test_nothing_lets_rows_of_an_alarm_pass(tmp_path):
    """Whatever the configuration says; the entry says which alarm."""
    taken, entry = await story(tmp_path, {"rollout": AUTO}, dismissed=False, **FROM)
    assert (taken, "pump1.m, which nobody has dismissed" in entry) == (False, True)


async def test_an_alarm_that_came_later_holds_it_as_well(tmp_path):
    """The rows may have been the beginning of what the alarm tells of now."""
    alarms = {"hot": {"tag": "pump1/a", "high": 0.5}}
    sections = {"rollout": AUTO, "alarms": alarms}
    taken, entry = await story(tmp_path, sections, dismissed=True, rows=3, **FROM)
    assert (taken, "the alarm hot of its machines" in entry) == (False, True)


async def test_history_from_before_the_change_does_not_count(tmp_path):
    """It is replayed on the rows since its sample began: on the old ones it must alarm."""
    async with bench(document(tmp_path / "data", f"dir://{tmp_path}/r", m=MODEL)) as b:
        school = schooling(b)
        began = np.datetime64(b.daemon.clock.wall_ns() - 600 * 10**9, "ns")
        sample = {"from": f"{np.datetime_as_string(began, unit='us')}Z", "file": "drift/e1.csv"}
        event = {"instance": "pump1", "model": {"name": "m"}, "alarms": [], "sample": sample}
        await b.daemon.models.drift.events.put("e1", event, hook=False)
        assert 600 <= school.since_s(FROM) < 630
        assert school.since_s(FROM | {"event": "e2"}) is None
