"""The C peers on libmodbus, compiled into the build folder when they are needed."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SOURCES: Final = Path(__file__).parent
_BUILD: Final = _SOURCES.parents[1] / "build" / "benchmarks"


class Missing(RuntimeError):
    """A figure cannot be measured here; the message says what to install."""


def program(name: str) -> Path:
    """The compiled program, built anew when its source is younger."""
    source, binary = _SOURCES / f"{name}.c", _BUILD / name
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("gcc")
        if compiler is None:
            raise Missing("no C compiler: apt-get install gcc libmodbus-dev")
        _BUILD.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-O2", "-I/usr/include/modbus", str(source), "-o", str(binary)]
        done = subprocess.run([*command, "-lmodbus"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"apt-get install libmodbus-dev ({done.stderr.strip()[:300]})")
    return binary


@contextmanager
def devices(count: int, steps: int = 1000) -> Iterator[list[int]]:
    """*count* Modbus devices with 1,000 registers, unit 1, on 127.0.0.1: their ports.

    One process serves them all. The first *steps* registers move at each scan.
    """
    command = [str(program("modbus_server")), str(count), str(steps)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield [int(next(process.stdout)) for _ in range(count)] if process.stdout else []
        finally:
            process.kill()


@contextmanager
def device() -> Iterator[int]:
    """One of them; its port."""
    with devices(1) as (port,):
        yield port


def client_us(port: int, count: int) -> float:
    """CPU of the C client per 125-register request, us."""
    command = [str(program("modbus_client")), str(port), str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
