"""The verbs of a recording: it lives as long as somebody takes it, and writes no disk here."""

import secrets
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent import __version__
from agent.core.errors import PermanentError
from agent.core.requests import Caller, Verb
from agent.core.texts import NAMESPACE
from agent.sources.sunspec_polling import NAMESPACE as SUNSPEC

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

log = structlog.get_logger()

Args = Mapping[str, Any]

LEASE_S: Final = 15.0
"""A recording that nobody takes for so long has lost its owner, and ends."""

BUFFER: Final = 16 * 1024 * 1024
"""Bytes kept for whoever takes them: minutes of a busy gateway."""

PIECE: Final = 2 * 1024 * 1024
"""Bytes of one answer."""


class RecordVerbs:
    """``record.start`` gives a token, ``record.take`` what came since, ``record.stop`` ends it."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._lines: deque[bytes] = deque()
        self._kept = 0
        self._token, self._why, self._taken_s = "", "", 0.0

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {
            "record.start": Verb(self.start, admin=True),
            "record.take": Verb(self.take),
            "record.stop": Verb(self.stop, admin=True),
        }

    async def start(self, _args: Args, caller: Caller) -> Any:
        """Record every Modbus line from now on."""
        if self._daemon.recorder.on and not self._abandoned():
            raise PermanentError(
                "a recording runs already",
                fix=f"End the other one; it ends by itself {LEASE_S:g} s after its command.",
                code="E364",
            )
        self._daemon.recorder.stop("another one was begun")
        self._lines.clear()
        self._kept, self._why, self._token = 0, "", secrets.token_hex(8)
        self._taken_s = self._daemon.clock.mono_s()
        log.info("record.started", by=caller.actor)
        self._daemon.recorder.start(self._keep, head(self._daemon))
        return {"token": self._token}

    async def take(self, args: Args, _caller: Caller) -> Any:
        """What came since, and why nothing more will come; empty: more will."""
        self._owner(args)
        self._taken_s = self._daemon.clock.mono_s()
        some: list[bytes] = []
        size = 0
        while self._lines and size < PIECE:
            some.append(self._lines.popleft())
            size += len(some[-1])
        self._kept -= size
        over = not self._daemon.recorder.on and not self._lines
        return {"text": b"".join(some).decode(), "ended": (self._why or "ended") if over else ""}

    async def stop(self, args: Args, caller: Caller) -> Any:
        """Nothing more is recorded; what was is still there to be taken."""
        self._owner(args)
        self._end("the command ended it")
        log.info("record.stopped", by=caller.actor)
        return {}

    def _owner(self, args: Args) -> None:
        if not self._token or not secrets.compare_digest(str(args.get("token", "")), self._token):
            what = "there is no such recording: it ended, or another one was begun"
            raise PermanentError(what, fix="Begin a new one.", code="E364")

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._kept += len(line)
        if self._daemon.recorder.on and self._kept > BUFFER:
            self._end("it was not taken as fast as it grew")
        elif self._daemon.recorder.on and self._abandoned():
            self._end("nobody took it any more")
            log.warning("record.abandoned")
            self._lines.clear()

    def _abandoned(self) -> bool:
        return self._daemon.clock.mono_s() - self._taken_s > LEASE_S

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._daemon.recorder.stop(why)


def head(daemon: "Daemon") -> dict[str, Any]:
    """What a replay needs besides the records: the configuration, the codes of texts, and what
    SunSpec devices told of themselves.
    """
    loaded = daemon.loaded
    return {
        "agent": __version__,
        "config": loaded.whole.standalone,
        "digest": loaded.digest,
        "texts": dict(daemon.store.state.items(NAMESPACE)),
        "sunspec": dict(daemon.store.state.items(SUNSPEC)),
    }
