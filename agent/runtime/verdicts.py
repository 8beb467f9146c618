"""What went wrong with versions, said once: counted, logged on change, and kept."""

import structlog

from agent.core.errors import AgentError, TransientError
from agent.core.stats import Stats
from agent.runtime.releases import Releases
from agent.runtime.versions import Watched

log = structlog.get_logger()


class Verdicts:
    """Tells what was decided about versions. Counts ``model/NAME.rollout_failed``."""

    def __init__(self, releases: Releases, stats: Stats) -> None:
        self._releases, self._stats = releases, stats

    async def failed(self, one: Watched, error: AgentError) -> None:
        """Count a failure; log it when it is another one than the last."""
        self._stats.add(f"model/{one.name}.rollout_failed")
        text = str(error)
        if text != one.error:
            log.warning("rollout.refused", model=one.name, reason=text, code=error.code,
                        transient=isinstance(error, TransientError))  # fmt: skip
        one.error, one.code = text, error.code
        await self._releases.mark(one.name, last_error=text)

    async def settled(self, one: Watched) -> None:
        """All went well: what stands is at most the reason why an offer is not taken."""
        text = "" if one.standing is None else str(one.standing)
        if text != one.error:
            log.info("rollout.settled", model=one.name, standing=text)
        one.error, one.code = text, "" if one.standing is None else one.standing.code
        await self._releases.mark(one.name, last_error=text)
