"""`edge-agent models backtest`: a version over the history of the device, beside what serves."""

import json
import sys
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.cli.args import DEGRADED, OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.duration import seconds
from agent.cli.table import age, number, table, when
from agent.core.errors import AgentError

HELP = "run a version over stored history, beside what serves: alarms side by side"

_WITHIN_S: Final = 1800.0
_EVERY_S: Final = 0.5
_BAR: Final = 30
_ALARMS: Final = 20
"""Alarms that are listed; all of them are in the JSON."""


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("name", help="name of the model in the configuration")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", help="a version on this gateway (default: what is under way)")
    which.add_argument("--file", metavar="FILE", help="an ONNX file, with its manifest beside it")
    parser.add_argument(
        "--for", dest="span_s", type=seconds, default="7d", metavar="TIME",
        help="how much of the past: 24h, 7d (default)",
    )  # fmt: skip
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """Ask for it, show how far it is, print the report."""
    path = find_socket(args)
    file = str(Path(args.file).absolute()) if args.file else ""
    progress = _Progress(path, args.name)
    threading.Thread(target=progress.draw, daemon=True).start()
    try:
        report = ask(
            path, "models.backtest", _WITHIN_S,
            name=args.name, version=args.version or "", file=file, for_s=args.span_s,
        )  # fmt: skip
    finally:
        progress.end()
    cost = f"{report['cpu_s']:.1f} s of CPU, {report['peak_bytes'] / 1e6:.0f} MB"
    print(f"{report['windows']:,} windows, {cost}", file=sys.stderr)
    print(json.dumps(report, indent=2) if args.json else "\n".join(_text(report)))
    mine = report["candidate"]
    return DEGRADED if mine["finite"] < mine["scored"] or _silenced(report) else OK


class _Progress:
    """A bar on stderr, where that is a terminal."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._over = threading.Event()
        self._drawn = False

    def draw(self) -> None:
        """Ask and show, until the end."""
        while sys.stderr.isatty() and not self._over.wait(_EVERY_S):
            try:
                part = ask(self._path, "models.backtests").get(self._name)
            except AgentError:
                return
            if part is not None and not self._over.is_set():
                self._drawn = True
                sys.stderr.write(f"\r[{'#' * int(_BAR * part):{_BAR}}] {part:4.0%}")
                sys.stderr.flush()

    def end(self) -> None:
        """No more."""
        self._over.set()
        if self._drawn:
            sys.stderr.write("\r" + " " * (_BAR + 8) + "\r")


def _silenced(report: Any) -> list[Any]:
    return [p for p in report["past"] if p["label"] != "dismissed" and p["candidate"] is False]


def _text(report: Any) -> Iterator[str]:
    mine, theirs = report["candidate"], report["champion"]
    sides = [mine] if theirs is None else [mine, theirs]
    heads = [f"CANDIDATE {mine['version']}"]
    heads += [] if theirs is None else [f"IN SERVICE {theirs['version']}"]
    span_s = (report["end_ns"] - report["begin_ns"]) / 1e9
    yield f"{report['model']}: the last {age(span_s)}, windows from " + " to ".join(
        when(report[k]) for k in ("first_ns", "last_ns")
    )
    yield ""
    yield table(["", *heads], [[name, *map(value, sides)] for name, value in _LINES])
    yield ""
    yield f"not scored: {report['bad']} with a Bad input, {report['gated']} outside `when:`"
    if report["agreement"] is not None:
        yield f"same verdict: {report['agreement']:.2%} of the windows"
    yield from (f"note: {note}" for note in report["notes"])
    yield from _side_by_side(sides)
    yield from _past(report, theirs is not None)


def _quantile(side: Any, at: int) -> str:
    return number(side["quantiles"][at]) if side["quantiles"] else "-"


def _decided(side: Any, text: str) -> str:
    return text if side["decides"] else "no decision"


_LINES: Final = (
    ("windows scored", lambda s: str(s["scored"])),
    ("without a number", lambda s: str(s["scored"] - s["finite"])),
    ("alarm stands in", lambda s: _decided(s, f"{s['flagged'] / max(s['scored'], 1):.2%}")),
    ("alarms", lambda s: _decided(s, str(s["raised"]))),
    ("median score", lambda s: _quantile(s, 3)),
    ("95 % of scores", lambda s: _quantile(s, 5)),
    ("greatest score", lambda s: _quantile(s, 6)),
    ("score drift", lambda s: number(s["drift"])),
    ("CPU", lambda s: f"{s['cpu_s']:.2f} s"),
)


def _side_by_side(sides: Sequence[Any]) -> Iterator[str]:
    """The alarms of both by time, those that overlap on one line: since when, and how long each
    would have stood.
    """
    some = sorted(
        ((a["instance"], a["begin_ns"], a["end_ns"], i)
         for i, side in enumerate(sides) for a in side["alarms"]),
        key=lambda one: one[:2],
    )  # fmt: skip
    spells: list[_Spell] = []
    for instance, begin_ns, end_ns, i in some:
        last = spells[-1] if spells and spells[-1].instance == instance else None
        if last is None or (last.end_ns is not None and begin_ns > last.end_ns):
            spells.append(last := _Spell(instance, begin_ns, end_ns, [[] for _ in sides]))
        elif last.end_ns is not None:
            last.end_ns = None if end_ns is None else max(last.end_ns, end_ns)
        last.stood[i].append(None if end_ns is None else (end_ns - begin_ns) / 1e9)
    if not spells:
        return
    spells.sort(key=lambda s: s.begin_ns)
    rows = [[when(s.begin_ns), s.instance, *map(_stood, s.stood)] for s in spells[:_ALARMS]]
    yield ""
    yield table(["ALARM FROM", "MACHINE", *("CANDIDATE", "IN SERVICE")[: len(sides)]], rows)
    if len(spells) > _ALARMS:
        yield f"... and {len(spells) - _ALARMS} more: --json"


@dataclass(slots=True)
class _Spell:
    """A time in which an alarm of one side or the other stands.

    Attributes:
        stood: Of each side how long each of its alarms stood, s; None: to the end.
    """

    instance: str
    begin_ns: int
    end_ns: int | None
    stood: list[list[float | None]]


def _stood(times: Sequence[float | None]) -> str:
    if not times:
        return ""
    told = "still stands" if None in times else age(sum(t or 0.0 for t in times))
    return told if len(times) == 1 else f"{len(times)} alarms, {told}"


def _past(report: Any, champion: bool) -> Iterator[str]:
    """What people have said of past alarms, and what the versions say."""
    if not report["past"]:
        return
    word = {True: "found", False: "MISSED", None: "not stored"}
    quiet = {True: "raised again", False: "silent", None: "not stored"}
    rows: list[list[str]] = []
    for p in report["past"]:
        words = quiet if p["label"] == "dismissed" else word
        sides = [p["candidate"], *([p["champion"]] if champion else [])]
        rows.append(
            [p["alarm"], when(p["begin_ns"]), p["label"] or "stands", *(words[s] for s in sides)]
        )
    yield ""
    heads = ["CANDIDATE", "IN SERVICE"][: 2 if champion else 1]
    yield table(["PAST ALARM", "FROM", "WAS", *heads], rows)
