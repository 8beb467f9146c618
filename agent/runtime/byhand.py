"""What an operator decides about versions: each decision is in the audit trail, with who and why.

No version that waits, and no rule, stands above a person; but what a person asks for and cannot be
done changes nothing.
"""

from collections.abc import Callable
from typing import Any, Final

from agent.core.errors import PermanentError
from agent.runtime.life import Release, Version
from agent.runtime.releases import Releases
from agent.runtime.service import Service
from agent.runtime.stages import OUT, SERVING, UNDER_WAY, Stage
from agent.runtime.steps import Steps
from agent.runtime.versions import Entry, Watched

OPERATOR: Final = "operator"
"""Who asks when nobody says who."""


class ByHand:
    """Promote, go back, pin, hold, block.

    Every method raises `AgentError`, with nothing changed, when it cannot be done, and gives the
    entry of `Rollout.list` with ``result``.

    Args:
        watched: The model of a name (E640), and its entry as it is then.
    """

    def __init__(
        self,
        releases: Releases,
        service: Service,
        steps: Steps,
        watched: Callable[[str], tuple[Watched, Callable[[], Entry]]],
    ) -> None:
        self._releases, self._service, self._steps = releases, service, steps
        self._watched = watched

    async def promote(self, name: str, actor: str = OPERATOR, why: str = "") -> Entry:
        """What waits goes on at once: out of shadow into service, or out of its probation."""
        one, entry = self._watched(name)
        async with one.polling:
            release = self._releases.get(name)
            candidate, serving = release.candidate, release.serving
            if candidate is not None and candidate.stage not in _NOT_HERE:
                await self._steps.advance(one, one.choice, actor, promoted=why or "promoted")
            elif serving is not None and serving.stage is Stage.PROBATION:
                async with one.change:
                    now_ns = self._releases.now_ns()
                    changed = self._releases.get(name).taken(
                        serving.digest, Stage.ACTIVE, now_ns, why or "promoted"
                    )
                    await self._releases.move(name, changed, actor)
                await self._service.collect(one)
            else:
                raise PermanentError(
                    "no version waits",
                    where=f"model {name}",
                    fix=f"`edge-agent models pull {name}` takes what the channel has.",
                    code="E657",
                )
        return entry() | {"result": "promoted"}

    async def rollback(
        self, name: str, actor: str = OPERATOR, why: str = "", to: str = ""
    ) -> Entry:
        """Put the version before (or *to*) into service, and block the one that serves."""
        one, entry = self._watched(name)
        target = self._on_disk(name, to) if to else None
        await self._service.roll_back(one, actor, why or "rolled back", to=target)
        return entry() | {"result": "rolled_back"}

    async def pin(
        self, name: str, actor: str = OPERATOR, why: str = "", version: str = "", off: bool = False
    ) -> Entry:
        """Serve this version (what serves now, if none is named) and no other, until unpinned."""
        one, entry = self._watched(name)
        if off:
            await self._decide(one, "model.unpinned", actor, why, pinned="")
            return entry() | {"result": "unpinned"}
        target = self._on_disk(name, version) if version else self._serves(name)
        if target.digest != one.serving:
            await self._service.put_back(one, target, actor, why or "pinned")
        await self._decide(one, "model.pinned", actor, why, pinned=target.digest)
        return entry() | {"result": "pinned"}

    async def hold(
        self, name: str, actor: str = OPERATOR, why: str = "", off: bool = False
    ) -> Entry:
        """Nothing new comes and nothing that waits goes on, until released; what fails goes."""
        one, entry = self._watched(name)
        kind = "model.released" if off else "model.held"
        await self._decide(one, kind, actor, why, held=not off)
        return entry() | {"result": "released" if off else "held"}

    async def block(
        self, name: str, actor: str = OPERATOR, why: str = "", version: str = "", off: bool = False
    ) -> Entry:
        """Do not take a version any more; if it serves, the one before does again."""
        one, entry = self._watched(name)
        found = self._known(name, version)
        if off:
            await self._unblock(one, found, actor, why)
            return entry() | {"result": "unblocked"}
        if found.digest == one.serving:
            await self._service.roll_back(one, actor, why or "blocked", stage=Stage.BLOCKED)
        else:
            await self._steps.block(one, found, actor, why or "blocked")
        return entry() | {"result": "blocked"}

    async def _unblock(self, one: Watched, version: Version, actor: str, why: str) -> None:
        if version.stage in OUT:
            changed = self._releases.get(one.name).moved(
                version.digest, Stage.RETIRED, self._releases.now_ns(), why or "unblocked"
            )
            await self._releases.move(one.name, changed, actor)
        one.fresh()

    async def _decide(self, one: Watched, kind: str, actor: str, why: str, **changes: Any) -> None:
        await self._releases.decide(one.name, kind, actor, why, **changes)
        one.fresh()

    # Which version

    def _serves(self, name: str) -> Version:
        serving = self._releases.get(name).serving
        if serving is None:
            raise _no_version(name, "no version serves")
        return serving

    def _known(self, name: str, word: str) -> Version:
        """The newest version of that name, or of a digest that begins so."""
        release = self._releases.get(name)
        found = release.named(word)
        if found is None:
            raise _no_version(name, f"there is no version `{word:.80}`", release)
        return found

    def _on_disk(self, name: str, word: str) -> Version:
        """One that can serve at once."""
        found = self._known(name, word)
        if found.stage in _NOT_HERE | {Stage.REJECTED} or not found.kept:
            raise _no_version(
                name,
                f"version {found.artifact.version} is {found.stage} and cannot serve from here",
                self._releases.get(name),
            )
        return found


_NOT_HERE: Final = frozenset({Stage.DISCOVERED, Stage.DOWNLOADING})


def _no_version(name: str, what: str, release: Release | None = None) -> PermanentError:
    versions = () if release is None else release.versions
    known = ", ".join(
        v.artifact.version
        for v in versions
        if v.kept and v.stage in SERVING | UNDER_WAY | OUT | {Stage.RETIRED}
    )
    return PermanentError(
        what,
        where=f"model {name}",
        fix=f"On the disk: {known or 'none'}. `edge-agent models history {name}` lists them all.",
        code="E655",
    )
