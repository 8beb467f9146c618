"""Signed envelopes (DSSE): exact bytes, their type, and Ed25519 signatures over both.

``{"payloadType", "payload": base64, "signatures": [{"keyid", "sig"}]}``. What is signed is the
pre-authentication encoding of DSSE 1.0, so a keyring can never pass for a manifest.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from agent.core.errors import PermanentError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MANIFEST: Final = "application/vnd.edge-agent.manifest.v1+json"
KEYRING: Final = "application/vnd.edge-agent.keyring.v1+json"
MAX_ENVELOPE: Final = 1 << 20
"""Bytes; whoever sends more is not listened to."""

_MAX_SIGNATURES: Final = 16
_PREFIX: Final = "ed25519:"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload of a kind, and (key id, signature) pairs that are only claims."""

    kind: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...] = ()

    @property
    def signed(self) -> bytes:
        """What the signatures are over."""
        kind = self.kind.encode()
        head = b"DSSEv1 %d %b %d " % (len(kind), kind, len(self.payload))
        return head + self.payload


def read(data: bytes, where: str, kind: str) -> Envelope:
    """The envelope in *data*; `PermanentError` (E681) when it is none of *kind*."""
    try:
        if len(data) > MAX_ENVELOPE:
            raise ValueError("it is too large")  # noqa: TRY301 - one error for all
        raw = json.loads(data)
        signatures = tuple(_signature(s) for s in raw["signatures"][:_MAX_SIGNATURES])
        envelope = Envelope(str(raw["payloadType"]), _bytes(raw["payload"]), signatures)
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise PermanentError(
            f"this is no signed envelope ({e!r:.80})",
            where=where,
            fix="Make it with `edge-agent models pack` and `edge-agent models sign`.",
            code="E681",
        ) from e
    if envelope.kind != kind:
        raise PermanentError(
            f"this is {envelope.kind[:80]!r}, not {kind!r}",
            where=where,
            fix="Use a file made by `edge-agent models pack` or `edge-agent models sign`.",
            code="E681",
        )
    return envelope


def write(envelope: Envelope) -> bytes:
    """The envelope as a file."""
    whole = {
        "payloadType": envelope.kind,
        "payload": base64.b64encode(envelope.payload).decode(),
        "signatures": [
            {"keyid": k, "sig": base64.b64encode(s).decode()} for k, s in envelope.signatures
        ],
    }
    return json.dumps(whole, indent=1).encode() + b"\n"


def _signature(raw: Any) -> tuple[str, bytes]:
    return str(raw["keyid"]), _bytes(raw["sig"])


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError(text)
    return base64.b64decode(text, validate=True)


def key_id(public: bytes) -> str:
    """The id of a public key: 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def public_key(text: str) -> bytes:
    """The 32 bytes in ``ed25519:BASE64``; ValueError when it is none."""
    try:
        raw = base64.b64decode(text.strip().removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raw = b""
    if not text.strip().startswith(_PREFIX) or len(raw) != 32:
        raise ValueError("a public key is `ed25519:` and 44 characters")
    return raw


def public_text(public: bytes) -> str:
    """A public key as text."""
    return _PREFIX + base64.b64encode(public).decode()


def signed_by(envelope: Envelope, public: bytes) -> bool:
    """Is one of the signatures of this key, and right?"""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only who verifies pays
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    key = Ed25519PublicKey.from_public_bytes(public)
    for claimed, signature in envelope.signatures:
        if claimed != key_id(public):
            continue
        try:
            key.verify(signature, envelope.signed)
        except InvalidSignature:
            continue
        return True
    return False


def generate() -> tuple[bytes, bytes]:
    """A new key: private seed (32 bytes), public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def public_of(seed: bytes) -> bytes:
    """The public key of a private seed."""
    return _private(seed).public_key().public_bytes_raw()


def sign(envelope: Envelope, seed: bytes) -> Envelope:
    """The envelope with one more signature; an earlier one of the same key is replaced."""
    key = _private(seed)
    mine = key_id(key.public_key().public_bytes_raw())
    others = tuple(s for s in envelope.signatures if s[0] != mine)
    return replace(envelope, signatures=(*others, (mine, key.sign(envelope.signed))))


def _private(seed: bytes) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )

    return Ed25519PrivateKey.from_private_bytes(seed)
