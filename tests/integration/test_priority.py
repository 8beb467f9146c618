"""Who gives way to what serves: also where the call for it is refused, as in our unit."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, json, os, platform, sys, time
from agent.inference import sandbox
from agent.inference.priority import give_way
os.sched_setaffinity(0, {int(sys.argv[1])})
if sys.argv[2] == "refused":
    calls = {"x86_64": (0xC000003E, (141,)), "aarch64": (0xC00000B7, (140,))}
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)
    assert sandbox.refuse(libc, *calls[platform.machine()])
if sys.argv[2] != "stays":
    give_way()
print("ready", flush=True)
sys.stdin.readline()
before, until = time.process_time(), time.monotonic() + 2.0
while time.monotonic() < until:
    sum(range(1000))
print(json.dumps([time.process_time() - before, os.getpriority(os.PRIO_PROCESS, 0)]))
"""


def burnt(*how):
    """CPU (s) that each of two processes got of one core within 2 s, and its nice value."""
    core = min(os.sched_getaffinity(0))
    some = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(core), one],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for one in how
    ]  # fmt: skip
    assert [p.stdout.readline() for p in some] == ["ready\n"] * len(some)
    for process in some:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(p.communicate(timeout=60)[0]) for p in some]


@pytest.mark.parametrize(("how", "nice"), [("allowed", 10), ("refused", 0)])
def test_batch_work_gives_way(how, nice):
    """Beside what serves, on one core, it gets a small part of it: a ninth, or what is near it."""
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    (batch_s, batch_nice), (serving_s, serving_nice) = burnt(how, "stays")
    assert (batch_nice, serving_nice) == (max(mine, nice), mine)
    assert batch_s < 0.33 * serving_s
