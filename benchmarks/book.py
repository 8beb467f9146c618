"""The tables of docs/benchmarks.md: rewritten between markers, the prose is by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.figure import Figure, machine, versions

BEGIN: Final = "<!-- figures: written by `make bench-book` -->"
END: Final = "<!-- end of figures -->"


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | measured | must | | seen beside it |", "|---|---|---|---|---|"]
    lines += [
        f"| `{f.name}` | {f.value:g} {f.unit} | {f.must} | {'yes' if f.holds else '**missed**'} "
        f"| {_facts(f.reference)} |"
        for f in figures
    ]
    return "\n".join(lines)


def _facts(reference: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} ({_facts(value)})" if isinstance(value, Mapping) else f"{key} {_words(value)}"
        for key, value in reference.items()
    )


def _words(value: Any) -> str:
    return " to ".join(f"{v:,}" for v in value) if isinstance(value, list) else f"{value:,}"


def rewrite(path: Path, figures: Sequence[Figure]) -> None:
    """Put the table of *figures*, the machine and the versions between the markers of *path*."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: no `{BEGIN}` followed by `{END}`")
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    body = f"\n\n{table(figures)}\n\nMachine: {machine()}.\nVersions: {used}.\n\n"
    path.write_text(before + BEGIN + body + END + after, encoding="utf-8")
