"""Power that goes at a move of a version: the version goes on from where it was."""

import asyncio
import json
import signal
import sqlite3
import sys

import pytest

from agent.runtime.stages import Stage
from agent.storage.audit import read_trail, verify
from simulators import models
from simulators.registry_server import RegistryServer

MOMENTS = ("before", "within", "after")
WAY = [str(s) for s in list(Stage)[:8]]


async def one_life(folder, url, at, moment):
    """How it ended: 0, or the number of the signal, negative."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.dying_rollout", str(folder), url, str(at), moment,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(90):
        _, err = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err.decode()
    return process.returncode


def on_disk(folder):
    """Version -> its stages in the order of the trail; the last is the one of the state."""
    rows = read_trail(folder)
    assert verify(rows) == ""
    ways = {}
    for row in rows:
        facts = row["facts"]
        before = ways.setdefault(facts["version"], [None])[-1]
        assert facts["from"] == before
        ways[facts["version"]].append(facts["to"])
    with sqlite3.connect(f"{(folder / 'journal.db').resolve().as_uri()}?mode=ro", uri=True) as db:
        found = db.execute("SELECT json FROM state WHERE ns = 'release'").fetchall()
    db.close()
    kept = json.loads(found[0][0])["versions"] if found else []
    assert {v["version"]: v["stage"] for v in kept} == {v: way[-1] for v, way in ways.items()}
    return {version: way[1:] for version, way in ways.items()}


async def arrives(folder, registry, rng, deaths):
    """Lives until version 2 is the active one, the first *deaths* of them cut short."""
    for version in ("1", "2"):
        registry.publish("m", version, models.with_metadata(models.tiny(), v=version))
        ended = None
        while ended != 0:
            moment = rng.choice(MOMENTS)
            at = rng.randrange(1, 4) + (moment == "before") if deaths > 0 else 0
            ended = await one_life(folder, registry.url, at, moment)
            deaths -= ended != 0
            ways = on_disk(folder)
            assert version == "1" or "active" in {way[-1] for way in ways.values()}
    assert ways == {"1": [*WAY, "retired"], "2": WAY}


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_power_that_goes_at_any_move(tmp_path, rng, many):
    """State and trail agree after each death, whichever move it was: no move is lost that was on
    the disk, none is made twice, the version arrives, and what serves is never away.
    """
    for n in range(6 if many else 1):
        with RegistryServer() as registry:
            await arrives(tmp_path / f"data{n}", registry, rng, 99 if many else 1)
