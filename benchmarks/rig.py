"""The bench itself: a device, a broker, an agent between them, and a consumer that counts."""

import asyncio
import re
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import paho.mqtt.client as paho
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks import native
from simulators.agent_process import AgentProcess
from simulators.broker import Broker

REGISTERS: Final = 1000
DEVICE: Final = "plant1"

_RANGE: Final = re.compile(rb'"epoch":(\d+),"from":(\d+),"seq":(\d+),"ts":"([^"]+)"')


class Arrivals:
    """A consumer that counts rows of the device without reading their values.

    A row that came twice counts once: rows are told apart by epoch and number.
    """

    def __init__(self, port: int) -> None:
        self._lock = threading.Lock()
        self._last: dict[int, int] = {}
        self._rows, self._ts = 0, b""
        self.first_at_s: dict[int, float] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._arrived
        self._client.on_connect = lambda c, *_: c.subscribe(f"+/+/data/{DEVICE}", qos=0)
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _arrived(self, _client: object, _userdata: object, m: paho.MQTTMessage) -> None:
        at_s = time.monotonic()
        found = _RANGE.search(m.payload, 0, 200)
        if found is None:
            return
        epoch, first, last = (int(found[i]) for i in (1, 2, 3))
        with self._lock:
            seen = self._last.get(epoch, 0)
            self._rows += max(0, last - max(seen, first - 1))
            if last > seen:
                self._last[epoch], self._ts = last, found[4]
            self.first_at_s.setdefault(epoch, at_s)

    @property
    def rows(self) -> int:
        """Rows that have arrived, each counted once."""
        return self.seen()[0]

    def seen(self) -> tuple[int, float]:
        """Rows that have arrived, and the source timestamp of the newest, s since the epoch."""
        with self._lock:
            rows, ts = self._rows, self._ts
        return rows, datetime.fromisoformat(ts.decode()).timestamp() if ts else 0.0


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything that runs beside the agent, and the agent's configuration."""

    folder: Path
    config: Path
    broker: Broker
    arrivals: Arrivals
    document: dict[str, Any] = field(repr=False)

    def agent(self, command: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Any:
        """The agent as a process of its own."""
        return AgentProcess(self.config, command=command, env=env)

    def serve(self, model: bytes, inputs: int) -> None:
        """Let the agent score a window of five rows of the first *inputs* tags at every scan."""
        path = self.folder / "model.onnx"
        path.write_bytes(model)
        self.document["models"] = {
            "bench": {
                "file": str(path),
                "window": {"kind": "count", "rows": 5},
                "instances": {DEVICE: {"inputs": [f"{DEVICE}/r{i}" for i in range(inputs)]}},
            }
        }
        self.write()

    def write(self) -> None:
        """The configuration, as `document` is now."""
        self.config.write_text(yaml.safe_dump(self.document, sort_keys=False), encoding="utf-8")


@contextmanager
def rig(poll: str, devices: int = 1, registers: int = REGISTERS) -> Iterator[Rig]:
    """So many holding registers of so many devices each *poll*; journal and sink as they are by
    default. The devices are ``plant1``, ``plant2`` and so on.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        native.devices(devices, registers) as ports,
        Broker(["max_queued_messages 0", "max_inflight_messages 0"]) as broker,
        Arrivals(broker.port) as arrivals,
    ):
        folder = Path(name)
        document = {
            "version": 1,
            "gateway": {"id": "bench", "prefix": "bench"},
            "data_dir": str(folder / "data"),
            "profiles": {
                "plant": {
                    "type": "modbus",
                    "unit": 1,
                    "addressing": "zero_based",
                    "poll": poll,
                    "tags": {f"r{i}": {"reg": i} for i in range(registers)},
                }
            },
            "devices": {
                f"plant{i}": {"profile": "plant", "connect": f"tcp://127.0.0.1:{port}"}
                for i, port in enumerate(ports, 1)
            },
            "sinks": {"plant": {"type": "mqtt_json", "connect": broker.url}},
        }
        made = Rig(folder, folder / "agent.yaml", broker, arrivals, document)
        made.write()
        yield made


@asynccontextmanager
async def flowing(
    made: Rig, command: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> AsyncIterator[AgentProcess]:
    """The agent, with rows arriving: the steady state begins soon after."""
    async with made.agent(command, env) as agent:
        await arrived(made.arrivals, 1, 20.0)
        yield agent


async def arrived(arrivals: Arrivals, rows: int, within_s: float) -> None:
    """Wait until *rows* have arrived in all."""
    deadline = time.monotonic() + within_s
    while arrivals.rows < rows:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{arrivals.rows} rows within {within_s} s, not {rows}")
        await asyncio.sleep(0.01)
