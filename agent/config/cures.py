"""The one command that cures what our unit, or the rights of a file, refuse the agent."""

import os
import re
from pathlib import Path
from shlex import quote
from typing import Final

_HIDDEN: Final = re.compile(r"/(home|root|tmp|var/tmp|run/user)/")
"""What the unit shows nobody (`ProtectHome=`, `PrivateTmp=`): the agent sees nothing there."""
_OWN: Final = "/etc/edge-agent/"


def readable(*paths: str | None) -> str:
    """What lets the agent read the first of the files *paths* that it may not; empty if none is."""
    for path in paths:
        if path is None or os.access(path, os.R_OK) or _absent(path):
            continue
        if path.startswith(_OWN):
            return f"Run: sudo chown edge-agent {quote(path)}"
        new = _OWN + Path(path).name
        copy = f"sudo install -o edge-agent -m 400 {quote(path)} {quote(new)}"
        return f"Run: {copy}; then name {new} here."
    return ""


def readable_folder(path: Path) -> str:
    """What lets the agent read the folder *path*; empty when it may."""
    if os.access(path, os.R_OK | os.X_OK):
        return ""
    new = f"/srv/{path.name}"
    copy = f"sudo cp -rT --no-preserve=mode {quote(str(path))} {quote(new)}"
    return f"Run: {copy}; then name {new} here."


def _absent(path: str) -> bool:
    """It is not there, and not just hidden."""
    try:
        return not _HIDDEN.match(path) and not Path(path).exists()
    except OSError:
        return False


def unit_setting(name: str, *lines: str) -> str:
    """What adds *lines* to the unit, in a file of their own, and starts the agent with them."""
    text = "\\n".join(("[Service]", *lines, ""))
    return (
        f"Run: printf {quote(text)} | sudo install -D -m 644 /dev/stdin "
        f"/etc/systemd/system/edge-agent.service.d/{name}.conf && sudo systemctl daemon-reload "
        "&& sudo systemctl restart edge-agent"
    )


def writable(folder: Path) -> str:
    """What lets the agent write in *folder*; empty when it may, or when no disk is there."""
    if os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        return ""
    if folder.stat().st_uid != os.geteuid():
        return f"Run: sudo chown -R edge-agent {quote(str(folder))}"
    return unit_setting("data", f"ReadWritePaths={folder}")
