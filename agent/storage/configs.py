"""The configurations that were accepted: the last good one, what came before it, what was refused.

Plain files below the data folder, so that they can be read when nothing else runs.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from agent.storage.files import sync_folder

log = structlog.get_logger()

KEEP: Final = 50
"""Accepted files that are kept."""

_FOLDER: Final = "config"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A configuration that ran here.

    Attributes:
        n: Number, from 1.
        at_ns: When it was taken over.
        by: Who asked for it: ``uid:0``, ``boot``; and what they said.
        verdict: ``good`` | ``probation`` | ``taken_back``.
        why: Why it was taken back; empty otherwise.
        text: The file with everything that it was made of.
    """

    n: int
    at_ns: int
    digest: str
    by: str
    verdict: str
    why: str
    text: str


class Configs:
    """What is kept about configurations in *data_dir*.

    A disk that refuses costs the history, never the running configuration: that is logged.
    """

    def __init__(self, data_dir: Path) -> None:
        self.good = data_dir / "last-good.yaml"
        self._folder = data_dir / _FOLDER

    def history(self) -> list[Accepted]:
        """Everything that is still kept, oldest first; what cannot be read is left out."""
        found = []
        for path in sorted(self._folder.glob("[0-9]*.json")):
            try:
                found.append(Accepted(**json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError) as e:
                log.warning("config.history_unreadable", file=str(path), error=str(e))
        return found

    def keep(self, one: Accepted) -> None:
        """Write *one*, over the entry of its number; a good one becomes the last good one."""
        if one.verdict == "good":
            self._write(self.good, one.text)
        self._write(self._folder / f"{one.n:06}.json", json.dumps(asdict(one)))
        for path in sorted(self._folder.glob("[0-9]*.json"))[:-KEEP]:
            path.unlink(missing_ok=True)

    def mark(self, name: str) -> Mapping[str, Any]:
        """Small facts that the next start must know: ``refused``, ``probation``; empty if none."""
        try:
            found = json.loads((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def set_mark(self, name: str, facts: Mapping[str, Any]) -> None:
        """Durable when this returns, or logged; empty facts take the mark away."""
        path = self._folder / f"{name}.json"
        if facts:
            self._write(path, json.dumps(dict(facts)))
            return
        try:
            path.unlink(missing_ok=True)
        except OSError as e:
            log.error("config.not_kept", file=str(path), error=str(e))  # noqa: TRY400

    def _write(self, path: Path, text: str) -> None:
        draft = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(text, encoding="utf-8")
            with draft.open("rb") as f:
                os.fsync(f.fileno())
            draft.replace(path)
            sync_folder(path.parent)
        except OSError as e:
            log.error("config.not_kept", file=str(path), error=str(e))  # noqa: TRY400
