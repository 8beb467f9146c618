"""`edge-agent bundle`: what helps to find a fault, in one archive, and no secret in it."""

import io
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tarfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from agent import __version__
from agent.cli.args import CONFIG, OK, add_daemon, data_dir, find_socket
from agent.cli.client import ask
from agent.core.errors import AgentError

HELP = "pack what helps to find a fault into one archive, without secrets; needs no running agent"

PART: Final = 4_000_000
"""The newest bytes of a part that are kept; text of this size packs into a fraction of 10 MB."""

_WITHIN_S: Final = 30.0
_NAMED: Final = r"(?:password|passwd|secret|token|api_?key)[\"']?\s*:\s*"
_IN_FILE: Final = re.compile(
    _NAMED + r"\{?\s*[\"']?file[\"']?\s*:\s*[\"']?([^\"'{},#\n]+)", re.IGNORECASE
)
_INLINE: Final = re.compile(_NAMED + r"[\"']?([^\s\"'{},#]{4,})", re.IGNORECASE)
_LOOKS: Final = (
    ("df", "-h"),
    ("df", "-i"),
    ("findmnt", "--notruncate"),
    ("free", "-m"),
    ("uptime",),
    ("timedatectl",),
    ("systemctl", "status", "edge-agent", "--no-pager"),
)


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--to", type=Path, default=Path(), metavar="DIR", help="default: here")
    add_daemon(parser)


def run(args: Namespace) -> int:
    """Write the archive, and say where it is."""
    config = Path(args.config or CONFIG)
    try:
        folder = data_dir(args)
    except AgentError:  # no such file: that is what the archive will say
        folder = Path("/var/lib/edge-agent")
    print(write(args.to, _parts(args, config, folder), _secrets(config, folder)))
    return OK


def write(to: Path, parts: Iterator[tuple[str, Callable[[], str]]], secrets: list[str]) -> Path:
    """The archive of all *parts* in *to*. A part that cannot be had says why in its place.

    Raises `AgentError` E783 when the archive itself cannot be written.
    """
    from agent.config.report import conceal  # noqa: PLC0415 - other commands start without it

    path = to / f"edge-agent-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as archive:
            for name, make in parts:
                text = _tried(make)[-PART:]
                for secret in secrets:
                    text = text.replace(secret, "***")
                data = conceal(text).encode(errors="replace")
                info = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
                info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
                archive.addfile(info, io.BytesIO(data))
        path.chmod(0o600)
    except OSError as e:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise AgentError(
            f"the archive cannot be written ({e.strerror or e})",
            where=str(path),
            fix="Give another folder with --to: a stick, or /tmp.",
            code="E783",
        ) from e
    return path


def _parts(args: Namespace, config: Path, folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    from agent.storage.audit import read_trail  # noqa: PLC0415

    def asked(verb: str) -> str:
        return _json(ask(find_socket(args), verb, 5.0))

    yield "about.txt", _about
    yield "config.yaml", partial(config.read_text, encoding="utf-8", errors="replace")
    yield "last-good.yaml", partial((folder / "last-good.yaml").read_text, encoding="utf-8")
    for verb in ("status", "outbox", "models.list", "alarms.list", "overrides"):
        yield f"{verb}.json", partial(asked, verb)
    yield "doctor.txt", partial(_ours, "doctor", "-c", str(config))
    yield "check.txt", partial(_ours, "check", str(config))
    yield "audit.json", lambda: _json(read_trail(folder)[-2000:])
    yield "files.txt", partial(_said, "ls", "-lR", "--time-style=full-iso", str(folder))
    yield "system.txt", lambda: "\n".join(f"$ {' '.join(w)}\n{_tried(w)}" for w in _LOOKS)
    yield (
        "log.txt",
        partial(
            _said, "journalctl", "-u", "edge-agent", "-n", "20000", "--no-pager", "-o", "short-iso"
        ),
    )


def _tried(make: Callable[[], str] | tuple[str, ...]) -> str:
    try:
        return make() if callable(make) else _said(*make)
    except (AgentError, OSError, ValueError, sqlite3.Error, subprocess.SubprocessError) as e:
        return f"not to be had: {e}\n"


def _about() -> str:
    system = platform.uname()
    return (
        f"edge-agent {__version__}, Python {platform.python_version()}\n"
        f"{system.system} {system.release} {system.machine}\n"
        f"{datetime.now(UTC).isoformat()} (UTC), user {os.geteuid()}\n"
    )


def _ours(*words: str) -> str:
    """What another command of ours says; a defect of it cannot spoil the archive."""
    return _said(sys.executable, "-m", "agent", *words)


def _said(*words: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed words, and a path of the one who asks
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_WITHIN_S,
        check=False,
        text=True,
        errors="replace",
    )
    return done.stdout


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False)


def _secrets(config: Path, folder: Path) -> list[str]:
    """Every secret that the files name, or hold although they must not; the longest first."""
    found: set[str] = set()
    for text in (_quiet(config), _quiet(folder / "last-good.yaml")):
        found.update(_INLINE.findall(text))
        found.update(_quiet(Path(name.strip())).strip() for name in _IN_FILE.findall(text))
    return sorted((s for s in found if len(s) >= 4), key=len, reverse=True)


def _quiet(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as f:
            return f.read(1_000_000)
    except OSError:
        return ""
