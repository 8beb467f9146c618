"""Which configuration to run: the file, or the last good one when the file is broken."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.config.load import ConfigProblems, Whole, load_whole
from agent.config.places import DATA_DIR, data_dir_in
from agent.config.schema import Settings
from agent.plugins import installed

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that was accepted.

    Attributes:
        whole: What was read; its ``standalone`` is kept as the last good one.
        last_good: True when *path* was refused and the last good file runs instead.
    """

    whole: Whole
    path: Path
    last_good: bool = False

    @property
    def settings(self) -> Settings:
        """What the file asks for."""
        return self.whole.settings

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the file, and of all that it is made of."""
        texts = [self.whole.text, *self.whole.others.values()]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def accept(path: Path) -> Loaded:
    """Load *path*; raises `ConfigProblems` with every problem when it is refused."""
    return Loaded(load_whole(path, installed()), path)


def boot(path: Path) -> Loaded:
    """Load *path*, or the last good file when it is refused.

    Raises `ConfigProblems` of *path* when there is no last good file either: a gateway far from
    everybody rather runs yesterday's configuration, loudly, than none.
    """
    try:
        return accept(path)
    except ConfigProblems as refused:
        good = last_good_path(data_dir_of(path))
        if not good.is_file():
            raise
        try:
            loaded = accept(good)
        except ConfigProblems:
            raise refused from None
        log.error("config.last_good", file=str(path), runs=str(good), error=str(refused))  # noqa: TRY400
        return Loaded(loaded.whole, path, last_good=True)


def keep(loaded: Loaded) -> None:
    """Remember an accepted file as the last good one; a full disk is no reason to stop."""
    target = last_good_path(Path(loaded.settings.data_dir))
    draft = target.with_suffix(".new")
    try:
        draft.write_text(loaded.whole.standalone, encoding="utf-8")
        with draft.open("rb") as f:
            os.fsync(f.fileno())
        draft.replace(target)
    except OSError as e:
        log.error("config.last_good_not_kept", file=str(target), error=str(e))  # noqa: TRY400


def last_good_path(data_dir: Path) -> Path:
    """Where the last good configuration is kept."""
    return data_dir / "last-good.yaml"


def data_dir_of(path: Path) -> Path:
    """The data folder of a file that may be broken: its line ``data_dir:``, else the usual one."""
    try:
        found = data_dir_in(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        found = None
    return Path(found or os.environ.get("STATE_DIRECTORY", DATA_DIR))
