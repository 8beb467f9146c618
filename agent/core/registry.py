"""Ports of the way of a model file: who offers it, who believes it, where it is kept."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.core.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Piece:
    """A second file of an offer: where it is, and how many bytes it has."""

    url: str
    size: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What a registry has on a channel now.

    Attributes:
        version: Human version; release: rising number within the name.
        sha256: Of the model file, hex. size: bytes. url: where `Registry.fetch` finds it.
        token: Opaque; handed back to the next ``resolve`` (ETag, mtime, digest).
        manifest: The signed manifest; None when the registry has none for this version.
    """

    name: str
    version: str
    release: int
    sha256: str
    size: int
    url: str
    token: str
    manifest: Piece | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A manifest, and the id of the key that signed it; empty when nobody had to."""

    manifest: Manifest
    signer: str


class Judge(Protocol):
    """Says which manifests may be believed."""

    async def judge(self, offer: Offer, data: bytes, *, unsigned: bool) -> Judged:
        """The manifest in *data* (an envelope) of *offer*; `PermanentError` when it may not be.

        With *unsigned* a manifest that nobody trusted has signed is read all the same.
        """
        ...

    def now_ns(self) -> int:
        """The time, as far as it is certain: a lower bound, 0 when nothing is known."""
        ...


class Registry(Protocol):
    """Resolves and fetches. Verifying, storing, swapping and rolling back are ours."""

    async def resolve(self, name: str, channel: str, token: str | None) -> Offer | None:
        """What is on *channel* now; None if *token* is still current.

        Raises `TransientError` when it cannot be reached, `PermanentError` when its answer is
        no answer (a lie, a wrong type, too large).
        """
        ...

    def fetch(self, offer: Offer, offset: int) -> AsyncIterator[bytes]:
        """The file's bytes from *offset* on."""
        ...


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model version that is on this gateway, verified: what a result's `Origin` will name.

    Attributes:
        digest: SHA-256 of the file, hex.
        manifest: SHA-256 of its manifest's envelope, hex; empty when it has none.
        signer: Id of the key that signed the manifest; empty when none had to.
    """

    name: str
    version: str
    release: int
    digest: str
    path: Path
    manifest: str = ""
    signer: str = ""


class ArtifactStore(Protocol):
    """Verified model files on disk, by digest."""

    def path(self, digest: str) -> Path | None:
        """Where the file is; None if it is not here."""
        ...

    def add(self, download: Path, sha256: str, size: int) -> Path:
        """Check size and SHA-256, then move in atomically; `PermanentError` if they differ."""
        ...

    def describe(self, digest: str, envelope: bytes) -> None:
        """Keep the manifest of the model file *digest* beside it, in place of an older one."""
        ...

    def description(self, digest: str) -> bytes:
        """The manifest of the model file *digest*; empty when there is none."""
        ...

    def size(self) -> int:
        """Bytes of everything that is kept here."""
        ...

    def collect(self, keep: Collection[str]) -> list[str]:
        """Delete every file whose digest is not in *keep*; the digests deleted."""
        ...
