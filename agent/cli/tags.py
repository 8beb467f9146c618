"""`edge-agent tags`: register maps as spreadsheets, spreadsheets and devices as profiles."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.args import CONFIG, CONFIGURATION, OK
from agent.cli.sunspec import add_sunspec, sunspec_profile
from agent.core.errors import ConfigError

if TYPE_CHECKING:
    from agent.config.report import Problem

HELP = "tag lists as spreadsheets (export, import), or from the device itself (sunspec)"
_GIVEN: dict[str, Any] = {"connect": "tcp://127.0.0.1:502", "unit": 1}
"""What a profile leaves to the device."""


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="verb")
    out = verbs.add_parser("export", help="write a register map as a spreadsheet (CSV)")
    out.add_argument("sheet", metavar="FILE.csv", help="a new file, or - for stdout")
    what = out.add_mutually_exclusive_group(required=True)
    what.add_argument("--profile", metavar="NAME", help="a profile: its name, or a path")
    what.add_argument("--device", metavar="NAME", help="a device, its profile merged in")
    out.add_argument("-c", "--config", metavar="FILE", help=f"configuration (default {CONFIG})")
    out.add_argument(
        "--decimal",
        choices=("point", "comma"),
        default="point",
        help="decimal sign; with a comma the columns are divided by semicolons",
    )
    into = verbs.add_parser("import", help="make a profile of a spreadsheet")
    into.add_argument("sheet", metavar="FILE.csv", help="as a spreadsheet program saves it")
    into.add_argument("-o", "--output", metavar="FILE", help="a new file (default: stdout)")
    into.add_argument("--addressing", help="how the device counts, where the sheet does not say")
    into.add_argument("--encoding", help="when it was not saved as CSV UTF-8: cp1252, cp949, ...")
    add_sunspec(verbs.add_parser("sunspec", help="make a profile of what a device says of itself"))


def run(args: Namespace) -> int:
    """Write what was asked for; a file that exists is never touched."""
    if args.verb == "sunspec":
        _write(args.output or "-", sunspec_profile(args).encode())
        return OK
    return _export(args) if args.verb == "export" else _import(args)


def _export(args: Namespace) -> int:
    from agent.config.examine import device_data, profile_data  # noqa: PLC0415 - takes its time
    from agent.config.sheet import write  # noqa: PLC0415
    from agent.plugins import installed  # noqa: PLC0415
    from agent.sources.modbus_sheet import rows  # noqa: PLC0415

    if args.profile:
        beside = Path(args.config) if args.config else None
        data = profile_data(args.profile, _GIVEN, installed(), beside)
    else:
        data = device_data(Path(args.config or CONFIG), args.device, installed())
    if data.get("type") != "modbus":
        what = f"only Modbus tags are kept in spreadsheets, this is `{data.get('type')}`"
        where = args.profile or args.device
        raise ConfigError(what, where=where, fix="Choose a Modbus device.", code="E330")
    _write(args.sheet, write(rows(data, args.decimal), args.decimal))
    print(f"{len(data['tags'])} tags", file=sys.stderr)
    return OK


def _import(args: Namespace) -> int:
    from agent.config.document import parse  # noqa: PLC0415 - takes its time
    from agent.config.examine import examine  # noqa: PLC0415
    from agent.config.report import ConfigProblems, Problem  # noqa: PLC0415
    from agent.config.sheet import read  # noqa: PLC0415
    from agent.plugins import installed  # noqa: PLC0415
    from agent.sources.modbus_sheet import Sheet, text  # noqa: PLC0415

    sheet = Sheet(read(_read(args.sheet), args.sheet, args.encoding))
    sheet.data = {"type": "modbus", **sheet.data}
    if args.addressing:
        sheet.data.setdefault("addressing", args.addressing)
    problems = list(sheet.problems)
    if "addressing" not in sheet.data:
        what = "the sheet does not say how the device counts its registers"
        fix = ("Put a row `#addressing` with zero_based, one_based, modicon5 or modicon6 above the "
               "column names, or use --addressing.")  # fmt: skip
        problems.append(Problem("E101", what, 1, 1, fix=fix))
    elif "tags" in sheet.data:
        try:
            examine(sheet.document(Path(args.sheet).stem, _GIVEN), args.sheet, installed())
        except ConfigProblems as refused:
            known = {(p.line, p.column) for p in problems}
            problems += [p for p in refused.problems if (p.line, p.column) not in known]
    if problems:
        _complain(args.sheet, sorted(problems, key=lambda p: (p.line, p.column)))
        return CONFIGURATION
    made = text(sheet.data, Path(args.sheet).name)
    if parse(made).data != sheet.data:
        raise AssertionError(f"{args.sheet} would not come back as it is")
    _write(args.output or "-", made.encode())
    print(f"{len(sheet.data['tags'])} tags", file=sys.stderr)
    return OK


def _complain(file: str, problems: "Sequence[Problem]") -> None:
    """Every problem with the row and the column of its cell."""
    from agent.config.sheet import letters  # noqa: PLC0415

    for p in problems:
        print(f"error[{p.code}]: {p.what}", file=sys.stderr)
        print(f"  --> {file}: row {p.line}, column {letters(p.column)}", file=sys.stderr)
        if p.fix:
            print(f"   = help: {p.fix}", file=sys.stderr)
        print(file=sys.stderr)
    count = len(problems)
    print(f"{count} error{'s' if count > 1 else ''}. Nothing was written.", file=sys.stderr)


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as e:
        fix = "Check the path and its permissions."
        what = f"the file cannot be read ({e.strerror})"
        raise ConfigError(what, where=file, fix=fix, code="E330") from e


def _write(file: str, data: bytes) -> None:
    """To stdout, or into a file that is not there yet."""
    if file == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        with Path(file).open("xb") as f:
            f.write(data)
    except FileExistsError as e:
        fix = "Choose another name, or remove it: files are never overwritten."
        raise ConfigError("the file exists", where=file, fix=fix, code="E333") from e
    except OSError as e:
        fix = "Check the folder and its permissions."
        what = f"the file cannot be written ({e.strerror})"
        raise ConfigError(what, where=file, fix=fix, code="E333") from e
