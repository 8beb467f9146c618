"""One look at the agent each second, shared by everybody who watches."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import orjson

EACH_S: Final = 1.0
MAX_LISTENERS: Final = 16
RETRY_MS: Final = 2000
"""After a lost connection a browser comes back after this time."""


class Ticker:
    """Server-sent events: at first everything, then what changed.

    An event is ``{"state": …, "tags": {…}}``: ``state`` is the status without its tags, ``tags``
    those whose value, quality or time is another than a second ago.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status
        self._listeners: set[asyncio.Queue[bytes]] = set()
        self._tags: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._n = 0

    async def listen(self) -> AsyncIterator[bytes]:
        """Events until the listener goes away; one that cannot keep up is left out of some."""
        if len(self._listeners) >= MAX_LISTENERS:
            yield b"event: busy\ndata: {}\n\n"
            return
        queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)
        yield f"retry: {RETRY_MS}\n".encode() + self._event(dict(self._status()))
        self._listeners.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    async def _run(self) -> None:
        """Look while somebody listens."""
        while self._listeners:
            await asyncio.sleep(EACH_S)
            status = dict(self._status())
            tags = status["tags"]
            status["tags"] = {n: t for n, t in tags.items() if self._moved(n, t)}
            self._tags = tags
            event = self._event(status)
            for queue in self._listeners:
                if queue.full():  # it will get everything anew when it comes back
                    continue
                queue.put_nowait(event)

    def _moved(self, name: str, tag: Mapping[str, Any]) -> bool:
        before = self._tags.get(name)
        return before is None or (before["ts_ns"], before["q"]) != (tag["ts_ns"], tag["q"])

    def _event(self, status: dict[str, Any]) -> bytes:
        self._n += 1
        tags = status.pop("tags")
        data = orjson.dumps({"state": status, "tags": tags}, default=str)
        return f"id: {self._n}\n".encode() + b"data: " + data + b"\n\n"
