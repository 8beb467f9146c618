"""What models ask of the device's own history."""

from collections.abc import Callable

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.app import plan
from agent.config.schema import Settings
from agent.core.cutting import Fed
from agent.core.errors import AgentError
from agent.runtime.stored import stored_windows
from agent.storage.historian import HistorianThread
from agent.storage.windows import newest

log = structlog.get_logger()


class Past:
    """The journal as models know it: windows.

    Args:
        settings: As they are now.
        historian: Reads beside the journal, on a thread of its own.
    """

    def __init__(self, settings: Callable[[], Settings], historian: HistorianThread) -> None:
        self._settings, self._historian = settings, historian

    async def windows(self, model: str) -> NDArray[np.float32] | None:
        """Stored windows float32 (b, w, k) of *model*; None without history."""
        settings = self._settings()
        if model not in settings.models:
            return None
        try:
            return await stored_windows(self._newest, plan.instances(settings, model))
        except AgentError as e:  # a journal that cannot be read is no history
            log.warning("past.unread", model=model, reason=str(e))
            return None

    async def _newest(self, fed: Fed, most: int) -> list[NDArray[np.float32]]:
        return await self._historian.ask(lambda historian: newest(historian, fed, most))
