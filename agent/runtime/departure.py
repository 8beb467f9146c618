"""One alarm event on its way: committed before it is sent, but never held up for long."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from agent.core.alarms import AlarmEvent
from agent.core.ports import Journal, Stored

SEND_ANYWAY_S: Final = 0.1
"""An alarm waits this long for its commit, then goes out marked ``durable: false``."""


class Departure:
    """Sent when it is on disk, or after `SEND_ANYWAY_S` without."""

    def __init__(self, journal: Journal, send: Callable[[Stored], None], event: AlarmEvent) -> None:
        self._send, self._gone = send, False
        self._stored = journal.put(event, on_durable=self._durable)
        self._timer = asyncio.get_running_loop().call_later(SEND_ANYWAY_S, self._anyway)

    def _durable(self) -> None:
        self._timer.cancel()
        self._leave(self._stored)

    def _anyway(self) -> None:
        self._leave(replace(self._stored, durable=False))

    def _leave(self, stored: Stored) -> None:
        if not self._gone:
            self._gone = True
            self._send(stored)
