"""`edge-agent`: picks the command, imports only that one, and speaks plainly when it fails."""

import importlib
import os
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Sequence
from types import ModuleType
from typing import Final

from agent import __version__
from agent.cli.args import INTERNAL, complain, exit_code
from agent.core.errors import AgentError

COMMANDS: Final = (
    "run", "check", "plan", "apply", "reload", "config", "status", "top", "outbox", "export",
    "backup", "restore", "alarms", "read", "write", "models", "fleet", "tags", "explain", "tail",
    "trend", "maintenance", "force", "scan", "probe", "dry-run", "doctor", "bundle", "record",
    "replay", "simulate", "web", "log-level", "demo",
)  # fmt: skip
"""Each is a module here with ``HELP``, ``add(parser)`` and ``run(args) -> exit code``."""

_INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141
_DEFECTS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ExceptionGroup,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
EXIT_CODES: Final = {
    0: "ok",
    1: "degraded, or something was found",
    2: "wrong use",
    3: "not running",
    69: "unavailable",
    70: "defect",
    75: "try again",
    77: "permission",
    78: "configuration",
}
_CODES: Final = "exit codes: " + "; ".join(f"{n} {word}" for n, word in EXIT_CODES.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Argparse ends the program by itself for wrong use (2)."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = command_line(words).parse_args(words)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except AgentError as e:
        complain(e)
        return exit_code(e)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read has enough; the interpreter must not stumble over it again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except _DEFECTS as e:
        traceback.print_exc()
        print(f"error[E779]: this is a defect ({type(e).__name__}: {e})", file=sys.stderr)
        return INTERNAL
    return code


def command_line(words: Sequence[str]) -> ArgumentParser:
    """The parser, with the command asked for; with all of them when it is not clear which."""
    parser = ArgumentParser(
        prog="edge-agent",
        description="Collect, score, buffer and publish the data of industrial machines.",
        epilog=_CODES,
    )
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        module = _module(name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add(command)
        command.set_defaults(run=module.run)
    return parser


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"agent.cli.{name.replace('-', '_')}")


if __name__ == "__main__":
    raise SystemExit(main())
