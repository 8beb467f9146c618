"""The verbs about the configuration: what would change, take it over, go back, what was before."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.app.changes import compare
from agent.app.status import reasons
from agent.app.takeover import Wish
from agent.config.base import parse_seconds
from agent.config.load import ConfigProblems, loads_whole
from agent.config.report import conceal
from agent.core.errors import ConfigError
from agent.core.requests import Caller, Verb
from agent.plugins import installed
from agent.runtime.units import Diff
from agent.storage.configs import Configs

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

Args = Mapping[str, Any]


class ConfigVerbs:
    """``reload`` and ``config.*``."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {
            "reload": Verb(self.reload, admin=True, remote=True),
            "config.text": Verb(self.text),
            "config.plan": Verb(self.plan),
            "config.verdict": Verb(self.verdict),
            "config.history": Verb(self.history),
            "config.rollback": Verb(self.rollback, admin=True),
        }

    async def reload(self, args: Args, caller: Caller) -> Any:
        """Take over the file; ``breaking``, ``probation`` and ``by`` as the caller wishes."""
        given = args.get("probation")
        wish = Wish(
            f"{caller.actor} {args.get('by', '')}".strip(),
            breaking=args.get("breaking") is True,
            probation_s=None if given is None else parse_seconds(given),
        )
        try:
            diff = await self._daemon.takeover.take(wish)
        except ConfigError as e:
            return refusal(e)
        return self._done(diff) | {"probation": self._daemon.takeover.facts()}

    async def text(self, _args: Args, _caller: Caller) -> Any:
        """What runs, as one file without what looks like a secret."""
        return {"text": conceal(self._daemon.loaded.whole.standalone)}

    async def plan(self, args: Args, _caller: Caller) -> Any:
        """What the file, or ``text`` in its place, would change."""
        text = args.get("text")
        try:
            if not isinstance(text, str):
                return self._daemon.takeover.plan().as_json()
            whole = loads_whole(text, str(args.get("name", "draft")), installed())
        except ConfigError as e:
            return refusal(e)
        return compare(self._daemon.loaded.settings, whole.settings).as_json()

    async def verdict(self, _args: Args, _caller: Caller) -> Any:
        """Wait for the end of the probation under way."""
        why = await self._daemon.takeover.wait()
        return {
            "digest": self._daemon.loaded.digest,
            "taken_back": why or None,
            "reasons": reasons(self._daemon),
        }

    async def history(self, _args: Args, _caller: Caller) -> Any:
        """What ran here, oldest first."""
        return histories(Path(self._daemon.loaded.settings.data_dir))

    async def rollback(self, args: Args, caller: Caller) -> Any:
        """The good configuration before this one runs again."""
        said = str(args.get("by", ""))
        why = f"rolled back by {caller.actor} {said}".strip() + time.strftime(" at %Y-%m-%d %H:%M")
        try:
            diff = await self._daemon.takeover.back(why, caller.actor)
        except ConfigError as e:
            return refusal(e)
        return self._done(diff)

    def _done(self, diff: Diff) -> dict[str, Any]:
        facts = {"added": diff.added, "changed": diff.changed, "removed": diff.removed}
        return facts | {"digest": self._daemon.loaded.digest}


def histories(data_dir: Path) -> list[dict[str, Any]]:
    """What ran here, oldest first, as plain data."""
    return [asdict(one) for one in Configs(data_dir).history()]


def refusal(error: ConfigError) -> dict[str, Any]:
    """Why a file is not taken over, in words and as data."""
    if isinstance(error, ConfigProblems):
        return {"refused": error.render(), "problems": error.as_json()}
    return {"refused": str(error), "problems": [], "code": error.code}
