"""What a sample costs on the line: MQTT and TLS bytes, PUBACKs included, TCP and IP not."""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from agent.config.base import Context
from agent.core.batch import Batch
from agent.core.ports import Lane, Stored
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.runtime.clock import SystemClock
from agent.sinks.mqtt_json import MqttJsonConfig, MqttJsonSink
from benchmarks.figure import Figure
from benchmarks.store import registers
from simulators.broker import Broker
from simulators.proxy import Proxy

TAGS: Final = 50
ROWS: Final = 600
PIECES: Final = 4
LIVE_ROWS: Final = 300


def rows(n: int) -> Batch:
    """The registers of the store's figures as rows of one device."""
    c = registers(n, TAGS)
    tags = TagSet(tuple(Tag(f"pump1/t{i}") for i in range(TAGS)))
    return Batch("pump1", tags, c.t, c.v, c.q)


def _cut(batch: Batch, first: int, n: int, lane: Lane) -> Stored:
    s = slice(first, first + n)
    part = Batch(batch.stream, batch.tags, batch.t[s], batch.v[s], batch.q[s])
    return Stored(batch.stream, "9f3a12c4", 7, first + 1, first + n, lane, part)


@asynccontextmanager
async def _connected(form: str) -> AsyncIterator[tuple[MqttJsonSink, Proxy]]:
    """A sink with TLS to a broker, through a relay that counts."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        _certificate(folder)
        with Broker([f"certfile {folder}/crt", f"keyfile {folder}/key"]) as broker:
            async with Proxy(broker.port) as relay:
                raw = {"type": "mqtt_json", "connect": f"mqtts://127.0.0.1:{relay.port}",
                       "ca": f"{folder}/crt", "format": form}  # fmt: skip
                ctx = Context(SystemClock(), Stats(), "gw1", "north/gw1", folder)
                async with MqttJsonConfig.model_validate(raw).build("plant", ctx) as sink:
                    yield sink, relay


def _certificate(folder: Path) -> None:
    folder.chmod(0o755)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-keyout", "key", "-out", "crt", "-subj", "/CN=bench",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    (folder / "key").chmod(0o644)


async def _measure(form: str) -> tuple[float, float]:
    """Bytes per sample of a row at a time, and of what was missed."""
    batch = rows(ROWS * PIECES)
    async with _connected(form) as (sink, relay):
        before = relay.carried
        for i in range(LIVE_ROWS):
            await sink.send(_cut(batch, i, 1, Lane.LIVE))
        live, before = relay.carried - before, relay.carried
        for piece in range(PIECES):
            await sink.send(_cut(batch, piece * ROWS, ROWS, Lane.HISTORY))
        late = relay.carried - before
    return live / (LIVE_ROWS * TAGS), late / (PIECES * ROWS * TAGS)


def line() -> Sequence[Figure]:
    """Both, with the plain form beside them."""
    live, late = asyncio.run(_measure("compact"))
    plain_live, plain_late = asyncio.run(_measure("plain"))
    return [
        Figure("line_bytes_live", round(live, 2), "B/sample", "<= 12",
               {"plain": round(plain_live, 2), "tags": TAGS}),
        Figure("line_bytes_history", round(late, 3), "B/sample", "<= 1.3",
               {"plain": round(plain_late, 3), "rows_per_message": ROWS}),
    ]  # fmt: skip
