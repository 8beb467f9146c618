"""What a mistake looks like: code, fact, place, the line with a caret, and the cure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the file.

    Attributes:
        line, column: From 1, as editors count; 0 when the whole file is meant.
        width: Characters to underline.
        secret: What stands there is never repeated.
    """

    code: str
    what: str
    line: int = 0
    column: int = 0
    width: int = 1
    fix: str = ""
    secret: bool = False


class ConfigProblems(ConfigError):
    """The file is refused; every problem at once."""

    def __init__(self, file: str, text: str, problems: Sequence[Problem]) -> None:
        self.file, self.text = file, text
        self.problems = sorted(problems, key=lambda p: (p.line, p.column, p.code))
        first = self.problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            first.what + more, where=f"{file}:{first.line}", fix=first.fix, code=first.code
        )

    def render(self) -> str:
        """Every problem as a technician reads it, and what it means for the running agent."""
        lines = self.text.splitlines()
        count = len(self.problems)
        parts = [_render(self.file, lines, p) for p in self.problems]
        tail = "Nothing was changed; the running configuration stays as it is."
        return "\n\n".join([*parts, f"{count} error{'s' if count > 1 else ''}. {tail}"])

    def as_json(self) -> list[dict[str, Any]]:
        """Every problem as plain data: code, file, line, column, what, fix."""
        return [
            {"file": self.file}
            | {k: v for k, v in asdict(p).items() if k not in {"width", "secret"}}
            for p in self.problems
        ]


def _render(file: str, lines: list[str], p: Problem) -> str:
    text = [f"error[{p.code}]: {p.what}"]
    if p.line:
        text.append(f"  --> {file}:{p.line}:{p.column}")
        number = str(p.line)
        pad = " " * (len(number) + 1)
        line = lines[p.line - 1] if p.line <= len(lines) else ""
        if p.secret:
            end = p.column - 1 + p.width
            line = line[: p.column - 1] + "*" * p.width + line[end:]
        text += [f"{pad} |", f" {number} | {line}"]
        text.append(f"{pad} | {' ' * (p.column - 1)}{'^' * max(1, p.width)}")
    else:
        text.append(f"  --> {file}")
    if p.fix:
        text.append(f"   = help: {p.fix}")
    return "\n".join(text)
