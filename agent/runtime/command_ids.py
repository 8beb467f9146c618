"""Which requests were taken before: on disk, so that none is done twice, whatever restarts."""

import asyncio
from typing import Final

from agent.core.ports import StateStore

NS: Final = "command"


class CommandIds:
    """Ids of the requests that were taken, with their expiry, ns since 1970."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    async def take(self, name: str, expires_ns: int, now_ns: int | None, keep: int) -> str:
        """Note *name* as taken; empty when it may be done, else ``repeated`` or ``busy``.

        Returns when it is on disk. At least the last *keep* are known. One that has not expired
        is never forgotten, so a request is refused while *keep* of them have not; *now_ns* is
        None when the clock cannot tell, then the one that expires first goes.
        """
        known = self._state.items(NS)
        if name in known:
            return "repeated"
        over = len(known) - keep + 1
        gone = sorted((e, n) for n, e in known.items() if now_ns is None or e < now_ns)
        if len(gone) < over:
            return "busy"
        forgotten = [n for _, n in gone[: max(0, over)]]
        puts = [self._state.put(NS, n, None) for n in forgotten]
        await asyncio.gather(self._state.put(NS, name, expires_ns), *puts)
        return ""
