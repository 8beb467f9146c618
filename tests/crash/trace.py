"""What a process did to its disk, system call by system call, recorded with strace.

The real program on a real file system, nothing preloaded and no root; what the program said to
the outside is in the same record, and so in the right place between two writes.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CALLS = (
    "openat,mkdir,mkdirat,write,writev,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync,"
    "rename,renameat,renameat2,unlink,unlinkat,link,linkat,rmdir,copy_file_range,sendfile"
)
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>,? ?)?(.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
_TEXT = r'"((?:\\x[0-9a-f]{2})*)"'
_FD = r"\d+<((?:\\x[0-9a-f]{2})*)>"


class UnknownCall(Exception):
    """The journal has made a system call that the disk model has no rule for."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        what: ``say`` | ``write`` | ``truncate`` | ``create`` | ``mkdir`` | ``unlink`` |
            ``rename`` | ``sync``.
        path: Below the folder of data; of ``say`` empty.
        data: Bytes written, or said. at: where; of ``truncate`` the new size.
        to: Of ``rename``: the new path.
    """

    what: str
    path: str
    data: bytes = b""
    at: int = 0
    to: str = ""


def record(folder: Path, seed: int, steps: int, mutant: str = "") -> list[Event]:
    """Run the writer in *folder* under strace; everything it did to its data, in order."""
    data, said = folder / "data", folder / "said"
    data.mkdir(parents=True)
    more = [mutant] if mutant else []
    return traced(data, said, "-m", "tests.crash.writer", data, said, str(seed), str(steps), *more)


def traced(data: Path, said: Path, *words: str | Path) -> list[Event]:
    """Run Python with these *words*; everything it did to the folder *data*, in order."""
    out = data.with_name("trace")
    subprocess.run(
        ["strace", "-f", "-qq", "-y", "-xx", "-s", "100000000", "-o", out, "-e", f"trace={_CALLS}",
         "-e", "signal=none", sys.executable, *words],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}, check=True, timeout=120,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with out.open(encoding="ascii") as lines:
        events = list(_events(lines, f"{data}/", str(said)))
    out.unlink()
    return events


def _events(lines: Iterator[str], prefix: str, said: str) -> Iterator[Event]:
    """Writes and syncs count from their end, what was said from its beginning."""
    begun: dict[str, str] = {}
    ends: dict[tuple[str, str], int] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        pid, resumed, text = match.groups()
        text = text.rstrip("\n")
        if text.endswith(_UNFINISHED):
            begun[pid] = text.removesuffix(_UNFINISHED)
            if spoken := _spoken(begun[pid], said):
                yield Event("say", "", spoken)
            continue
        whole = begun.pop(pid) + text if resumed else text
        call = _CALL.match(whole)
        if call is None or call[3].startswith("-"):
            continue
        if spoken := _spoken(whole, said):
            if not resumed:
                yield Event("say", "", spoken)
            continue
        yield from _event(call[1], call[2], int(call[3]), prefix, ends)


def _spoken(text: str, said: str) -> bytes:
    match = re.match(rf"write\({_FD}, {_TEXT}", text)
    return _bytes(match[2]) if match and _bytes(match[1]).decode() == said else b""


def _event(
    call: str, args: str, result: int, prefix: str, ends: dict[tuple[str, str], int]
) -> Iterator[Event]:
    names = [] if "write" in call else [_bytes(t).decode() for t in re.findall(_TEXT, args)]
    files = [_bytes(t).decode() for t in re.findall(_FD, args)]
    match call:
        case "openat" if "O_CREAT" in args or "O_TRUNC" in args:
            path = _below(names[0], prefix)
            if path:
                yield Event("create", path)
                if "O_TRUNC" in args:
                    yield Event("truncate", path, at=0)
        case "mkdir" | "mkdirat" if path := _below(names[0], prefix):
            yield Event("mkdir", path)
        case "pwrite64" if path := _below(files[0], prefix):
            data = _bytes(re.search(_TEXT, args)[1])[:result]  # type: ignore[index]
            yield Event("write", path, data, int(args.rsplit(", ", 1)[1]))
        case "ftruncate" if path := _below(files[0], prefix):
            yield Event("truncate", path, at=int(args.rsplit(", ", 1)[1]))
        case "fsync" | "fdatasync" if (path := _below(files[0], prefix)) is not None:
            yield Event("sync", path)
        case "unlink" | "unlinkat" if path := _below(names[0], prefix):
            yield Event("unlink", path)
        case "rename" | "renameat" | "renameat2" if path := _below(names[0], prefix):
            yield Event("rename", path, to=_below(names[1], prefix) or "")
        case _ if any(_below(name, prefix) for name in names + files) and call != "openat":
            msg = f"no rule for {call} on {names + files}: add it to `_event`"
            raise UnknownCall(msg)


def _below(name: str, prefix: str) -> str | None:
    """The path below the folder of data, empty for the folder; None outside, or of no interest.

    SQLite's index of its log is shared memory, made anew by whoever opens the file first.
    """
    if name.endswith(("-shm", " (deleted)")) or not f"{name}/".startswith(prefix):
        return None
    return name[len(prefix) :]


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
