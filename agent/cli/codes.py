"""What a code means and what to do: the table of docs/operations.md, which comes with the agent."""

import re
from typing import Final

from agent.config.places import shipped
from agent.core.errors import AgentError

CODE: Final = re.compile(r"^[EAW]\d{3}$")

_SHIPPED: Final = shipped("docs/operations.md", "operations.md")
_ROW: Final = re.compile(r"^\| ((?:[EAW]\d{3}(?:, )?)+) \| (.+) \| (.+) \|$", re.MULTILINE)


EVENT: Final = re.compile(r"^[a-z_]+\.[a-z_]+$")
_EVENT: Final = re.compile(r"^\| `([a-z_]+\.[a-z_]+)` \| (.+) \| `(.+)` \|$", re.MULTILINE)
_COMMAND: Final = re.compile(r"^`((?:edge-agent|journalctl|systemctl|timedatectl|ip) [^`]+)`")
_RANGE: Final = re.compile(r"^\| ([EAW]\d{3}) to ([EAW]\d{3}) \| `(.+)` \|$", re.MULTILINE)


def first_command(code: str) -> str:
    """What to run first: the command its cure begins with, else that of its range; or empty."""
    if own := _COMMAND.match(explained(code)[1]):
        return own[1]
    ranges = _RANGE.findall(_page())
    return next((told for low, high, told in ranges if low <= code <= high), "")


def event(name: str) -> tuple[str, str]:
    """What the event *name* of the log means, and the first command; E788 when there is none."""
    for known, meaning, command in _EVENT.findall(_page()):
        if known == name:
            return meaning, command
    raise AgentError(
        f"there is no event {name}", fix="docs/operations.md has the table.", code="E788"
    )


def _page() -> str:
    page = next((p for p in _SHIPPED if p.is_file()), None)
    return "" if page is None else page.read_text(encoding="utf-8")


def explained(code: str) -> tuple[str, str]:
    """What *code* means, and what to do; raises `AgentError` E788 for one that there is not."""
    text = _page()
    for codes, meaning, cure in _ROW.findall(text):
        if code in codes.split(", "):
            return meaning, cure
    raise AgentError(
        f"there is no code {code}" if text else "the table of codes is not installed",
        fix="Codes are E001 to E799, A101 to A199 and W301 to W399; docs/operations.md has them.",
        code="E788",
    )
