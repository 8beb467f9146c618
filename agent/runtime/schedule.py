"""Things done again and again, with jitter, none of which can stop the others."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

import structlog
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from agent.core.cron import fields
from agent.core.errors import AgentError

log = structlog.get_logger()

FIRST_WITHIN_S: Final = 5.0
"""The first run comes within this time, at random: a fleet does not start in step."""

Work = Callable[[], Awaitable[object]]


@dataclass(slots=True, eq=False)
class _Job:
    """One thing to do, and how it fared the last time."""

    name: str
    work: Work
    error: str = ""


class _OnceADay(CronTrigger):  # type: ignore[misc]
    """A crontab line in a zone: a time that the clocks show twice, in autumn, counts once."""

    @classmethod
    def of(cls, at: str, zone: str) -> "_OnceADay":
        minute, hour, day, month, week = fields(at)
        return cls(
            minute=minute, hour=hour, day=day, month=month, day_of_week=week,
            timezone=ZoneInfo(zone),
        )  # fmt: skip

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        found: datetime | None = super().get_next_fire_time(previous, now)
        while found is not None and found.fold:
            found = super().get_next_fire_time(found, found)
        return found


class Schedule:
    """Jobs by id, running while the context is entered; one run of a job at a time."""

    def __init__(self) -> None:
        self._scheduler: Any = None
        self._running: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )
        self._scheduler.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Runs under way are cancelled, and have ended when this returns."""
        self._scheduler.remove_all_jobs()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._scheduler.shutdown(wait=False)
        await asyncio.sleep(0)  # the scheduler shuts down in the next turn of the loop

    def every(self, seconds: float, job_id: str, work: Work, jitter_s: float | None = None) -> None:
        """Run *work* every *seconds* until removed; a job of the same id is replaced.

        The first run comes within 5 s, or within *seconds* if that is less. Later ones are
        moved by up to *jitter_s* (default: a tenth of *seconds*) at random.
        """
        first_s = random.uniform(0.0, min(FIRST_WITHIN_S, seconds))
        self._scheduler.add_job(
            self._run,
            "interval",
            args=[_Job(job_id, work)],
            seconds=seconds,
            jitter=seconds / 10 if jitter_s is None else jitter_s,
            id=job_id,
            replace_existing=True,
            next_run_time=datetime.now(UTC) + timedelta(seconds=first_s),
        )

    def cron(self, at: str, zone: str, job_id: str, work: Work) -> None:
        """Run *work* at the times of the crontab line *at* in *zone* until removed."""
        self._scheduler.add_job(
            self._run,
            _OnceADay.of(at, zone),
            args=[_Job(job_id, work)],
            id=job_id,
            replace_existing=True,
        )

    def remove(self, job_id: str) -> None:
        """No more runs of this job; one under way is finished. Unknown ids are no error."""
        with suppress(JobLookupError):
            self._scheduler.remove_job(job_id)

    def stepped(self) -> None:
        """The wall clock was moved: no job waits for a time that is now years away."""
        for job in self._scheduler.get_jobs():
            if isinstance(job.trigger, _OnceADay):
                job.modify(next_run_time=job.trigger.get_next_fire_time(None, datetime.now(UTC)))
                continue
            first_s = random.uniform(0.0, FIRST_WITHIN_S)
            job.modify(next_run_time=datetime.now(UTC) + timedelta(seconds=first_s))

    async def _run(self, job: _Job) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        error = ""
        try:
            await job.work()
        except AgentError as e:
            error = str(e)
        if error and error != job.error:
            log.warning("job.failed", job=job.name, error=error)
        elif job.error and not error:
            log.info("job.recovered", job=job.name)
        job.error = error
