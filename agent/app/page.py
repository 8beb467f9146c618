"""The local page as a unit: it listens while the configuration says so."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

import structlog

from agent.app.status import status
from agent.config.cures import unit_setting
from agent.config.web import WebSection
from agent.core.errors import PermanentError
from agent.web.desk import Desk
from agent.web.pair import Pair, fits

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

log = structlog.get_logger()


def web(desk: Callable[[], Desk], section: WebSection, pair: Pair) -> Callable[[], Awaitable[None]]:
    """What the unit does: the page of *desk*, as *section* says, with the certificate of *pair*."""

    async def run() -> None:
        fits(section)
        await libraries()
        from agent.web.app import Page  # noqa: PLC0415
        from agent.web.server import serve  # noqa: PLC0415

        page = Page(desk(), section)
        with listening(section) as sock:
            host, port = sock.getsockname()[:2]
            log.info("web.listening", address=host, port=port, tls=section.cert is not None)
            if not section.loopback and not page.accounts.known():
                log.warning("web.code", code=page.accounts.code(), good_for_min=60)
            await serve(page.app(), sock, section, pair)

    return run


async def libraries() -> None:
    """Load what only a page needs: most gateways have none. Raises `PermanentError` E760."""
    try:
        await asyncio.to_thread(import_module, "agent.web.app")  # 0.2 s: not on the loop
        await asyncio.to_thread(import_module, "agent.web.server")
    except ImportError as e:
        raise PermanentError(
            f"the page needs a package that is not installed ({e.name})",
            where="web",
            fix="Install it with the page: pip install 'edge-agentd[web]'.",
            code="E760",
        ) from e


def desk(daemon: "Daemon") -> Desk:
    """The running agent as the page sees it."""
    return Desk(
        daemon.verbs,
        lambda: status(daemon),
        lambda: _own(daemon),
        daemon.stats,
        daemon.store.audit,
        daemon.clock,
        daemon.loaded.path.resolve(),
        daemon.ctx.data_dir / "web",
    )


def _own(daemon: "Daemon") -> Mapping[str, float]:
    """The newest row of the stream ``agent``."""
    channel = daemon.pipeline.channels.get("agent")
    if channel is None or channel.latest is None:
        return {}
    names = (tag.name.removeprefix("agent/") for tag in channel.latest.tags)
    return dict(zip(names, channel.latest.v[-1].tolist(), strict=True))


_LOW_PORT: Final = "Choose a port from 1024 up in `web: listen`. For this one: " + unit_setting(
    "port",
    "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
    "AmbientCapabilities=CAP_NET_BIND_SERVICE",
)


@contextlib.contextmanager
def listening(section: WebSection) -> Iterator[socket.socket]:
    """A socket that listens where *section* says. Raises `PermanentError` E768."""
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((section.host, section.port))
        except OSError as e:
            raise PermanentError(
                f"the page cannot listen on {section.listen} ({os.strerror(e.errno or 0)})",
                where="web",
                fix=_LOW_PORT
                if e.errno == errno.EACCES
                else "Choose a free port, and an address of this machine, in `web: listen`.",
                code="E768",
            ) from e
        sock.listen(64)
        yield sock
