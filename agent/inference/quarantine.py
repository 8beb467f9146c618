"""Which models are not to be trusted any more: who was under way when workers died."""

from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from agent.core.errors import PermanentError
from agent.core.ports import Clock, DeadlineMissed, WorkerLost
from agent.core.stats import Stats
from agent.inference.process import TooLate, WorkerDied

log = structlog.get_logger()

QUARANTINE_CRASHES: Final = 2
QUARANTINE_WITHIN_S: Final = 600.0
"""A model in flight in two crashes within ten minutes is taken out."""


class Quarantine:
    """Counts crashes, and takes models out.

    Attributes:
        why: Digest -> why it was taken out.
    """

    def __init__(
        self, role: str, stats: Stats, clock: Clock, out: Callable[[str, str], None]
    ) -> None:
        self._role, self._stats, self._clock, self._out = role, stats, clock, out
        self.why: dict[str, str] = {}
        self._crashes: dict[str, deque[float]] = {}

    def pardon(self, digest: str) -> None:
        """What this model did is forgotten."""
        self.why.pop(digest, None)
        self._crashes.pop(digest, None)

    def check(self, digest: str) -> None:
        """`PermanentError` (E605) when it was taken out."""
        if digest in self.why:
            raise PermanentError(
                f"the model was taken out: {self.why[digest]}",
                where=f"model {digest[:12]}",
                fix="Publish a repaired version, or go back with `edge-agent models rollback`.",
                code="E605",
            )

    def lost(self, digest: str, died: WorkerDied) -> WorkerLost:
        """Account for a worker that died, or was killed, with *digest* in flight."""
        now_s, reason = self._clock.mono_s(), str(died)
        crashes = self._crashes.setdefault(digest, deque(maxlen=QUARANTINE_CRASHES))
        crashes.append(now_s)
        log.error("worker.lost", role=self._role, model=digest[:12], reason=reason)
        if len(crashes) == QUARANTINE_CRASHES and now_s - crashes[0] < QUARANTINE_WITHIN_S:
            self.take_out(digest, f"twice within ten minutes: {reason}")
        lost = DeadlineMissed if isinstance(died, TooLate) else WorkerLost
        return lost(reason, where=f"model {digest[:12]}", code="E607")

    def take_out(self, digest: str, reason: str) -> None:
        """Trust it no more, and say so."""
        self.why[digest] = reason
        self._stats.add("inference.quarantined")
        log.error("model.quarantined", model=digest[:12], reason=reason)
        self._out(digest, reason)
