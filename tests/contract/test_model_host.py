"""The port `ModelHost` over a real worker, with good and hostile models."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import closing

import numpy as np
import pytest

from agent.core.errors import PermanentError
from agent.core.ports import WorkerLost
from agent.core.stats import Stats
from agent.inference.forks import ForkServer
from agent.inference.host import WorkerHost
from agent.runtime.clock import SystemClock
from simulators import models
from tests.tools import until

X = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)


def digest(model):
    return hashlib.sha256(model).hexdigest()


@pytest.fixture
async def host():
    """A host that ends its worker with the test."""
    async with WorkerHost(Stats(), SystemClock()) as h:
        yield h


async def put(host, model, **more):
    await host.load(digest(model), model, **more)
    return digest(model)


async def test_results_equal_a_session_in_process(host):
    """The worker computes what ONNX Runtime computes, for every output."""
    rng = np.random.default_rng(1)
    model = models.t2q_model(rng.normal(size=(500, 3)))
    loaded = await host.load(digest(model), model)
    assert loaded.inputs == {"window": (None, 5, 3)}
    assert list(loaded.outputs) == ["score", "t2", "q"]
    got = await host.predict(digest(model), X, 5)
    script = (
        "import sys, numpy as np, onnxruntime as o; s = o.InferenceSession(sys.argv[1]);"
        "x = np.arange(30, dtype=np.float32).reshape(2, 5, 3);"
        "print(*np.concatenate(s.run(None, {'window': x})).tolist())"
    )
    want = await _run_script(script, model)
    np.testing.assert_allclose(np.concatenate([got[n] for n in ("score", "t2", "q")]), want)


async def _run_script(script, model):
    with tempfile.NamedTemporaryFile(suffix=".onnx") as f:
        f.write(model)
        f.flush()
        done = subprocess.run(
            [sys.executable, "-c", script, f.name],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
            timeout=60,
        )
    return [float(n) for n in done.stdout.split()]


def test_the_daemon_never_imports_onnxruntime():
    """What a model file can do, it does to the worker: the daemon has no ONNX Runtime."""
    script = "import sys, agent.app; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


async def test_a_killed_worker_loses_one_call_and_comes_back(host):
    """SIGKILL under a call is `WorkerLost`; the next call finds a new worker with the model."""
    one = await put(host, models.tiny())
    first = host.pid
    os.kill(first, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="SIGKILL"):
        await host.predict(one, X, 5)
    assert (await host.predict(one, X, 5))["score"].shape == (2,)
    assert host.pid != first


@pytest.mark.parametrize("name", ["garbage", "external_data"])
async def test_what_is_no_model_is_refused(host, name):
    """A file that cannot be loaded is a permanent error, and the worker lives on."""
    one = await put(host, models.tiny())
    pid = host.pid
    with pytest.raises(PermanentError, match="E601"):
        await put(host, getattr(models, name)())
    await host.predict(one, X, 5)
    assert host.pid == pid


async def test_a_model_without_end_is_killed_at_its_deadline(host):
    """A model that never returns costs its deadline, and the second time its place."""
    taken = []
    host.on_quarantine = lambda d, _reason: taken.append(d)
    good, bad = await put(host, models.tiny()), await put(host, models.endless())
    for _ in range(2):
        with pytest.raises(WorkerLost, match=r"within 0\.3 s"):
            await host.predict(bad, X, 0.3)
        await host.predict(good, X, 5)
    with pytest.raises(PermanentError, match="E605"):
        await host.predict(bad, X, 0.3)
    assert taken == [bad]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="integer division traps on x86 only")
async def test_a_model_that_kills_its_process_spares_the_others(host):
    """SIGFPE in native code: the worker is gone, the good model answers from the next one."""
    good, bad = await put(host, models.tiny()), await put(host, models.crash())
    with pytest.raises(WorkerLost, match="SIGFPE"):
        await host.predict(bad, X, 5)
    assert (await host.predict(good, X, 5))["score"].shape == (2,)


async def test_memory_beyond_the_limit_is_an_error_and_not_the_machines(host):
    """4 TB are refused by the address space limit; worker and neighbours live on."""
    good, bad = await put(host, models.tiny()), await put(host, models.out_of_memory())
    with pytest.raises((PermanentError, WorkerLost)):
        await host.predict(bad, X, 5)
    await host.predict(good, X, 5)


async def test_a_window_that_does_not_fit_is_told(host):
    """The wrong number of tags is named before the model sees it."""
    rng = np.random.default_rng(1)
    one = await put(host, models.t2q_model(rng.normal(size=(100, 4))))
    with pytest.raises(PermanentError, match="takes \\(any, 5, 4\\)"):
        await host.predict(one, X, 5)


async def test_calls_side_by_side_keep_their_answers(host):
    """Many callers at once: each gets its own result."""
    one = await put(host, models.tiny())
    calls = [host.predict(one, np.full((1, 5, 3), i, np.float32), 5) for i in range(50)]
    answers = await asyncio.gather(*calls)
    assert [float(a["score"][0]) for a in answers] == [float(i) for i in range(50)]


async def test_a_cancelled_call_leaves_no_stale_answer(host):
    """After a cancelled call the next one gets its own answer, not the cancelled one's."""
    one, slow = await put(host, models.tiny()), await put(host, models.endless())
    call = asyncio.ensure_future(host.predict(slow, X, 30))
    await until(lambda: host._turn.locked())  # noqa: PLW0108
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    answer = await host.predict(one, np.full((1, 5, 3), 7, np.float32), 5)
    assert float(answer["score"][0]) == 7.0


def test_the_sandbox_opens_no_socket():
    """Inside the worker's sandbox socket() is refused by the kernel; outside it is not."""
    script = (
        "import socket, sys\nfrom agent.inference import sandbox\n"
        "socket.socket().close()\nprint(sandbox.confine())\n"
        "try: socket.socket()\nexcept PermissionError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split("\n")[:2] == ["[]", "refused"]


@pytest.mark.needs("strace")
def test_nothing_leaves_the_gateway(tmp_path):
    """Loading and running a model makes no call to the network; a control would be seen.

    Without CI in the environment, which would switch the telemetry off by itself.
    """
    model = tmp_path / "m.onnx"
    model.write_bytes(models.tiny())
    script = (
        "import asyncio, numpy as np, pathlib, sys, time\n"
        "from agent.core.stats import Stats\nfrom agent.inference.host import WorkerHost\n"
        "from agent.runtime.clock import SystemClock\n"
        "async def main():\n"
        "  async with WorkerHost(Stats(), SystemClock()) as h:\n"
        "    await h.load('d', pathlib.Path(sys.argv[1]).read_bytes())\n"
        "    for _ in range(20):\n"
        "      await h.predict('d', np.zeros((1, 5, 3), np.float32), 5)\n"
        "      await asyncio.sleep(0.1)\n"
        "asyncio.run(main())\n"
    )
    assert _network_calls(tmp_path, [sys.executable, "-c", script, str(model)]) == []
    control = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    assert _network_calls(tmp_path, [sys.executable, "-c", control]) != []


def _network_calls(tmp_path, command):
    """Calls that concern an Internet address, of the command and all its children."""
    trace = tmp_path / "trace"
    env = {k: v for k, v in os.environ.items() if k not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    subprocess.run(
        ["strace", "-f", "-e", "trace=network", "-o", str(trace), *command],
        check=True,
        env=env,
        timeout=90,
        capture_output=True,
    )
    return [line for line in trace.read_text().splitlines() if "AF_INET" in line]


@pytest.mark.parametrize(("role", "nicer"), [("active", 0), ("candidate", 10), ("backtest", 10)])
async def test_whose_results_nobody_waits_for_gives_way(role, nicer):
    """What serves has the priority of the daemon, everything else a lower one."""
    with closing(ForkServer()) as forks:
        worker = await forks.fork(400_000_000, role)
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        await until(lambda: os.getpriority(os.PRIO_PROCESS, worker.pid) == max(mine, nicer))
        await worker.leave()
