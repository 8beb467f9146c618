"""Certificate and key of the page: a pair renewed in its place is taken over while it serves."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from agent.config.cures import readable
from agent.config.web import WebSection
from agent.core.errors import ConfigError

log = structlog.get_logger()


def fits(section: WebSection | None) -> None:
    """Try the pair in a context that serves nobody. Raises `ConfigError` E285."""
    if section is None or section.cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(section.cert, section.key)
    except OSError as e:  # ssl.SSLError is one
        mismatch = getattr(e, "reason", "") == "KEY_VALUES_MISMATCH"
        why = "the key is another certificate's" if mismatch else e.strerror or str(e)
        raise ConfigError(
            f"the page cannot show its certificate ({why})",
            where=f"web, cert {section.cert}, key {section.key}",
            fix=readable(section.cert, section.key)
            or "Put a certificate and its key there, both in PEM, the key without a password.",
            code="E285",
        ) from e


class Pair:
    """What the page shows to new connections; those that are open keep what they were shown."""

    def __init__(self) -> None:
        self._live: tuple[ssl.SSLContext, WebSection] | None = None
        self._shown = b""

    @contextmanager
    def shown(self, context: ssl.SSLContext | None, section: WebSection) -> Iterator[None]:
        """*context* serves with the pair of *section* meanwhile."""
        if context is None:
            yield
            return
        self._live, self._shown = (context, section), _bytes(section)
        try:
            yield
        finally:
            self._live = None

    def renew(self) -> bool:
        """Show what the files hold now; False when it is the same, or does not fit: then all stays
        as it was.
        """
        if self._live is None:
            return False
        context, section = self._live
        found = _bytes(section)
        if found == self._shown:
            return False
        try:
            fits(section)
        except ConfigError as e:
            log.error("web.certificate_refused", error=str(e))  # noqa: TRY400
            return False
        context.load_cert_chain(str(section.cert), section.key)
        self._shown = found
        log.info("web.certificate", cert=section.cert)
        return True


def _bytes(section: WebSection) -> bytes:
    """What the two files hold; nothing of one that cannot be read."""
    found = []
    for path in (section.cert, section.key):
        try:
            found.append(Path(path or "").read_bytes())
        except OSError:
            found.append(b"")
    return b"\0".join(found)
