"""The verbs about back-tests: run one by hand, and see how far those are that run."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.app.past import WEEK_S, contender
from agent.core.errors import PermanentError
from agent.core.registry import Artifact
from agent.core.report import Report
from agent.core.requests import Caller, Verb
from agent.runtime.life import Release

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

Args = Mapping[str, Any]


class BacktestVerbs:
    """A version, or a file, over the history of the device."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {
            "models.backtest": Verb(self.backtest, admin=True),
            "models.backtests": Verb(self.running),
        }

    async def running(self, _args: Args, _caller: Caller) -> dict[str, float]:
        """Model -> how far its back-test is, 0 to 1."""
        return dict(self._daemon.models.past.running)

    async def backtest(self, args: Args, _caller: Caller) -> dict[str, Any]:
        """Model ``name`` over the last ``for_s``: its ``version``, a ``file``, or what is under
        way, beside what serves.
        """
        name, version, file = (str(args.get(k) or "") for k in ("name", "version", "file"))
        if name not in self._daemon.loaded.settings.models:
            known = ", ".join(self._daemon.loaded.settings.models) or "none"
            raise PermanentError(
                f"there is no model `{name}`", fix=f"Configured models: {known}.", code="E640"
            )
        span_s = _span_s(args.get("for_s", WEEK_S))
        release, past = self._daemon.rollout.release(name), self._daemon.models.past
        if file:
            given = await asyncio.to_thread(contender, name, Path(file))
            report = await past.against(name, given, release.active, span_s)
        else:
            candidate = _chosen(name, release, version)
            report = await past.backtest(name, candidate, release.active, span_s)
        return _told(name, report)


def _span_s(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise PermanentError(
            f"`{value!r:.40}` is no span of time", fix="Give `for_s`, in seconds.", code="E780"
        )
    return float(value)


def _chosen(name: str, release: Release, version: str) -> Artifact:
    """The version asked for; else what is under way; else what serves."""
    if version:
        some = [v.artifact for v in release.versions if v.artifact.version == version and v.kept]
    else:
        some = [v.artifact for v in (release.serving, release.candidate) if v is not None]
    if some:
        return some[-1]
    known = ", ".join(v.artifact.version for v in release.versions if v.kept) or "none"
    raise PermanentError(
        f"version `{version:.80}` is not on this gateway" if version else "it has no version yet",
        where=f"model {name}",
        fix=f"Versions here: {known}. Or name a file: --file MODEL.onnx.",
        code="E664",
    )


def _told(name: str, report: Report | None) -> dict[str, Any]:
    if report is None:
        raise PermanentError(
            "no whole window is stored of that time",
            where=f"model {name}",
            fix="Wait until rows of all its inputs are there, or ask for a longer time: --for.",
            code="E676",
        )
    return report.as_json()
