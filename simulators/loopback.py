"""An HTTP server on loopback in a thread of its own, ended with its block."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class LoopbackServer:
    """Serves what *handler* answers, on a port that the system chose."""

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
    ) -> None:
        self._handler, self._tls, self._closing = handler, tls, threading.Event()

    @property
    def base(self) -> str:
        """Address of the server."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler)
        self._server.daemon_threads = True
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def closing(self) -> bool:
        """Is the server about to end."""
        return self._closing.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait; True when the server is about to end."""
        return self._closing.wait(seconds)
