"""Name lookup that cannot hang anybody else: a silent DNS server costs one thread per host."""

import asyncio
import ipaddress
import socket
import threading


class Lookup:
    """Addresses of one host. At most one lookup is under way, however long it takes."""

    def __init__(self, host: str) -> None:
        self._host, self._next = host, 0
        self._pending: asyncio.Future[str] | None = None

    async def address(self) -> str:
        """An address of the host; OSError when there is none.

        A host with several (``localhost``: ``::1`` and ``127.0.0.1``) gives the next one each
        time, so that whoever tries again tries another. Cancel it freely: a lookup that goes on
        is joined by the next call.
        """
        try:
            return str(ipaddress.ip_address(self._host))
        except ValueError:
            pass
        if self._pending is None or self._pending.done():
            self._pending = self._begin()
        return await asyncio.shield(self._pending)

    def _begin(self) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        future.add_done_callback(lambda f: f.cancelled() or f.exception())

        def finish(address: str | None, error: OSError | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(address or "")

        def run() -> None:
            address, error = None, None
            try:
                found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
                address = str(found[self._next % len(found)][4][0])
                self._next += 1
            except OSError as e:
                error = e
            except UnicodeError as e:
                error = OSError(f"no host name: {e}")
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, address, error)

        threading.Thread(target=run, name=f"lookup {self._host}", daemon=True).start()
        return future
