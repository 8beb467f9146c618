"""A gateway that brings a version into service and dies at one of its moves: `python -m
tests.dying_rollout DATA_DIR URL AT MOMENT`.

It dies by SIGKILL at its move number AT (0: never): ``before`` anything of it is written,
``within`` its commit, or ``after`` it. Ends with 0 when what the registry offers is active.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.models_bench import MODEL, bench, document

ROLLOUT = {"shadow": "1ms", "shadow_windows": 10, "probation": "1ms", "backtest": "0s"}


def die() -> None:
    """As when the power goes."""
    os.kill(os.getpid(), signal.SIGKILL)


def mortal(audit: Any, at: int, moment: str) -> None:
    """Let *audit* end the process at its change number *at*."""
    change, count = audit.change, 0

    async def dying(*given: Any) -> None:
        nonlocal count
        count += 1
        if count == at and moment == "before":
            die()
        if count == at and moment == "within":
            asyncio.get_running_loop().call_soon(die)  # the writer's thread is at it then
        await change(*given)
        if count == at and moment == "after":
            die()

    audit.change = dying


async def live(data_dir: Path, url: str, at: int, moment: str) -> None:
    """Poll, feed and look, until it is done or dead."""
    made = document(data_dir, url, m=MODEL) | {"rollout": ROLLOUT}
    made["registries"]["main"]["timeout"] = "10s"
    async with bench(made) as b:
        scoring = asyncio.create_task(b.daemon.models.shadow.scoring.run())
        mortal(b.daemon.store.audit, at, moment)
        await b.start()
        await b.rollout.stopped(b.choices["m"])  # it has lasted: no start is held against a version
        await b.poll()
        while b.entry()["stage"] != "active":
            b.feed(5)
            await b.scored(b.fed)
            await b.rollout.tend(b.choices["m"])
        scoring.cancel()
        await asyncio.gather(scoring, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
