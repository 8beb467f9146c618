"""The page's server inside of the agent's loop: no signals, no log of its own, ends when told."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from agent.config.web import WebSection
from agent.web.pair import Pair

GRACE_S: Final = 1
"""Answers under way may take so long when the page ends."""


class _Server(uvicorn.Server):
    """Signals are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: ASGIApp, sock: socket.socket, section: WebSection, pair: Pair) -> None:
    """Answer on *sock* until cancelled, with the certificate of *pair* where there is one."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=20,
        limit_concurrency=64,
        ssl_certfile=section.cert,
        ssl_keyfile=section.key,
    )
    config.load()
    server = _Server(config)
    with pair.shown(config.ssl, section):
        task = asyncio.ensure_future(server.serve(sockets=[sock]))
        try:
            await asyncio.shield(task)
        finally:
            server.should_exit = True
            await asyncio.wait({task})
