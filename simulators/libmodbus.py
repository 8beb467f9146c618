"""A device that nobody here wrote: libmodbus' server, compiled on the spot."""

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Final, Self

_SOURCE: Final = Path(__file__).with_name("libmodbus_server.c")


class LibmodbusServer:
    """One unit with *size* coils, discrete inputs, holding and input registers.

    All are zero, or *numbered*: register i holds i, bit i its lowest bit. With the path of a
    serial *line* it is unit 1 there, at 115200 baud without parity.

    Attributes:
        requests: Function code and first address of each request so far.
    """

    def __init__(self, size: int = 200, *, numbered: bool = False, line: str = "") -> None:
        self._words = [str(size), *(["numbered"] if numbered or line else []), line]
        self._line, self.port = line, 0
        self.requests: list[tuple[int, int]] = []

    @property
    def url(self) -> str:
        """What a device's ``connect`` takes."""
        return f"rtu://{self._line}" if self._line else f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="libmodbus-"))
        program = self._folder / "server"
        words = ["gcc", "-O1", "-Wall", "-o", str(program), str(_SOURCE)]
        words += ["-I/usr/include/modbus", "-lmodbus"]
        subprocess.run(words, check=True, timeout=60)
        self._process = subprocess.Popen(
            [str(program), *(w for w in self._words if w)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if self._process.stdout is None:
            raise RuntimeError("no stdout")
        self._out = self._process.stdout
        self.port = int(self._out.readline())
        self._reader = threading.Thread(target=self._read, name="libmodbus", daemon=True)
        self._reader.start()
        return self

    def kill(self) -> None:
        """SIGKILL: its connections end now."""
        self._process.kill()
        self._process.wait()

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._out.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        for line in self._out:
            function, first = line.split()
            self.requests.append((int(function), int(first)))
