"""A figure: what was measured, what it must be, and on what it was measured."""

import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import orjson

_PACKAGES: Final = ("numpy", "onnxruntime", "orjson", "paho-mqtt", "pymodbus", "uvloop")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        must: Comparison and bound, in *unit*: ``<= 2.0``.
        reference: What the number is compared with, of the same run where it can be; and what
            else was seen while it was measured.
    """

    name: str
    value: float
    unit: str
    must: str
    reference: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Is it as good as it must be?"""
        how, bound = self.must.split()
        return self.value <= float(bound) if how == "<=" else self.value >= float(bound)

    def line(self) -> str:
        """The JSON object of contracts: machine and versions included, no host name."""
        return orjson.dumps(
            {
                "name": self.name,
                "value": self.value,
                "unit": self.unit,
                "must": self.must,
                "reference": dict(self.reference),
                "machine": machine(),
                "versions": versions(),
            }
        ).decode()


@dataclass(frozen=True, slots=True)
class Bench:
    """One measurement, which may give several figures.

    Attributes:
        figures: Names of the figures it gives.
        takes_s: About how long it takes, s.
        measure: Runs it.
        asked: It runs only when it is named.
    """

    figures: tuple[str, ...]
    what: str
    takes_s: int
    measure: Callable[[], Sequence[Figure]]
    asked: bool = False


def machine() -> str:
    """``<cpu model>, <cores>, <kernel>``."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info, re.MULTILINE)
    cpu = model[1].strip() if model else platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}"


def versions() -> dict[str, str]:
    """Of everything that has a part in the numbers."""
    found = {"edge-agentd": _version("edge-agentd"), "python": platform.python_version()}
    found |= {name: _version(name) for name in _PACKAGES}
    found["sqlite"] = sqlite3.sqlite_version
    found["mosquitto"] = _installed("mosquitto")
    found["libmodbus"] = _installed("libmodbus5")
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _installed(package: str) -> str:
    """Version of a Debian package; ``unknown`` elsewhere."""
    try:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
