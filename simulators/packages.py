"""Signed packages and keyrings, as a publisher makes them; and, for tests, as an enemy would."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.codecs import envelope as dsse
from agent.codecs.envelope import Envelope


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
