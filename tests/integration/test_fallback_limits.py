"""While no version of a model can run, its fixed limits watch the machine, and say who they are."""

import os
import resource
import signal

import pytest

from agent.runtime.scoring import STUCK_S
from simulators import models
from simulators.packages import mean_manifest, signed
from simulators.registry_server import RegistryServer
from tests.models_bench import MODEL, bench, document
from tests.tools import until

LIMITS = [[None, 6.5], [2, None], [None, None]]
NAMED = {"a": [None, 6.5], "b": [2, None]}


@pytest.fixture
def registry():
    with RegistryServer() as server:
        yield server


def said(b):
    """(row, value, role, version, release) of every result."""
    rows = [r.record for r in b.records if r.stream == "model/pump1"]
    return [
        ((r.t[0] - b._t_ns) // 10**9, r.v[0, 0], r.origin.role, r.origin.version, r.origin.release)
        for r in rows
    ]


async def fed(b, rows=1):
    b.feed(rows)
    await until(lambda: said(b) and said(b)[-1][0] == b.fed)


async def test_limits_stand_in_until_a_version_serves(registry, tmp_path):
    """From the first row on, without a window of history; as the alarm that the model would raise.
    A version that serves ends them.
    """
    doc = document(tmp_path, registry.url, m=MODEL | {"fallback": LIMITS})
    async with bench(doc) as b:
        await b.start()
        assert not await b.poll()
        for _ in range(8):
            await fed(b)
        assert [v for _, v, *_ in said(b)] == [1, 0, 0, 0, 0, 0, 1, 1]
        assert {tuple(r[2:]) for r in said(b)} == {("fallback", "configuration", 0)}
        alarm = b.daemon.pipeline.alarms.standing["pump1.m"]
        assert (alarm.active, alarm.tag) == (True, "model/pump1/limits")

        registry.publish("m", "1", models.tiny())
        assert await b.poll()
        await fed(b, 2)
        assert said(b)[-1] == (10, 8.0, "active", "1", 1)
        assert {r.record.tags.short for r in b.records if r.stream == "model/pump1"} >= {("score",)}
        await until(lambda: not b.daemon.pipeline.alarms.active)


async def test_the_limits_of_the_version_that_served_last_outlive_it(registry, tmp_path):
    """It crashes twice and is taken out; there is none before it: its own limits go on, also after
    a restart. They say whose they are.
    """
    doc = document(tmp_path, registry.url, m={k: v for k, v in MODEL.items() if k != "decide"})
    bad = models.crash(150.0)  # the sum of a window, that of row 13 and later
    manifest = mean_manifest(
        "m", "1.5", 7, bad, decision={"output": "score", "above": 1000, "fallback": NAMED}
    )
    manifest["golden"][0]["outputs"]["score"] = [-(2.0**63)] * 2
    registry.publish("m", "1.5", bad, manifest=signed(manifest), release=7)
    async with bench(doc) as b:
        await b.start()
        assert await b.poll()
        b.feed(20)
        await until(lambda: not b.serving(), 20)
        await fed(b)
        assert said(b)[-1] == (21, 1.0, "fallback", "1.5", 7)
        assert b.daemon.pipeline.alarms.active["pump1.m"].tag == "model/pump1/limits"
    async with bench(doc) as b:
        b.daemon.models.fallbacks.stand_in("m")  # as the unit of the model does first
        await b.start()
        await fed(b)
        assert said(b)[-1] == (1, 1.0, "fallback", "1.5", 7)


async def test_limits_that_do_not_fit_are_told(tmp_path):
    """One pair for each input."""
    doc = document(tmp_path, f"dir://{tmp_path}", m=MODEL | {"fallback": LIMITS[:2]})
    with pytest.raises(Exception, match="`fallback` has 2 limits for 3 inputs"):
        async with bench(doc):
            pass


async def test_limits_stand_in_while_the_machine_cannot_start_a_worker(registry, tmp_path):
    """A version is in service, but no process can be made for it (here: no file descriptor is
    left): its windows wait, and the limits watch meanwhile. Nothing is scored twice by the model.
    """
    registry.publish("m", "1", models.tiny())
    doc = document(tmp_path, registry.url, m=MODEL | {"fallback": LIMITS})
    async with bench(doc) as b:
        await b.start()
        assert await b.poll()
        await fed(b, 5)
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, allowed[1]))
        try:
            os.kill(b.daemon.models.host.pid, signal.SIGKILL)
            await until(lambda: b.daemon.models.host.pid is None)
            b.feed()
            await until(lambda: "m" in stood_in(b), STUCK_S + 20)
            b.feed()
            await until(lambda: said(b)[-1] == (7, 1.0, "fallback", "configuration", 0))
            assert b.serving() == "1"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
        await until(lambda: not stood_in(b), 20)
        await fed(b)
        assert [row for row, _, version in b.results() if version == "1"] == [5, 6, 7, 8]
        assert b.count("inference.restarts") == 1


def stood_in(b):
    return {lane.plan.model for lane in b.daemon.models.fallbacks.scoring.lanes.values()}
