"""`edge-agent export`: samples out of the journal as CSV or Parquet, also while the agent runs."""

import csv
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from agent.cli.args import OK, data_dir
from agent.cli.duration import seconds
from agent.core.errors import AgentError

HELP = "write samples of tags as CSV or Parquet"

_BAR: Final = 30
_EVERY_S: Final = 0.2

CLOCKS: Final = ("epoch", "clock", "boot_s")

Rows = tuple[str, list[Any], Any]
"""Tag, values (texts where the tag is text, None where Bad), and the `Piece` they are of."""


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("-c", "--config", metavar="FILE", help="configuration")
    parser.add_argument("--tags", nargs="+", required=True, metavar="TAG", help="pump1/flow ...")
    parser.add_argument(
        "--from", dest="begin", type=instant, default="24h", metavar="TIME",
        help="2026-11-23, 2026-11-23T10:00Z, or how long ago: 24h (default)",
    )  # fmt: skip
    parser.add_argument("--to", dest="end", type=instant, default="0s", metavar="TIME")
    parser.add_argument(
        "--clocks", action="store_true",
        help="three columns more: epoch, state of the wall clock, s of the boot-time clock",
    )  # fmt: skip
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: stdout (CSV only)")


def instant(text: str) -> int:
    """A time as ns: ISO 8601 (UTC if it names no zone), or how long ago."""
    try:
        return time.time_ns() - int(seconds(text) * 1e9)
    except ArgumentTypeError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError as e:
        raise ArgumentTypeError(
            f"`{text}` is no time: write 2026-11-23T10:00Z, or 24h for a day ago"
        ) from e
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return int(when.timestamp()) * 10**9 + when.microsecond * 1000


def run(args: Namespace) -> int:
    """Stream the samples of one tag after the other; progress on stderr."""
    from agent.storage.historian import Historian  # noqa: PLC0415 - NumPy, only when needed

    if args.format == "parquet" and not args.output:
        raise AgentError("Parquet is no text", fix="Name a file: -o FILE.", code="E290")
    folder = data_dir(args)
    with Historian(folder) as historian, ExitStack() as stack:
        progress = _Progress(args.begin, args.end, len(args.tags))
        rows = _rows(historian, args, progress)
        if args.format == "parquet":
            _parquet(rows, Path(args.output), clocks=args.clocks)
        else:
            out: IO[str] = sys.stdout
            if args.output:
                out = stack.enter_context(Path(args.output).open("w", encoding="utf-8", newline=""))
            _csv(rows, out, clocks=args.clocks)
        progress.end()
    return OK


def _rows(historian: Any, args: Namespace, progress: "_Progress") -> Iterator[Rows]:
    from agent.core.quality import Quality  # noqa: PLC0415

    texts = historian.texts()
    for number, name in enumerate(args.tags):
        is_text = historian.is_text(name)
        for piece in historian.pieces(name, args.begin, args.end, clocks=args.clocks):
            if not len(piece.t):
                continue
            values: list[Any] = piece.v.tolist()
            if is_text:
                values = [texts.get((name, code)) for code in values]
            for i in (piece.q < Quality.UNCERTAIN).nonzero()[0].tolist():
                values[i] = None
            yield name, values, piece
            progress.at(number, int(piece.t[-1]), len(piece.t))


def _csv(rows: Iterator[Rows], out: IO[str], *, clocks: bool) -> None:
    from agent.codecs.json import timestamp  # noqa: PLC0415
    from agent.core.quality import word  # noqa: PLC0415

    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("time", "tag", "value", "quality") + (CLOCKS if clocks else ()))
    for name, values, piece in rows:
        lines = (
            (timestamp(at), name, "" if value is None else value, word(code))
            for at, value, code in zip(piece.t.tolist(), values, piece.q.tolist(), strict=True)
        )
        if not clocks:
            writer.writerows(lines)
            continue
        for line, boot_s in zip(lines, _boot_s(piece), strict=True):
            seen = "" if boot_s is None else f"{boot_s:.3f}"
            writer.writerow((*line, piece.epoch, piece.clock, seen))


def _boot_s(piece: Any) -> list[float | None]:
    """The boot-time clock of each sample, s; None where its block is of an older form."""
    if piece.boot is None:
        return [None] * len(piece.t)
    return list((piece.boot / 1e9).tolist())


def _parquet(rows: Iterator[Rows], path: Path, *, clocks: bool) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as e:
        raise AgentError(
            "Parquet needs pyarrow, which is not installed",
            fix="Install the extra: pip install 'edge-agentd[export]'; or use --format csv.",
            code="E508",
        ) from e
    words = pa.dictionary(pa.int32(), pa.string())
    more = zip(CLOCKS, (pa.int64(), words, pa.float64()), strict=True)
    schema = pa.schema([
        ("time", pa.timestamp("ns", "UTC")), ("tag", words), ("value", pa.float64()),
        ("text", pa.string()), ("quality", pa.uint8()), *(more if clocks else ()),
    ])  # fmt: skip

    def alike(text: str, n: int) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), [text])

    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for name, values, piece in rows:
            n = len(piece.t)
            is_text = any(isinstance(v, str) for v in values)
            nothing = [None] * n
            columns = [
                pa.array(piece.t, pa.timestamp("ns", "UTC")),
                alike(name, n),
                pa.array(nothing if is_text else values, pa.float64()),
                pa.array(values if is_text else nothing, pa.string()),
                pa.array(piece.q, pa.uint8()),
            ]
            if clocks:
                columns += [
                    pa.array([piece.epoch] * n, pa.int64()),
                    alike(piece.clock, n),
                    pa.array(_boot_s(piece), pa.float64()),
                ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


class _Progress:
    """A bar on stderr, where that is a terminal."""

    def __init__(self, begin: int, end: int, tags: int) -> None:
        self._begin, self._span, self._tags = begin, max(1, end - begin), max(1, tags)
        self._shown = sys.stderr.isatty()
        self._next = 0.0
        self._rows = 0

    def at(self, tag: int, t_ns: int, rows: int) -> None:
        """So far: within *tag*, up to *t_ns*."""
        self._rows += rows
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_S
            part = (tag + min(max(t_ns - self._begin, 0) / self._span, 1.0)) / self._tags
            self._draw(part)

    def _draw(self, part: float) -> None:
        bar = "#" * int(_BAR * part)
        sys.stderr.write(f"\r[{bar:{_BAR}}] {part:4.0%} {self._rows:,} samples")
        sys.stderr.flush()

    def end(self) -> None:
        """All of it."""
        if self._shown:
            self._draw(1.0)
            sys.stderr.write("\n")
        else:
            sys.stderr.write(f"{self._rows:,} samples\n")
