"""Arguments and manners that every command of a running agent shares."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from agent.config.places import DATA_DIR, data_dir_in
from agent.core.errors import AgentError

OK: Final = 0
DEGRADED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
UNAVAILABLE: Final = 69
INTERNAL: Final = 70
TRY_AGAIN: Final = 75
PERMISSION: Final = 77
CONFIGURATION: Final = 78

CONFIG: Final = "/etc/edge-agent/edge-agent.yaml"
SOCKET: Final = "/run/edge-agent/control.sock"

_EXITS: Final = {
    "E290": USAGE,
    "E350": USAGE,
    "E351": USAGE,
    "E354": DEGRADED,
    "E355": DEGRADED,
    "E356": PERMISSION,
    "E357": PERMISSION,
    "E358": TRY_AGAIN,
    "E359": USAGE,
    "E511": USAGE,
    "E512": USAGE,
    "E647": DEGRADED,
    "E655": DEGRADED,
    "E657": DEGRADED,
    "E649": TRY_AGAIN,
    "E664": USAGE,
    "E665": USAGE,
    "E674": DEGRADED,
    "E675": TRY_AGAIN,
    "E676": DEGRADED,
    "E770": PERMISSION,
    "E772": INTERNAL,
    "E774": UNAVAILABLE,
    "E775": NOT_RUNNING,
    "E776": PERMISSION,
    "E777": TRY_AGAIN,
    "E778": UNAVAILABLE,
    "E779": INTERNAL,
    "E780": USAGE,
    "E781": USAGE,
    "E785": USAGE,
    "E786": DEGRADED,
    "E787": USAGE,
    "E783": UNAVAILABLE,
    "E788": USAGE,
}


def add_daemon(parser: ArgumentParser) -> None:
    """``--config`` and ``--socket``: which agent is meant."""
    parser.add_argument("-c", "--config", metavar="FILE", help=f"configuration (default {CONFIG})")
    parser.add_argument("--socket", metavar="PATH", help=f"control socket (default {SOCKET})")


def add_json(parser: ArgumentParser) -> None:
    """``--json``: the same facts for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def find_socket(args: Namespace) -> Path:
    """The control socket: asked for, in the environment, in the usual place, of the file."""
    if args.socket:
        return Path(args.socket)
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    usual = Path(runtime) / "control.sock" if runtime else Path(SOCKET)
    if args.config and args.config != CONFIG:
        return data_dir(args) / "control.sock"
    if found := os.environ.get("EDGE_AGENT_SOCKET"):
        return Path(found)
    return usual if _may_exist(usual) else data_dir(args) / "control.sock"


def _may_exist(path: Path) -> bool:
    """False only when it certainly is not there: a closed folder may hide it."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def data_dir(args: Namespace) -> Path:
    """The data folder that the configuration names, by its line ``data_dir:`` alone."""
    try:
        text = Path(args.config or CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError as e:
        if args.config:
            raise AgentError(
                f"the file cannot be read ({e.strerror})",
                where=args.config,
                fix="Correct the path given with --config.",
                code="E003",
            ) from e
        return Path(DATA_DIR)
    return Path(data_dir_in(text) or DATA_DIR)


def exit_code(error: AgentError) -> int:
    """What the command ends with when *error* is the reason."""
    if error.code in _EXITS:
        return _EXITS[error.code]
    family = error.code[:2]
    if family in ("E0", "E1", "E2"):
        return CONFIGURATION
    return UNAVAILABLE if family in ("E3", "E4", "E5", "E6") else INTERNAL


def complain(error: AgentError) -> None:
    """Say on stderr what happened, where, and what to do."""
    render = getattr(error, "render", None)
    if callable(render) and (text := render()):  # every problem of a refused file
        print(text, file=sys.stderr)
        return
    code = f"[{error.code}]" if error.code else ""
    print(f"error{code}: {error.what}", file=sys.stderr)
    if error.where:
        print(f"  --> {error.where}", file=sys.stderr)
    if error.fix:
        print(f"   = help: {error.fix}", file=sys.stderr)
