"""Certificates that the configuration names: none must be over unnoticed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.config.base import Section
from agent.config.schema import Settings
from agent.core.ports import Clock
from agent.core.stats import Stats
from agent.links.certificates import days_left

EACH_S: Final = 3600.0

Files = tuple[str | None, str | None]
"""Paths of our own certificate and of the authority's."""


def certificates(settings: Settings) -> dict[str, Files]:
    """Who is met with certificates: ``sink/plant`` -> the files."""
    groups: dict[str, Mapping[str, Section]] = {
        "sink": settings.sinks,
        "source": settings.devices,
        "registry": settings.registries,
    }
    if settings.web is not None:
        groups["web"] = {"page": settings.web}
    return {
        f"{kind}/{name}": files
        for kind, sections in groups.items()
        for name, section in sections.items()
        if any(files := (getattr(section, "cert", None), getattr(section, "ca", None)))
    }


def written(files: Mapping[str, Files]) -> list[int]:
    """When each of them was written, ns; 0 for one that is not there. A reload after which it
    differs counts the days anew.
    """
    paths = [Path(path) for some in files.values() for path in some if path is not None]
    return [_written(path) for path in paths]


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def watch(files: Mapping[str, Files], clock: Clock, stats: Stats) -> Callable[[], Awaitable[None]]:
    """Count the days that the certificates of each peer are still good for, now and each hour."""

    async def run() -> None:
        while True:
            now = datetime.fromtimestamp(clock.wall_ns() / 1e9, UTC)
            for name, (cert, ca) in files.items():
                days = await asyncio.to_thread(days_left, cert, ca, now)
                stats.set(f"{name}.certificate_days", days)
            await asyncio.sleep(EACH_S)

    return run
