"""Signed packages and keyrings, as a publisher makes them; and, for tests, as an enemy would."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.app.packing import pack
from agent.codecs import envelope as dsse
from agent.codecs.envelope import Envelope
from agent.codecs.onnx_write import detector
from agent.config.manifest import PackSpec
from agent.core.detector import Limits, train
from agent.core.recording import Recording
from agent.registries.directory import publish


def time(days: float = 0.0) -> str:
    """A time that many days from now, as manifests have it."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair."""

    seed: bytes
    public: bytes

    @classmethod
    def new(cls) -> "Key":
        """A fresh one."""
        return cls(*dsse.generate())

    @property
    def text(self) -> str:
        """The public key as configurations have it."""
        return dsse.public_text(self.public)

    @property
    def id(self) -> str:
        """What signatures name it."""
        return dsse.key_id(self.public)

    def entry(self, *models: str, **facts: Any) -> dict[str, Any]:
        """The key in a keyring; for all models unless some are named."""
        return {"public": self.text, "models": list(models) or ["*"], **facts}


def keyring(
    path: Path, root: Key, entries: Sequence[Mapping[str, Any]], release: int = 1, **facts: Any
) -> None:
    """Write a signed keyring to *path*."""
    ring = {"release": release, "created": time(-1), "keys": list(entries), **facts}
    envelope = dsse.sign(Envelope(dsse.KEYRING, json.dumps(ring).encode()), root.seed)
    path.write_bytes(dsse.write(envelope))


def mean_manifest(
    name: str, version: str, release: int, model: bytes, **changes: Any
) -> dict[str, Any]:
    """A manifest for a model that answers the mean of (5, 3) windows (`models.tiny`)."""
    rows = [[float(r), float(r + 1), float(r + 2)] for r in range(6)]
    return {
        "schema": 1,
        "name": name,
        "version": version,
        "release": release,
        "created": time(),
        "model": {"sha256": hashlib.sha256(model).hexdigest(), "size": len(model)},
        "channels": [{"name": c} for c in "abc"],
        "window": {"kind": "count", "rows": 5},
        "decision": {"output": "score", "above": 1000},
        "golden": [
            {
                "t_ms": [1000 * r for r in range(6)],
                "rows": rows,
                "outputs": {"score": [3.0, 4.0]},
                "flags": [False, False],
            }
        ],
    } | changes


def signed(manifest: Mapping[str, Any], *keys: Key) -> bytes:
    """The envelope of *manifest*, signed by *keys*."""
    envelope = Envelope(dsse.MANIFEST, json.dumps(manifest).encode())
    for key in keys:
        envelope = dsse.sign(envelope, key.seed)
    return dsse.write(envelope)


async def released(
    registry: Path,
    key: Key,
    name: str,
    healthy: Recording,
    limits: Limits = "seen",
    **changes: Any,
) -> None:
    """Release 1 of the detector of *healthy* on channel ``stable`` of a folder, as a data scientist
    would have published it. *changes* are parts of its manifest.
    """
    said = {
        "name": name,
        "version": "1.0.0",
        "release": 1,
        "channels": [{"name": c} for c in healthy.names],
        "window": {"kind": "count", "rows": 5},
        "decision": {"output": "score", "above": 1.0, "off": 0.8},
    } | changes
    spec = PackSpec.model_validate(said)
    model = detector(train(healthy.v, spec.window.rows, limits=limits), spec.window.rows)
    packed = await pack(model, spec, healthy, datetime.now(UTC).replace(microsecond=0))
    text = packed.manifest.model_dump_json(by_alias=True, exclude_none=True)
    manifest = dsse.write(dsse.sign(Envelope(dsse.MANIFEST, text.encode()), key.seed))
    await asyncio.to_thread(publish, registry, said, model, manifest, "stable")


def evenly(names: Sequence[str], rows: NDArray[np.float64], row_s: float = 1.0) -> Recording:
    """Rows (n, k) as a recording, *row_s* apart."""
    return Recording(tuple(names), np.arange(len(rows), dtype=np.int64) * round(row_s * 1e9), rows)
