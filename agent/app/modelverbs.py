"""The verbs about models: what there is, what happened, and what an operator decides."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.core.errors import PermanentError
from agent.core.requests import Caller, Verb

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

Args = Mapping[str, Any]


class ModelVerbs:
    """Who asks is in the audit trail with what was asked, and why."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._hand = daemon.rollout.by_hand

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {
            "models.list": Verb(self.list),
            "models.history": Verb(self.history),
            "models.pull": Verb(self.pull, admin=True, remote=True),
            "models.score": Verb(self.score, admin=True),
            "models.promote": Verb(self.promote, admin=True, remote=True),
            "models.rollback": Verb(self.rollback, admin=True, remote=True),
            "models.pin": Verb(self.pin, admin=True, remote=True),
            "models.hold": Verb(self.hold, admin=True, remote=True),
            "models.block": Verb(self.block, admin=True, remote=True),
        }

    async def list(self, _args: Args, _caller: Caller) -> Any:
        """Every model, and where its versions are."""
        learning = self._daemon.models.learning
        return [{**e, **learning.facts(e["name"])} for e in self._daemon.rollout.list()]

    async def history(self, args: Args, _caller: Caller) -> Any:
        """Every move of the versions of ``name`` and every decision about it, oldest first."""
        name = self._model(args)
        rows = await self._daemon.store.audit.rows()
        about = [
            r for r in rows if r["kind"].startswith("model.") and r["facts"].get("model") == name
        ]
        return [_told(row) for row in about]

    async def pull(self, args: Args, caller: Caller) -> Any:
        """What the channel has, now."""
        return await self._daemon.rollout.pull(self._model(args), caller.actor)

    async def score(self, args: Args, _caller: Caller) -> Any:
        """What the journal holds since the last run of ``batch:``: windows by machine."""
        return {"windows": await self._daemon.models.score(self._model(args))}

    async def promote(self, args: Args, caller: Caller) -> Any:
        """What waits need not wait any more."""
        return await self._hand.promote(self._model(args), caller.actor, _why(args))

    async def rollback(self, args: Args, caller: Caller) -> Any:
        """Back to the version before, or to version ``to``."""
        to = str(args.get("to") or "")
        return await self._hand.rollback(self._model(args), caller.actor, _why(args), to)

    async def pin(self, args: Args, caller: Caller) -> Any:
        """Only ``version`` (without it: the one that serves), or with ``off`` any again."""
        return await self._hand.pin(
            self._model(args), caller.actor, _why(args), _version(args), off=_off(args)
        )

    async def hold(self, args: Args, caller: Caller) -> Any:
        """Nothing moves forward by itself, or with ``off`` it does again."""
        return await self._hand.hold(self._model(args), caller.actor, _why(args), off=_off(args))

    async def block(self, args: Args, caller: Caller) -> Any:
        """``version`` is not taken any more, or with ``off`` it may be again."""
        return await self._hand.block(
            self._model(args), caller.actor, _why(args), _version(args), off=_off(args)
        )

    def _model(self, args: Args) -> str:
        name, known = str(args.get("name", "")), self._daemon.loaded.settings.models
        if name not in known:
            raise PermanentError(
                f"there is no model `{name}`",
                fix=f"Configured models: {', '.join(known) or 'none'}.",
                code="E640",
            )
        return name


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the trail as the history of a model has it."""
    facts = row["facts"]
    return {
        "at_ns": row["at_ns"],
        "what": row["kind"].removeprefix("model."),
        "version": facts.get("version"),
        "release": facts.get("release"),
        "digest": facts.get("digest"),
        "who": row["actor"],
        "why": facts.get("why") or None,
    }


def _why(args: Args) -> str:
    return str(args.get("why") or "")[:200]


def _version(args: Args) -> str:
    return str(args.get("version") or "")


def _off(args: Args) -> bool:
    return args.get("off") is True
