"""Bringing a model file here: resumable, bounded, and worth nothing until it is verified."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from agent.core.errors import PermanentError, TransientError
from agent.core.registry import Offer, Registry
from agent.registries.index import MAX_MODEL

log = structlog.get_logger()

MIN_FREE: Final = 100_000_000
"""Bytes of disk that a download leaves to others, where nobody says otherwise."""

_BUFFER: Final = 1 << 20
_PROGRESS: Final = 1 << 16
"""An interrupted download that brought this many bytes goes on at once."""


async def download(
    registry: Registry, offer: Offer, folder: Path, min_free: int = MIN_FREE
) -> Path:
    """The file of *offer* as ``<folder>/<sha256>.part``, complete but not verified.

    A part left behind by an earlier call, even one before a power cut, is continued. The folder
    serves one model: parts of its other versions are deleted.

    Raises:
        TransientError: Interrupted, or the disk is full; the part stays for the next call.
        PermanentError: The registry's answer makes no sense.
    """
    if not 1 <= offer.size <= MAX_MODEL:
        raise PermanentError(f"a model of {offer.size} bytes is not taken", code="E614")
    part = folder / f"{offer.sha256}.part"
    try:
        while (have := await asyncio.to_thread(_prepare, part, offer.size, min_free)) < offer.size:
            await _continue(registry, offer, part, have)
    except OSError as e:
        raise TransientError(
            f"the download cannot be written ({e.strerror})",
            where=str(part),
            fix="Check the disk of data_dir.",
            code="E633",
        ) from e
    return part


async def _continue(registry: Registry, offer: Offer, part: Path, have: int) -> None:
    """Append what the registry gives; an interruption after good progress is no error."""
    got = 0
    try:
        with part.open("ab") as file:
            try:
                got = await _append(registry, offer, file, have)
            finally:
                got = os.fstat(file.fileno()).st_size - have
    except TransientError as e:
        if got < _PROGRESS:
            raise
        log.info("download.resumed", model=offer.name, version=offer.version,
                 have=have + got, size=offer.size, why=str(e))  # fmt: skip
        return
    if have + got < offer.size and got < _PROGRESS:
        raise TransientError(
            f"the download of version {offer.version} ended early",
            where=offer.url,
            fix="It continues with the next poll.",
            code="E634",
        )


async def _append(registry: Registry, offer: Offer, file: BinaryIO, have: int) -> int:
    """Write the bytes from *have* on; what arrived before an error is on disk too."""
    buffer, got = bytearray(), 0
    try:
        async with _closing(registry.fetch(offer, have)) as chunks:
            async for chunk in chunks:
                room = offer.size - have - got
                buffer += chunk[:room]
                got += min(len(chunk), room)
                if len(buffer) >= _BUFFER:
                    await asyncio.to_thread(file.write, bytes(buffer))
                    buffer.clear()
                if len(chunk) >= room:
                    break
    finally:
        file.write(buffer)
        file.flush()
    await asyncio.to_thread(os.fsync, file.fileno())
    return got


@asynccontextmanager
async def _closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Close a generator of chunks on every way out, so that its connection ends now."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def _prepare(part: Path, size: int, min_free: int) -> int:
    """Bytes that are here already, with room on the disk for the rest."""
    part.parent.mkdir(parents=True, exist_ok=True)
    for other in part.parent.glob("*.part"):
        if other != part:
            other.unlink(missing_ok=True)
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    free = shutil.disk_usage(part.parent).free
    if free < size - have + min_free:
        raise TransientError(
            f"the disk is too full for a model of {size} bytes; {min_free} bytes are left free",
            where=str(part.parent),
            fix="Free disk space.",
            code="E632",
        )
    return have
