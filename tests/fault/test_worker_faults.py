"""Workers that die, and models that kill them: who is blamed, and who is not."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import numpy as np
import pytest

from agent.core.errors import PermanentError
from agent.core.ports import DeadlineMissed, WorkerLost
from agent.core.stats import Stats
from agent.inference.host import WorkerHost
from agent.inference.quarantine import QUARANTINE_WITHIN_S
from simulators import models
from tests.tools import ManualClock, until

X = np.ones((2, 5, 3), np.float32)
X86 = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="integer division traps on x86 only"
)


@pytest.fixture
def clock() -> ManualClock:
    """Time, moved by hand."""
    return ManualClock()


@pytest.fixture
async def host(clock: ManualClock) -> AsyncIterator[WorkerHost]:
    """A host that ends its worker with the test."""
    async with WorkerHost(Stats(), clock) as h:
        yield h


async def kill_idle(host: WorkerHost) -> None:
    """Kill the worker with no call under way, and wait until the host has seen it."""
    assert host.pid is not None
    os.kill(host.pid, signal.SIGKILL)
    await until(lambda: host.pid is None)


async def test_a_death_between_calls_costs_nobody_anything(host: WorkerHost) -> None:
    """No call was under way: none is lost, and no model is blamed however often it happens."""
    await host.load("good", models.tiny())
    for _ in range(3):
        await kill_idle(host)
        assert (await host.predict("good", X, 5))["score"].tolist() == [1.0, 1.0]
    assert host.quarantined == {}
    assert host._stats.values["inference.restarts"] == 3


async def test_a_kill_under_a_call_is_told_to_that_call_only(host: WorkerHost) -> None:
    """The call under way gets `WorkerLost`; those that wait are answered by the next worker."""
    await host.load("good", models.tiny())
    await host.load("endless", models.endless())
    stuck = asyncio.create_task(host.predict("endless", X, 30))
    await until(host._turn.locked)
    waiting = [asyncio.create_task(host.predict("good", X, 5)) for _ in range(3)]
    await until(lambda: len(host._turn._waiters or ()) == 3)
    assert host.pid is not None
    os.kill(host.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="SIGKILL"):
        await stuck
    assert [a["score"].tolist() for a in await asyncio.gather(*waiting)] == [[1.0, 1.0]] * 3


async def test_calls_that_wait_for_a_model_learn_that_it_was_taken_out(host: WorkerHost) -> None:
    """Quarantine also ends the calls already in the queue, with the reason."""
    await host.load("endless", models.endless())
    calls = [host.predict("endless", X, 0.1) for _ in range(3)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(e) for e in ends] == [DeadlineMissed, DeadlineMissed, PermanentError]
    assert "E605" in str(ends[2])


async def test_two_kills_far_apart_are_forgiven(host: WorkerHost, clock: ManualClock) -> None:
    """Only two crashes within ten minutes take a model out."""
    await host.load("endless", models.endless())
    for _ in range(3):
        with pytest.raises(WorkerLost):
            await host.predict("endless", X, 0.1)
        clock.advance(QUARANTINE_WITHIN_S + 1)
    assert host.quarantined == {}


@X86
async def test_a_model_that_dies_loading_is_taken_out_at_once(host: WorkerHost) -> None:
    """A crash in load is tried once more, then the file is refused; the others live on."""
    await host.load("good", models.tiny())
    with pytest.raises(PermanentError, match="SIGFPE"):
        await host.load("bad", models.segfault())
    assert list(host.quarantined) == ["bad"]
    assert (await host.predict("good", X, 5))["score"].tolist() == [1.0, 1.0]


@X86
async def test_an_old_model_that_dies_reloading_harms_no_new_one(host: WorkerHost) -> None:
    """After a respawn the model that crashes is blamed, not the one that is being loaded."""
    await host.load("old", models.tiny())
    host._models["old"].data = models.segfault()
    await kill_idle(host)
    await host.load("new", models.tiny())
    assert list(host.quarantined) == ["old"]
    assert (await host.predict("new", X, 5))["score"].tolist() == [1.0, 1.0]


async def test_outputs_are_never_forced_into_shape(host: WorkerHost) -> None:
    """Ten scores for two windows are an error, not two times five scores."""
    await host.load("wrong", models.wrong_shape())
    with pytest.raises(PermanentError, match=r"shape \(10,\) for 2 windows"):
        await host.predict("wrong", X, 5)


async def test_memory_beyond_the_limit_leaves_the_worker_alive(host: WorkerHost) -> None:
    """An allocation that the address space refuses is an error of that call only."""
    await host.load("huge", models.out_of_memory())
    pid = host.pid
    with pytest.raises(PermanentError, match="E603"):
        await host.predict("huge", X, 5)
    assert host.pid == pid


async def test_nan_is_handed_on_and_not_hidden(host: WorkerHost) -> None:
    """What NaN means is the caller's business."""
    await host.load("nan", models.nan())
    assert np.isnan((await host.predict("nan", X, 5))["score"]).all()


async def test_fixed_batches_other_types_and_labels(host: WorkerHost) -> None:
    """Batch 1 models, float64 inputs and int64 outputs serve; of several inputs each is cut out
    of the row, so one that fixes no size is refused.
    """
    await host.load("one", models.fixed(1))
    assert (await host.predict("one", X, 5))["score"].tolist() == [1.0, 1.0]
    await host.load("flat", models.flat(15))
    got = await host.predict("flat", np.arange(30, dtype=np.float32).reshape(2, 5, 3), 5)
    assert got["label"].tolist() == [14.0, 14.0]
    assert got["pair"].tolist() == [[0.0, 14.0], [15.0, 29.0]]
    await host.load("sides", models.two_sided())
    row = np.arange(24, dtype=np.float32).reshape(2, 1, 12)
    got = await host.predict("sides", row, 5)
    assert got["score"].tolist() == [4.5 + 21, 16.5 + 45]
    assert got["both"].tolist() == [[4.5, 21], [16.5, 45]]
    with pytest.raises(PermanentError, match="E608"):
        await host.predict("sides", row[:, :, 1:], 5)
    with pytest.raises(PermanentError, match="each must fix"):
        await host.load("two", models.two_inputs())


async def test_a_batch_larger_than_the_socket_is_answered(host: WorkerHost) -> None:
    """Ten megabytes of windows go through a socket buffer of two hundred kilobytes."""
    await host.load("good", models.tiny())
    x = np.ones((170_000, 5, 3), np.float32)
    assert (await host.predict("good", x, 10))["score"].shape == (170_000,)


async def test_a_frozen_worker_is_killed_while_the_request_is_sent(host: WorkerHost) -> None:
    """The deadline also holds for a worker that stops reading in the middle of a request."""
    await host.load("good", models.tiny())
    assert host.pid is not None
    os.kill(host.pid, signal.SIGSTOP)
    with pytest.raises(WorkerLost, match="no answer within"):
        await host.predict("good", np.ones((170_000, 5, 3), np.float32), 0.2)
    assert (await host.predict("good", X, 5))["score"].tolist() == [1.0, 1.0]


async def test_the_worker_knows_no_secret_and_no_thread_escapes(
    host: WorkerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No credentials in its environment, every thread filtered, its memory limited."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    await host.load("good", models.tiny())
    proc = f"/proc/{host.pid}"
    with open(f"{proc}/environ", "rb") as f:  # noqa: PTH123
        assert not any(v.startswith((b"CRED", b"NOTIFY")) for v in f.read().split(b"\0"))
    for thread in os.listdir(f"{proc}/task"):  # noqa: PTH208
        with open(f"{proc}/task/{thread}/status") as f:  # noqa: PTH123
            assert "Seccomp:\t2" in f.read()
    with open(f"{proc}/limits") as f:  # noqa: PTH123
        assert "400000000" in next(line for line in f if "address space" in line)


async def test_a_model_loaded_aside_disturbs_no_call(host: WorkerHost) -> None:
    """Every model is in the new worker when it takes over; the one before takes over from it."""
    await host.load("old", models.tiny())
    before = host.pid
    aside = asyncio.create_task(host.load_aside("new", models.with_metadata(models.tiny()), X))
    while not aside.done():
        assert host.pid == before
        assert (await host.predict("old", X, 5))["score"].tolist() == [1.0, 1.0]
    assert host.pid not in {None, before}
    for digest in ("old", "new"):
        assert (await host.predict(digest, X, 5))["score"].tolist() == [1.0, 1.0]
    await kill_idle(host)
    assert (await host.predict("new", X, 5))["score"].tolist() == [1.0, 1.0]
    assert host.pid == before


@pytest.mark.parametrize(
    "hostile", [models.endless(), pytest.param(models.crash(), marks=X86), models.garbage()]
)
async def test_a_hostile_model_loaded_aside_never_takes_over(
    host: WorkerHost, hostile: bytes
) -> None:
    """What hangs, dies, or is none in its own worker leaves the one that serves alone."""
    await host.load("good", models.tiny())
    before = host.pid
    with pytest.raises(PermanentError):
        await host.load_aside("bad", hostile, X, 0.3)
    assert host.pid == before
    assert host.digests() == {"good"}
    assert (await host.predict("good", X, 5))["score"].tolist() == [1.0, 1.0]
