"""Model files on their way in: fetched or copied, and believed only after their hash."""

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from agent.codecs import envelope as dsse
from agent.config.cures import readable
from agent.config.manifest import parse
from agent.core.errors import PermanentError, TransientError
from agent.core.manifest import Manifest
from agent.core.registry import Artifact, ArtifactStore, Judge, Offer, Registry

log = structlog.get_logger()

MAX_MODEL: Final = 500_000_000
"""Bytes a model file may have."""

MAX_STORE: Final = 256_000_000
"""Bytes that the files of all models may take, where nobody says otherwise."""

PART_S: Final = 72 * 3600.0
"""An interrupted download is kept for so long."""

Download = Callable[[Registry, Offer, Path], Awaitable[Path]]


@dataclass(frozen=True, slots=True)
class Believed:
    """The envelope of a manifest, what it says, and who signed it; empty when there is none."""

    data: bytes = b""
    manifest: Manifest | None = None
    signer: str = ""


class Intake:
    """The artifact store as the rollout uses it: no file is collected while it is under way."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        judge: Judge,
        download: Download,
        downloads: Path,
        max_size: Callable[[], int] = lambda: MAX_STORE,
    ) -> None:
        self._artifacts, self._judge = artifacts, judge
        self._download, self._downloads, self._max_size = download, downloads, max_size
        self._under_way: Counter[str] = Counter()
        self._disk = asyncio.Lock()

    async def verified(self, artifact: Artifact) -> bytes:
        """The bytes of *artifact*; `PermanentError` when the disk no longer has what it had."""
        path = self._artifacts.path(artifact.digest)
        try:
            data = b"" if path is None else await asyncio.to_thread(path.read_bytes)
        except OSError:
            data = b""
        if await asyncio.to_thread(_sha256, data) != artifact.digest:
            raise PermanentError(
                f"the file of version {artifact.version} is missing or damaged on disk",
                where=f"model {artifact.name}",
                fix="Check the disk of data_dir; `edge-agent models pull` brings the file again.",
                code="E648",
            )
        return data

    async def believed(self, registry: Registry, offer: Offer, *, unsigned: bool) -> Believed:
        """The manifest of *offer*, if it may be believed; none where nobody needs one.

        Raises `PermanentError` when it may not: nothing else of the offer is fetched then.
        """
        piece = offer.manifest
        if piece is None:
            if unsigned:
                return Believed()
            raise PermanentError(
                f"version {offer.version} has no signed manifest",
                where=f"model {offer.name}",
                fix="Publish a signed package; or write `unsigned: accept` at the registry.",
                code="E680",
            )
        wanted = replace(offer, url=piece.url, size=piece.size, sha256="", manifest=None)
        data = bytearray()
        async for chunk in registry.fetch(wanted, 0):
            data += chunk
            if len(data) > dsse.MAX_ENVELOPE:
                break
        judged = await self._judge.judge(offer, bytes(data), unsigned=unsigned)
        return Believed(bytes(data), judged.manifest, judged.signer)

    async def manifest(self, artifact: Artifact) -> Manifest | None:
        """The manifest that came with *artifact*; None when none did.

        It is not judged anew: what serves goes on when a key expires.
        """
        if not artifact.manifest:
            return None
        data = await asyncio.to_thread(self._artifacts.description, artifact.digest)
        where = f"model {artifact.name}"
        if _sha256(data) != artifact.manifest:
            raise PermanentError(
                f"the manifest of version {artifact.version} is missing or damaged on disk",
                where=where,
                fix="Check the disk of data_dir; `edge-agent models pull` brings it again.",
                code="E648",
            )
        return read_manifest(data, where)

    async def describe(self, artifact: Artifact, believed: Believed) -> Artifact:
        """*artifact* with its manifest beside it on disk."""
        if not believed.data:
            return artifact
        await asyncio.to_thread(self._artifacts.describe, artifact.digest, believed.data)
        return replace(artifact, manifest=_sha256(believed.data), signer=believed.signer)

    async def fetch(self, registry: Registry, offer: Offer, believed: Believed) -> Artifact:
        """The offered version, verified and in the store; downloaded only if it is not there.

        Call it while `keeping` the digest.
        """
        artifact = Artifact(offer.name, offer.version, offer.release, offer.sha256, Path())
        try:
            await self.verified(artifact)
        except PermanentError:
            await self._room(offer.name, offer.size)
            part = await self._download(registry, offer, self._folder(offer.name))
            await asyncio.to_thread(self._artifacts.add, part, offer.sha256, offer.size)
        path = self._artifacts.path(offer.sha256) or Path()
        return await self.describe(replace(artifact, path=path), believed)

    @asynccontextmanager
    async def local(self, name: str, file: Path) -> AsyncIterator[Artifact]:
        """The operator's file, copied into the store: later changes to it do no harm.

        Its version is the first 12 digits of its SHA-256, its release 0. It is kept meanwhile:
        write down before the end what is to stay.
        """
        data = await asyncio.to_thread(bounded, name, file)
        digest = await asyncio.to_thread(_sha256, data)
        artifact = Artifact(name, digest[:12], 0, digest, Path())
        async with self.keeping(digest):
            try:
                await self.verified(artifact)
            except PermanentError:
                await self._room(name, len(data))
                await asyncio.to_thread(self._copy, name, data, digest)
            yield replace(artifact, path=self._artifacts.path(digest) or Path())

    @asynccontextmanager
    async def keeping(self, digest: str) -> AsyncIterator[None]:
        """*digest* is not collected meanwhile."""
        async with self._disk:
            self._under_way[digest] += 1
        try:
            yield
        finally:
            self._under_way[digest] -= 1

    async def collect(self, keep: Callable[[], Collection[str]]) -> None:
        """Delete every file that is neither in *keep*, asked when it is time, nor under way."""
        async with self._disk:
            kept = set(keep()) | {d for d, n in self._under_way.items() if n > 0}
            gone = await asyncio.to_thread(self._artifacts.collect, kept)
            await asyncio.to_thread(self._collect_parts, kept)
        if gone:
            log.info("models.collected", digests=[d[:12] for d in gone])

    def _collect_parts(self, keep: Collection[str]) -> None:
        """Delete what is left of downloads that nobody has gone on with for days."""
        for part in self._downloads.glob("*/*.part"):
            with suppress(OSError):
                old_s = time.time() - part.stat().st_mtime
                if old_s > PART_S and part.stem not in keep:
                    part.unlink()

    async def _room(self, name: str, size: int) -> None:
        """`TransientError` (E658) when a file of *size* bytes would be too many."""
        used, most = await asyncio.to_thread(self._artifacts.size), self._max_size()
        if used + size > most:
            raise TransientError(
                f"the files of models take {used} bytes; {size} more are beyond {most}",
                where=f"model {name}",
                fix="Raise `max_size` of `rollout:`, or lower its `keep`.",
                code="E658",
            )

    def _copy(self, name: str, data: bytes, digest: str) -> None:
        part = self._folder(name) / f"{digest}.part"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
        except OSError as e:
            raise TransientError(
                f"the model file cannot be copied ({e.strerror})",
                where=str(part),
                fix="Check the disk of data_dir.",
                code="E633",
            ) from e
        self._artifacts.add(part, digest, len(data))

    def _folder(self, name: str) -> Path:
        """Where downloads of one model are kept; also for a model that is called ``..``."""
        return self._downloads / f"model-{name}"


def read_manifest(envelope: bytes, where: str) -> Manifest:
    """What an envelope says, whoever has signed it."""
    return parse(dsse.read(envelope, where, dsse.MANIFEST).payload, where)


def bounded(name: str, file: Path) -> bytes:
    """The bytes of a regular file of a sane size; a pipe or a device would never end."""
    size = 0
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as opened:
            size = os.fstat(fd).st_size
            data = opened.read(MAX_MODEL + 1) if 0 < size <= MAX_MODEL else b""
    except OSError as e:
        raise PermanentError(
            f"the model file {file} cannot be read ({e.strerror})",
            where=f"model {name}",
            fix=readable(str(file)) or "Correct `file`, or let the user edge-agent read it.",
            code="E644",
        ) from e
    if not 0 < len(data) <= MAX_MODEL:
        raise PermanentError(
            f"the model file {file} has {size} bytes; a model has 1 to {MAX_MODEL}",
            where=f"model {name}",
            fix="Correct `file`.",
            code="E644",
        )
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
