"""What /proc says of a process and its children."""

import os
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Every living descendant of *pid*."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text(encoding="ascii").split()):
            found += [child, *children(child)]
    return found


def cpu_s(pid: int) -> float:
    """User and system CPU of *pid* and of all its children, living or waited for, s."""
    total = 0
    for one in (pid, *children(pid)):
        stat = Path(f"/proc/{one}/stat").read_text(encoding="utf-8", errors="replace")
        total += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
    return total / _TICKS


def waited_s(pid: int) -> float:
    """How long the main thread of *pid* was ready and had no core, s: the machine's part in a
    delay.
    """
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def memory_mb(pid: int) -> dict[str, float]:
    """``pss``, ``rss`` and ``own`` of one process, MB (10^6 bytes); ``own`` are pages that it has
    written, whatever else runs the same programs.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    kb = {
        key.lower(): int(rest.split()[0])
        for key, _, rest in (line.partition(":") for line in rollup.splitlines()[1:])
    }
    kinds = {"pss": "pss", "rss": "rss", "own": "private_dirty"}
    return {name: round(kb[key] * 1024 / 1e6, 1) for name, key in kinds.items()}
