"""The state documents of a fleet, as they stand at its broker."""

import json
import secrets
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from agent.core.errors import PermanentError, TransientError
from agent.core.fleet import Document
from agent.links.mqtt_broker import BrokerSection
from agent.links.mqtt_peer import Peer
from agent.links.retained import retained, retained_by_part
from agent.runtime.clock import SystemClock

_READ: Final = {"model", "ts", "versions", "drift", "error"}
"""What is read of a document; of a version its stage, since when, version and release."""

Documents = dict[tuple[str, str], Document]
"""(gateway, instance) -> document."""


async def documents(peer: Peer, prefix: str, gateways: list[str], quiet_s: float) -> Documents:
    """Those of the named *gateways*, of all below *prefix* when none is named.

    No broker says when its retained messages have all come: *quiet_s* without one is the end.
    What is no document is left out. `TransientError` (E667) when there is none at all.
    """
    clock = SystemClock()
    if gateways:
        filters = [f"{prefix}/{g}/_model/+/state" for g in gateways]
        found = await retained_by_part(peer, filters, clock, quiet_s)
    else:
        found = await retained(peer, f"{prefix}/+/_model/+/state", clock, quiet_s)
    known: Documents = {}
    for topic, payload in found.items():
        *_, gateway, _, instance, _ = topic.split("/")
        document = _document(payload)
        if document is not None:
            known[gateway, instance] = document
    if not known:
        raise TransientError(
            f"no gateway below `{prefix}` has told the state of a model",
            where=peer.where,
            fix="Correct --prefix, and see that the gateways have a sink at this broker.",
            code="E667",
        )
    return known


def _document(payload: bytes) -> Document | None:
    try:
        document = json.loads(payload)
        versions = [(v["version"], int(v["release"]), v["stage"]) for v in document["versions"]]
        whole = document["v"] == 1 and len(versions) < 100 and document.keys() >= _READ
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return document if whole else None


def peer(broker: str, password_file: str | None, **files: str | None) -> Peer:
    """Who we are to the broker: a client that nobody knows. `PermanentError` (E665)."""
    facts: dict[str, Any] = {"connect": broker, "client_id": f"fleet-{secrets.token_hex(4)}"}
    facts |= {name: value for name, value in files.items() if value is not None}
    if password_file is not None:
        facts["password"] = {"file": password_file}
    try:
        return BrokerSection.model_validate(facts).peer("fleet")
    except ValidationError as e:
        raise PermanentError(
            f"`{broker}` is no broker",
            where="--broker",
            fix="Write mqtt://HOST:1883, or mqtts://HOST:8883 for TLS.",
            code="E665",
        ) from e


def named(path: Path | None) -> list[str]:
    """The names in a file, one a line; none without a file."""
    if path is None:
        return []
    try:
        return sorted(set(path.read_text(encoding="utf-8").split()))
    except OSError as e:
        raise PermanentError(
            f"the names of the gateways cannot be read ({e.strerror})",
            where=str(path),
            fix="Give a file with one name a line.",
            code="E665",
        ) from e
