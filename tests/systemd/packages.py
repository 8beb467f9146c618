"""Packages like the built one under other versions, with another agent in them if wanted."""

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Final

from tests.systemd.machine import CHECKOUT

BUILT: Final = sorted((CHECKOUT / "dist").glob("edge-agent_*_amd64.deb"))
_READY: Final = 'notify("READY=1", self.status_line())'
_DIES: Final = 'print("this version cannot start", flush=True); __import__("os")._exit(1)'
_LAST: Final = "VERSION: Final = len(MIGRATIONS)"
_NEWER: Final = f'MIGRATIONS += ("CREATE TABLE newer(x);",)  # type: ignore\n{_LAST}'


def never_ready() -> dict[str, bytes]:
    """A version with a newer journal that dies where it should say that it is ready."""
    changes = {"agent/app/daemon.py": (_READY, _DIES), "agent/storage/schema.py": (_LAST, _NEWER)}
    made: dict[str, bytes] = {}
    for name, (there, instead) in changes.items():
        text = (CHECKOUT / name).read_text()
        assert there in text, name
        made[name] = text.replace(there, instead).encode()
    return made


def release(folder: Path, version: str, changes: dict[str, bytes] | None = None) -> Path:
    """A package called *version*, whose agent says so, and in which the files of *changes* are
    others.
    """
    root = folder / version
    subprocess.run(["dpkg-deb", "-R", BUILT[-1], root], check=True)
    control = root / "DEBIAN" / "control"
    old = next(s.split()[1] for s in control.read_text().splitlines() if s.startswith("Version:"))
    for name in ("control", "postinst", "prerm", "postrm", "md5sums"):
        file = root / "DEBIAN" / name
        file.write_text(file.read_text().replace(old, version) if name != "md5sums" else "")
    home = (root / "opt/edge-agent" / old).rename(root / "opt/edge-agent" / version)
    named = {"agent/__init__.py": f'__version__ = "{version}"\n'.encode()}
    wheel = next((home / "wheels").glob("edge_agentd-*.whl"))
    _change(wheel, named | (changes or {}))
    _pin_again(home / "requirements.txt", wheel)
    made = folder / f"{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "-b", root, made],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(root)
    return made


def _change(wheel: Path, changes: dict[str, bytes]) -> None:
    before = wheel.rename(wheel.with_suffix(".before"))
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(wheel, "w") as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name) or old.read(name))
    before.unlink()


def _pin_again(pins: Path, wheel: Path) -> None:
    digest = subprocess.check_output(["sha256sum", wheel], text=True).split()[0]
    lines = [
        f"{line.split()[0]} --hash=sha256:{digest}" if line.startswith("edge-agentd==") else line
        for line in pins.read_text().splitlines()
    ]
    pins.write_text("\n".join(lines) + "\n")
