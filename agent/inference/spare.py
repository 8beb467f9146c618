"""The worker that served before a swap: for a while it takes over at once when the new one dies."""

import asyncio
from typing import Final

from agent.inference.process import WorkerProcess

KEPT_S: Final = 600.0
"""As long as two crashes are held together: a version that turns bad does so early."""


class Spare:
    """At most one worker, kept warm for ten minutes."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def keep(self, worker: WorkerProcess) -> None:
        """Keep *worker* from now on; the one before it is let go."""
        await self.leave()
        self._worker = worker
        self._timer = asyncio.get_running_loop().call_later(KEPT_S, self._over)

    def take(self) -> WorkerProcess | None:
        """The worker, if it is there and alive; it is no spare any more."""
        worker, self._worker = self._worker, None
        if self._timer is not None:
            self._timer.cancel()
        return None if worker is None or worker.gone else worker

    def _over(self) -> None:
        if (worker := self.take()) is not None:
            worker.kill("it is not needed any more")

    async def leave(self) -> None:
        """Return when nothing is left of it."""
        if (worker := self.take()) is not None:
            await worker.leave()
