"""The manual page, out of the parser: ``python -m agent.cli.manual > docs/edge-agent.1``."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent import __version__
from agent.cli.args import CONFIG, SOCKET
from agent.cli.main import COMMANDS, EXIT_CODES, command_line
from agent.config.places import DATA_DIR

_FILES: Final = {
    CONFIG: "the configuration; conf.d/*.yaml beside it belongs to it",
    DATA_DIR: "journal, models, state, audit trail, last good configuration",
    SOCKET: "where the commands reach the agent",
}
_ENVIRONMENT: Final = {
    "EDGE_AGENT_SOCKET": "the control socket, where neither --socket nor --config is given",
    "NO_COLOR": "no colours on a terminal",
}


def page() -> str:
    """The page in the language of man(7)."""
    parser = command_line(())
    lines = [
        f'.TH EDGE-AGENT 1 "" "edge-agent {__version__}"',
        *(".SH NAME", f"edge-agent \\- {_text(parser.description)}"),
        *(".SH SYNOPSIS", ".B edge-agent", r".I COMMAND", r"[\fIOPTIONS\fR]"),
        *(".SH COMMANDS",),
    ]
    commands = _commands(parser)
    for name in COMMANDS:
        lines += _command(f"edge-agent {name}", commands[name])
    lines += [".SH EXIT STATUS", *_table(EXIT_CODES), ".SH FILES", *_table(_FILES)]
    lines += [".SH ENVIRONMENT", *_table(_ENVIRONMENT)]
    lines += [".SH SEE ALSO", _text("docs/operations.md; edge-agent explain CODE"), ""]
    return "\n".join(lines)


def _commands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """What stands below *parser*: name -> parser. argparse has no public way to ask."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return action.choices
    return {}


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """One command with its options, and those below it."""
    below = _commands(parser)
    options = [a for a in parser._actions if a.dest not in {"help", argparse.SUPPRESS}]  # noqa: SLF001
    options = [a for a in options if not isinstance(a, argparse._SubParsersAction)]  # noqa: SLF001
    if not below or " " not in name.removeprefix("edge-agent "):
        yield f".SS {_text(name)}"
        yield _text(parser.description or "")
    for action in options:
        yield from (".TP", _option(action), _text(action.help or "") or r"\&")
    for word, one in below.items():
        yield from _command(f"{name} {word}", one)


def _option(action: argparse.Action) -> str:
    """``-c, --config FILE``, as on every version of Python."""
    if not action.option_strings:
        return rf"\fI{_text(_wanted(action))}\fR"
    names = ", ".join(rf"\fB{_text(word)}\fR" for word in action.option_strings)
    return names if action.nargs == 0 else rf"{names} \fI{_text(_wanted(action))}\fR"


def _wanted(action: argparse.Action) -> str:
    if action.choices:
        return "|".join(map(str, action.choices))
    name: Any = action.metavar or action.dest.upper()
    return name if isinstance(name, str) else " ".join(name)


def _table(entries: Mapping[Any, str]) -> Iterator[str]:
    for key, meaning in entries.items():
        yield from (".TP", rf"\fB{_text(str(key))}\fR", _text(meaning))


def _text(text: str | None) -> str:
    """*text* as man(7) shows it: hyphens that can be copied, and no line that is a request."""
    plain = (text or "").replace("\\", r"\e").replace("-", r"\-").replace("%%", "%")
    return rf"\&{plain}" if plain.startswith((".", "'")) else plain


if __name__ == "__main__":
    print(page(), end="")
