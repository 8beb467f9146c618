"""Trust: which manifest may be believed, against an enemy who owns registry and network.

Tampering and wrong keys end at the signature; mixing at one manifest that names every file;
rollback at counters on disk; freezing at the expiry; endless data at sizes; a stolen key at the
keyring, which only the offline root key can write. No clock is needed: time is at least the last
time that somebody trusted has signed, and a wrong clock never takes out what serves.
"""

import asyncio
import hashlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from agent.codecs import envelope as dsse
from agent.codecs.envelope import Envelope, public_key, signed_by
from agent.config import manifest
from agent.config.cures import readable
from agent.core.errors import PermanentError
from agent.core.manifest import Manifest
from agent.core.ports import Clock, StateStore
from agent.core.registry import Judged, Offer
from agent.registries import keyring
from agent.registries.keyring import KeyringFile, KeySection

NAMESPACE: Final = "release"
KEYRING: Final = ":keyring"
SIGNED: Final = ":signed"
"""Keys of the state that no model can have as its name."""

_AHEAD_NS: Final = 86_400 * 10**9
"""A time signed by a clock that is this far ahead of ours is not taken as the present."""


class Trust:
    """Port `Judge` over a keyring file.

    Args:
        ring: The signed keyring; None when this gateway has none.
        root: The public root key, as text.
        own: The gateway's own public key: it alone is believed, the keyring is not asked; for
            models that are learned here. None for all others.
        state: Counters that never go back, under ``release``.
    """

    def __init__(
        self,
        ring: Path | None,
        root: str,
        state: StateStore,
        clock: Clock,
        own: bytes | None = None,
    ) -> None:
        self._ring, self._root, self._state, self._clock = ring, root, state, clock
        self._own = own

    async def judge(self, offer: Offer, data: bytes, *, unsigned: bool) -> Judged:
        """The manifest *data* of *offer*, if it may be believed.

        With *unsigned* a manifest without a good signature is read all the same.
        """
        where = f"model {offer.name} {offer.version}"
        envelope = dsse.read(data, where, dsse.MANIFEST)
        signer = ""
        if self._own is not None:
            signer = _ours(envelope, self._own, where)
        elif self._ring is not None:
            try:
                signer = await self._signer(envelope, offer.name, where)
            except PermanentError:
                if not unsigned:
                    raise
        elif not unsigned:
            raise PermanentError(
                "nobody is trusted to sign models on this gateway",
                where=where,
                fix="Write `trust:` with `keyring` and `root`.",
                code="E684",
            )
        found = manifest.parse(envelope.payload, where)
        _same(found, offer, where)
        if found.expires_ns is not None and found.expires_ns <= self.now_ns():
            raise PermanentError(
                "its manifest has expired, and nobody has signed it anew",
                where=where,
                fix="Sign a newer one; or, if the clock is wrong, set it.",
                code="E686",
            )
        if signer:
            await self._seen(found.created_ns)
        return Judged(found, signer)

    def now_ns(self) -> int:
        """At least the last signed time; later only by a clock that somebody disciplines."""
        seen = self._state.get(NAMESPACE, SIGNED)
        floor = seen if isinstance(seen, int) else 0
        trusted = self._clock.state in {"synced", "holdover"}
        return max(floor, self._clock.wall_ns()) if trusted else floor

    async def _seen(self, signed_ns: int) -> None:
        """Somebody trusted was alive at *signed_ns*: time is never before that again."""
        seen = self._state.get(NAMESPACE, SIGNED) or 0
        trusted = self._clock.state in {"synced", "holdover"}
        ahead = trusted and signed_ns > self._clock.wall_ns() + _AHEAD_NS
        if signed_ns > seen and not ahead:
            await self._state.put(NAMESPACE, SIGNED, signed_ns)

    async def _signer(self, envelope: Envelope, name: str, where: str) -> str:
        """The id of a key that has signed, may sign *name*, and has not expired."""
        path = self._ring or Path()
        data = await asyncio.to_thread(_file, path)
        ring, payload = opened(data, public_key(self._root), str(path))
        await self._newest(ring, payload, str(path))
        return _allowed(ring, envelope, name, self.now_ns(), where)

    async def _newest(self, ring: KeyringFile, payload: bytes, where: str) -> None:
        """Older than one seen before, or another one with the same number, is refused."""
        digest = hashlib.sha256(payload).hexdigest()
        known = self._state.get(NAMESPACE, KEYRING) or {"release": 0, "digest": ""}
        if ring.release == known["release"] and digest == known["digest"]:
            return
        if ring.release <= known["release"]:
            raise PermanentError(
                f"the keyring is release {ring.release}, but release {known['release']} was here",
                where=where,
                fix="Put the newest keyring there.",
                code="E683",
            )
        await self._state.put(NAMESPACE, KEYRING, {"release": ring.release, "digest": digest})
        await self._seen(round(ring.created.timestamp() * 1e6) * 1000)


def opened(data: bytes, root: bytes, where: str) -> tuple[KeyringFile, bytes]:
    """The keyring in *data* and its signed bytes, if the root key has signed it."""
    envelope = dsse.read(data, where, dsse.KEYRING)
    if not signed_by(envelope, root):
        raise PermanentError(
            "the keyring is not signed by the root key",
            where=where,
            fix="Take the keyring of your root key, or correct `root`.",
            code="E683",
        )
    return keyring.read(envelope.payload, where), envelope.payload


def signer(data: bytes, root: bytes, envelope: Envelope, name: str) -> str:
    """The id of the key of the keyring *data* that has signed *envelope*, expired or not."""
    ring, _ = opened(data, root, "keyring")
    return _allowed(ring, envelope, name, 0, f"model {name}")


def _allowed(ring: KeyringFile, envelope: Envelope, name: str, now_ns: int, where: str) -> str:
    why = "no signature is from a key of the keyring"
    for key in ring.keys:
        if not signed_by(envelope, public_key(key.public)):
            continue
        why = _objection(key, name, now_ns)
        if not why:
            return key.id
    raise PermanentError(
        f"it is not signed by anybody who may: {why}",
        where=where,
        fix="Sign it with `edge-agent models sign`, or have the key added to the keyring.",
        code="E684",
    )


def _ours(envelope: Envelope, own: bytes, where: str) -> str:
    """A model that is learned here is signed here, or it is none."""
    if signed_by(envelope, own):
        return dsse.key_id(own)
    raise PermanentError(
        "this gateway has not learned it",
        where=where,
        fix="Learn it anew with `edge-agent models learn`; models of others come by a registry.",
        code="E697",
    )


def _objection(key: KeySection, name: str, now_ns: int) -> str:
    if not any(fnmatchcase(name, pattern) for pattern in key.models):
        return f"key {key.id} may sign only {', '.join(key.models)}"
    if key.not_after is not None and key.not_after.timestamp() * 1e9 <= now_ns:
        return f"key {key.id} has expired on {key.not_after:%Y-%m-%d}"
    return ""


def _same(found: Manifest, offer: Offer, where: str) -> None:
    """The registry's word is only a word: everything must be as it was signed."""
    pairs = {
        "name": (found.name, offer.name),
        "version": (found.version, offer.version),
        "release": (found.release, offer.release),
        "sha256": (found.sha256, offer.sha256),
        "size": (found.size, offer.size),
    }
    for what, (signed, told) in pairs.items():
        if signed != told:
            raise PermanentError(
                f"its manifest says {what} {signed!r:.80}, the registry {told!r:.80}",
                where=where,
                fix="Publish manifest and model file of the same package.",
                code="E685",
            )


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(dsse.MAX_ENVELOPE + 1)
    except OSError as e:
        raise PermanentError(
            f"the keyring cannot be read ({e.strerror})",
            where=str(path),
            fix=readable(str(path)) or "Put it there, readable by the user edge-agent.",
            code="E683",
        ) from e
