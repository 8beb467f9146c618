"""What a mistake, or advice, looks like: code, fact, place, the line with a caret, and the cure."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.core.errors import ConfigError
from agent.core.names import columns

UNCHANGED: Final = "Nothing was changed; the running configuration stays as it is."

_IN_URL: Final = re.compile(r"(?<=://)[^/@\s\"']+(?=@)")
_KEYED: Final = re.compile(
    r"""(["']?[\w-]*(?:password|passwd|secret|token|api_?key)["']?\s*:\s*)"""
    r"""(?!\s|\{\s*(?:file|credential)\s*:[^,{}]*\})("[^"]*"|'[^']*'|\{[^}]*\}?|[^}\n]+)""",
    re.IGNORECASE,
)


_SECRET_KEY: Final = re.compile(r"(?:password|passwd|secret|token|api_?key)$", re.IGNORECASE)


def names_secret(path: Sequence[str | int]) -> bool:
    """Does the last key of *path* say that a secret stands there."""
    return bool(path) and _SECRET_KEY.search(str(path[-1])) is not None


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the file, or one piece of advice (W3xx).

    Attributes:
        line, column: From 1, as editors count; 0 when the whole file is meant.
        width: Characters to underline.
        secret: What stands there, and behind it in the line, is never repeated.
        file: The profile that it is in; empty for the configuration itself.
        at: Advice only: what of the file is meant.
    """

    code: str
    what: str
    line: int = 0
    column: int = 0
    width: int = 1
    fix: str = ""
    secret: bool = False
    file: str = ""
    at: tuple[str | int, ...] = ()

    def as_json(self, file: str) -> dict[str, Any]:
        """Plain data: code, file, line, column, what, fix; *file* is the configuration itself."""
        told = ("code", "what", "line", "column", "fix")
        return {"file": self.file or file} | {name: getattr(self, name) for name in told}


class ConfigProblems(ConfigError):
    """The file is refused; every problem at once, those of its profiles after its own."""

    def __init__(
        self,
        file: str,
        text: str,
        problems: Sequence[Problem],
        profiles: Mapping[str, str] | None = None,
    ) -> None:
        """Args: *profiles* are the texts of the profile files, by file."""
        self.file, self.text = file, text
        self._texts = {"": text, **(profiles or {})}
        shown = (replace(p, what=conceal(p.what), fix=conceal(p.fix)) for p in _once(problems))
        self.problems = sorted(shown, key=lambda p: (p.file, p.line, p.column, p.code))
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        where = f"{first.file or file}:{first.line}"
        super().__init__(first.what + more, where=where, fix=first.fix, code=first.code)

    def render(self, tail: str = UNCHANGED) -> str:
        """Every problem as a technician reads it, and what it means for the running agent."""
        count = len(self.problems)
        parts = [render(self.file, self._texts, p) for p in self.problems]
        return "\n\n".join([*parts, f"{count} error{'s' if count > 1 else ''}. {tail}"])

    def as_json(self) -> list[dict[str, Any]]:
        """Every problem as plain data: code, file, line, column, what, fix."""
        return [p.as_json(self.file) for p in self.problems]


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """A profile that many devices use has each of its problems once, not once per device."""
    found: dict[object, Problem] = {}
    for p in problems:
        alike = (p.file, p.line, p.column, p.code, p.fix or p.what) if p.line else p
        found.setdefault(alike, p)
    return list(found.values())


def render(file: str, texts: Mapping[str, str], p: Problem) -> str:
    """A problem as a technician reads it; *texts*: file -> text, that of *file* itself under ""."""
    file, lines = p.file or file, texts.get(p.file, "").splitlines()
    text = [f"{'warning' if p.code.startswith('W') else 'error'}[{p.code}]: {p.what}"]
    if p.line:
        text.append(f"  --> {file}:{p.line}:{p.column}")
        number = str(p.line)
        pad = " " * (len(number) + 1)
        line = conceal(lines[p.line - 1]) if p.line <= len(lines) else ""
        if p.secret:
            line = line[: p.column - 1] + re.sub(r"[^\s{}]", "*", line[p.column - 1 :])
        text += [f"{pad} |", f" {number} | {line}"]
        before, marked = line[: p.column - 1], line[p.column - 1 :][: p.width]
        blank = columns(before) + p.column - 1 - len(before)
        carets = columns(marked) + p.width - len(marked)
        text.append(f"{pad} | {' ' * blank}{'^' * max(1, carets)}")
    else:
        text.append(f"  --> {file}")
    if p.fix:
        text.append(f"   = help: {p.fix}")
    return "\n".join(text)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The known word that is meant, as a question; empty when none is near."""
    close = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""


def conceal(text: str) -> str:
    """*text* with the same length, without what looks like a secret: the user part of an URL,
    and what stands behind a key called password, token or the like.
    """
    text = _IN_URL.sub(lambda m: "*" * len(m[0]), text)
    return _KEYED.sub(lambda m: m[1] + "*" * len(m[2].rstrip()), text)
