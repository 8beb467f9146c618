"""The verbs about the log: its last events, and from which level on it tells."""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from agent import logs
from agent.core.errors import PermanentError
from agent.core.requests import Caller, Verb

log = structlog.get_logger()

Args = Mapping[str, Any]

LEVELS: Final = ("debug", "info", "warning", "error")


class LogVerbs:
    """``logs`` looks; ``log-level`` changes what is told until the agent ends."""

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {
            "logs": Verb(self.logs),
            "log-level": Verb(self.level, admin=True, remote=True),
        }

    async def logs(self, args: Args, _caller: Caller) -> Any:
        """The last ``limit`` (200) events from ``level`` (info) on, newest first."""
        levels = LEVELS[LEVELS.index(_level(args, "info")) :]
        limit = args.get("limit", 200)
        if type(limit) is not int or limit < 1:
            raise PermanentError("`limit` is no number", fix="Give 1 to 1000.", code="E780")
        told = [e for e in reversed(logs.recent) if e.get("level", "info") in (*levels, "critical")]
        return told[:limit]

    async def level(self, args: Args, caller: Caller) -> Any:
        """From ``level`` on events are told."""
        level = _level(args)
        logs.set_level(level)
        log.warning("log.level", level=level, by=caller.actor)
        return {"level": level}


def _level(args: Args, usual: str = "") -> str:
    level = str(args.get("level", usual))
    if level not in LEVELS:
        raise PermanentError(
            f"`{level}` is no level", fix=f"Write one of {', '.join(LEVELS)}.", code="E780"
        )
    return level
