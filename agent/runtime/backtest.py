"""A candidate against the device's own history: step by step, in a process of its own.

Whose step takes the process down, or has no answer in time, is known: a candidate is refused for
it, a champion is left out, and anything else is no fault of either.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from agent.core.backtest import CANDIDATE, CHAMPION, Job
from agent.core.errors import AgentError, PermanentError, TransientError
from agent.core.ports import Clock, LoadedModel
from agent.core.report import Report

T = TypeVar("T")


class StepLost(Exception):
    """A step without a result.

    Attributes:
        again: Another attempt may go better: the process died, and not of its deadline.
    """

    def __init__(self, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.again = again


class Child(Protocol):
    """The process of one back-test. Every step raises `StepLost`."""

    async def load(self, slot: int, model: bytes, deadline_s: float) -> LoadedModel:
        """Load the model of an entrant."""
        ...

    async def open(self, job: Job, deadline_s: float) -> None:
        """Open the journal; all entrants are loaded."""
        ...

    async def next(self, deadline_s: float) -> float | None:
        """Begin with the next piece of the history: how far it goes, 0 to 1; None at the end."""
        ...

    async def score(self, slot: int, deadline_s: float) -> int:
        """Run one entrant for a while; how many windows of the piece are left."""
        ...

    async def report(self, deadline_s: float) -> Report:
        """What was found so far."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a back-test may take, s.

    Attributes:
        load_s, read_s, score_s: For one step.
        whole_s: For all; what was found until then is the report, and it says so.
    """

    load_s: float = 60.0
    read_s: float = 60.0
    score_s: float = 30.0
    whole_s: float = 540.0


@dataclass(frozen=True, slots=True)
class Means:
    """What a back-test runs in.

    Attributes:
        child: Starts the process; leaving ends it.
        fits: Raises `PermanentError` when what was loaded (slot) is not fit for the windows.
        tell: Told how far it is, 0 to 1.
    """

    child: Callable[[], AbstractAsyncContextManager[Child]]
    fits: Callable[[int, LoadedModel], None]
    tell: Callable[[float], None]
    clock: Clock
    limits: Limits = Limits()


ATTEMPTS: Final = 2


class _Blamed(Exception):
    """Why there is no report, and whose step it was; None: of neither."""

    def __init__(self, slot: int | None, lost: StepLost) -> None:
        super().__init__(str(lost))
        self.slot, self.again = slot, lost.again


async def backtest(means: Means, job: Job, models: Sequence[bytes]) -> Report | None:
    """The report on the candidate (and the champion) of *job*; None without a stored window.

    *models* are the files of its entrants. Raises `PermanentError` when the candidate fails
    (E674) or does not fit, `TransientError` when the back-test itself does (E675).
    """
    notes: tuple[str, ...] = ()
    left = ATTEMPTS
    while True:
        left -= 1
        try:
            report = await _once(means, job, models)
        except _Blamed as e:
            if e.again and left > 0:
                continue
            if e.slot != CHAMPION:
                raise _failed(job, e) from e
            notes = (f"version {job.entrants[CHAMPION].version}, which serves, failed: {e}",)
            job, models = replace(job, entrants=job.entrants[:CHAMPION]), models[:CHAMPION]
            left = ATTEMPTS
            continue
        return replace(report, notes=(*report.notes, *notes)) if report.windows else None


async def _once(means: Means, job: Job, models: Sequence[bytes]) -> Report:
    limits, until_s = means.limits, means.clock.mono_s() + means.limits.whole_s
    async with AsyncExitStack() as stack:
        child = await _asked(None, stack.enter_async_context(means.child()))
        for slot, model in enumerate(models):
            loaded = await _asked(slot, child.load(slot, model, limits.load_s))
            _check(means, slot, loaded)
        await _asked(None, child.open(job, limits.read_s))
        late, tried = False, 0.0
        while not late and (part := await _asked(None, child.next(limits.read_s))) is not None:
            for slot in range(len(models)):
                while not late and await _asked(slot, child.score(slot, limits.score_s)) > 0:
                    late = means.clock.mono_s() > until_s
            if not late:
                late, tried = means.clock.mono_s() > until_s, part
            means.tell(part)
        report = await _asked(None, child.report(limits.read_s))
    if not late:
        return report
    note = f"stopped after {limits.whole_s:g} s, with {tried:.0%} of the history tried"
    return replace(report, notes=(*report.notes, note))


def _check(means: Means, slot: int, loaded: LoadedModel) -> None:
    """A candidate that does not fit is refused; a champion is left out."""
    try:
        means.fits(slot, loaded)
    except PermanentError as e:
        if slot == CANDIDATE:
            raise
        raise _Blamed(slot, StepLost(e.what, again=False)) from e


async def _asked(slot: int | None, step: Awaitable[T]) -> T:
    try:
        return await step
    except StepLost as e:
        raise _Blamed(slot, e) from e


def _failed(job: Job, e: _Blamed) -> AgentError:
    if e.slot is None:
        return TransientError(
            f"the back-test failed: {e}",
            where=f"model {job.model}",
            fix="Ask again; see the log of the agent if it stays so.",
            code="E675",
        )
    return PermanentError(
        f"version {job.entrants[CANDIDATE].version} failed over the stored windows: {e}",
        where=f"model {job.model}",
        fix="Check the file with its author; the version in service stays.",
        code="E674",
    )
