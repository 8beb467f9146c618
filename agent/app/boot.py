"""Which configuration to run: the file, or the last good one when the file is broken."""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from agent import __version__
from agent.config.load import ConfigProblems, Whole, load_whole
from agent.config.places import DATA_DIR, data_dir_in
from agent.config.schema import Settings
from agent.plugins import installed
from agent.storage.configs import Accepted, Configs

log = structlog.get_logger()

MAX_STARTS: Final = 3
"""Starts within one probation; the configuration that needs another one is taken back."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was accepted.

    Attributes:
        whole: What was read; its ``standalone`` is kept as the last good one.
        last_good: True when *path* is not what runs, but the last good file.
        why: Why that is so.
    """

    whole: Whole
    path: Path
    last_good: bool = False
    why: str = ""

    @property
    def settings(self) -> Settings:
        """What the file asks for."""
        return self.whole.settings

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the file, and of all that it is made of."""
        return digest_of([self.whole.text, *self.whole.others.values()])


def digest_of(texts: Sequence[str]) -> str:
    """The digest of a file and of all that it is made of, in the order in which it is read."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def accept(path: Path) -> Loaded:
    """Load *path*; raises `ConfigProblems` with every problem when it is refused."""
    return Loaded(load_whole(path, installed()), path)


def boot(path: Path) -> Loaded:
    """Load *path*, or the last good file when it is refused or was taken back.

    Raises `ConfigProblems` of *path* when there is no last good file either: a gateway far from
    everybody rather runs yesterday's configuration, loudly, than none.
    """
    try:
        loaded = accept(path)
    except ConfigProblems as refused:
        good = last_good(Configs(data_dir_of(path)), path, str(refused))
        if good is None:
            raise
        log.error("config.last_good", file=str(path), error=str(refused))  # noqa: TRY400
        return good
    configs = Configs(Path(loaded.settings.data_dir))
    why = taken_back(configs, loaded.digest)
    good = last_good(configs, path, why) if why else None
    if good is None:
        return loaded
    log.error("config.last_good", file=str(path), error=why)
    return good


def last_good(configs: Configs, path: Path, why: str) -> Loaded | None:
    """The last good configuration in place of *path*; None when there is none that is accepted."""
    if not configs.good.is_file():
        return None
    try:
        return Loaded(accept(configs.good).whole, path, last_good=True, why=why)
    except ConfigProblems:
        return None


def taken_back(configs: Configs, digest: str) -> str:
    """Why the file with *digest* must not run; empty when it may. Counts starts on probation.

    Only those of the version of the agent that took it over: another one, which may be on trial
    itself, proves nothing against the file.
    """
    refused, probation = configs.mark("refused"), configs.mark("probation")
    if refused.get("digest") == digest:
        return str(refused.get("why"))
    if probation.get("digest") != digest or probation.get("version") != __version__:
        return ""
    starts = int(probation.get("starts", 0)) + 1
    if starts < MAX_STARTS:
        configs.set_mark("probation", {**probation, "starts": starts})
        return ""
    why = f"it was taken back: the agent had to start {starts} times while it was on probation"
    configs.set_mark("refused", {"digest": digest, "why": why})
    configs.set_mark("probation", {})
    return why


def keep(loaded: Loaded, by: str = "boot", verdict: str = "good", why: str = "") -> None:
    """Remember what was accepted; the same once more, and its verdict is brought up to date."""
    configs = Configs(Path(loaded.settings.data_dir))
    history = configs.history()
    last = history[-1] if history else None
    if last is not None and last.digest == loaded.digest:
        n, at_ns, by = last.n, last.at_ns, last.by
    else:
        n, at_ns = (last.n + 1 if last else 1), time.time_ns()
    text = loaded.whole.standalone
    configs.keep(Accepted(n, at_ns, loaded.digest, by, verdict, why, text))


def data_dir_of(path: Path) -> Path:
    """The data folder of a file that may be broken: its line ``data_dir:``, else the usual one."""
    try:
        found = data_dir_in(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = None
    return Path(found or os.environ.get("STATE_DIRECTORY", DATA_DIR))
