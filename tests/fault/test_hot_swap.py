"""1 kHz through swaps and deaths of the worker: every window is scored once, in order."""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

from agent.app import plan
from agent.core.batch import Batch
from agent.core.quality import Quality
from simulators import models
from simulators.registry_server import RegistryServer
from tests.models_bench import bench, document
from tests.tools import until

PERIOD_NS = 1_000_000
ROWS = 5


class Stream:
    """Rows of one device, one each millisecond by the clock on the wall; row n, from 1, has the
    value n and *extra*.
    """

    def __init__(self, b):
        self._b, self.rows, self.extra, self.values = b, 0, 0.0, [0.0]
        self._tags = plan.streams(b.daemon.loaded.settings)["pump1"]
        self._t_ns = b.daemon.clock.wall_ns()
        self.on = True

    async def run(self):
        begun_s = time.monotonic()
        while self.on:
            while self.rows < 1000 * (time.monotonic() - begun_s):
                self.rows += 1
                self.values.append(self.rows + self.extra)
                v = np.full((1, 3), self.values[-1])
                q = np.full((1, 3), Quality.GOOD, np.uint8)
                t = np.array([self._t_ns + self.rows * PERIOD_NS], np.int64)
                self._b.daemon.pipeline.emit(Batch("pump1", self._tags, t, v, q))
            await asyncio.sleep(0.001)

    def results(self):
        """(row, version) in the order in which they came."""
        found = []
        for stored in self._b.records:
            batch = stored.record
            if isinstance(batch, Batch) and batch.stream == "model/pump1":
                assert (batch.q == Quality.GOOD).all()
                rows = (batch.t - self._t_ns) // PERIOD_NS
                for row, score in zip(rows.tolist(), batch.v[:, 0], strict=True):
                    mean = np.mean(self.values[row - ROWS + 1 : row + 1])
                    assert batch.origin.version == "dies" or abs(score - mean) < 1
                    found.append((row, batch.origin.version))
        return found


@asynccontextmanager
async def streaming(tmp_path):
    """Version 1 serves a stream of 1 kHz; at the end every window has its one result."""
    with RegistryServer() as registry:
        registry.publish("m", "1", versioned("1"))
        async with bench(document(tmp_path / "data", registry.url)) as b:
            await b.start()
            assert await b.poll()
            b.registry, stream = registry, Stream(b)
            running = asyncio.create_task(stream.run())
            await scored(stream, 200)
            yield b, stream
            await scored(stream, 200)
            stream.on = False
            await running
            await until(lambda: stream.results()[-1][0] == stream.rows, 20)
        results = stream.results()
        assert [row for row, *_ in results] == list(range(ROWS, stream.rows + 1))
        assert b.count("model/pump1.skipped_windows") == 0


def versioned(version):
    return models.with_metadata(models.tiny(), version=version)


async def scored(stream, rows):
    """The next *rows* rows have their results."""
    last = stream.rows + rows
    await until(lambda: stream.results()[-1:] and stream.results()[-1][0] >= last, 20)


async def swapped(b, version, data):
    """The next version is in service; its worker was warm before it took over."""
    before = b.daemon.models.host.pid
    b.registry.publish("m", version, data)
    await until(b.poll, 30)
    assert b.serving() == version
    assert b.daemon.models.host.pid != before


async def test_a_swap_and_deaths_of_the_worker_lose_and_double_nothing(tmp_path):
    """From its first window on there is no result of the version before. Soon after the swap the
    worker before takes over from one that dies, later a new one: both score what waits.
    """
    async with streaming(tmp_path) as (b, stream):
        host, before = b.daemon.models.host, b.daemon.models.host.pid
        await swapped(b, "2", versioned("2"))
        await scored(stream, 50)
        for expected in (before, None):
            pid = host.pid
            os.kill(pid, signal.SIGSEGV)
            await until(lambda p=pid: host.pid not in {None, p}, 20)
            assert expected in {None, host.pid}
            host.pardon(b.entry()["digest"])  # here it is not the version that dies
            await scored(stream, 50)
    versions = [version for *_, version in stream.results()]
    assert versions == sorted(versions)
    assert set(versions) == {"1", "2"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="integer division traps on x86 only")
async def test_a_version_that_dies_in_service_hands_over_what_waits(tmp_path):
    """The second death takes it out: the version before scores the windows that it left."""
    async with streaming(tmp_path) as (b, stream):
        await swapped(b, "dies", models.crash(1e6))
        stream.extra = 1e6
        await until(lambda: b.serving() == "1", 20)
    assert [v for *_, v in stream.results()[-50:]] == ["1"] * 50
