"""Verified model files, by digest: ``<folder>/<sha256>.onnx``."""

import hashlib
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.core.errors import PermanentError, TransientError

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class FileArtifacts:
    """Port `ArtifactStore` over a folder on the filesystem that downloads go to as well.

    A file under its digest is complete: it comes in by one rename after it was verified.
    ``add`` and ``collect`` block on the disk; call them in a thread.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str) -> Path | None:
        """Where the file is; None if it is not here."""
        path = self._at(digest)
        return path if path.is_file() else None

    def add(self, download: Path, sha256: str, size: int) -> Path:
        """Check size and SHA-256, then move in; a file that differs is deleted.

        Raises:
            PermanentError: Size or digest differ (E630, E631).
            TransientError: The disk refuses (E633).
        """
        target = self._at(sha256)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _verify(download, sha256, size)
            download.replace(target)
            _sync(self._folder)
        except OSError as e:
            raise _unstored("model file", target, e) from e
        return target

    def describe(self, digest: str, envelope: bytes) -> None:
        """Keep the manifest of the model file *digest* beside it, in place of an older one."""
        target = self._at(digest).with_suffix(".manifest")
        new = target.with_suffix(".new")
        try:
            with new.open("wb") as file:
                file.write(envelope)
                file.flush()
                os.fsync(file.fileno())
            new.replace(target)
            _sync(self._folder)
        except OSError as e:
            raise _unstored("manifest", target, e) from e

    def description(self, digest: str) -> bytes:
        """The manifest of the model file *digest*; empty when there is none."""
        try:
            return self._at(digest).with_suffix(".manifest").read_bytes()
        except OSError:
            return b""

    def size(self) -> int:
        """Bytes of everything that is kept here."""
        total = 0
        for path in self._folder.glob("*"):
            with suppress(OSError):
                total += path.stat().st_size
        return total

    def collect(self, keep: Collection[str]) -> list[str]:
        """Delete every file whose digest is not in *keep*; the digests deleted."""
        gone = []
        for path in self._folder.glob("*.onnx"):
            if path.stem not in keep:
                try:
                    path.unlink(missing_ok=True)
                    path.with_suffix(".manifest").unlink(missing_ok=True)
                except OSError:
                    continue
                gone.append(path.stem)
        return sorted(gone)

    def _at(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise PermanentError(f"{digest!r:.80} is no SHA-256 in hex", code="E614")
        return self._folder / f"{digest}.onnx"


def _unstored(what: str, target: Path, e: OSError) -> TransientError:
    return TransientError(
        f"the {what} cannot be stored ({e.strerror})",
        where=str(target),
        fix="Check the disk of data_dir.",
        code="E633",
    )


def _verify(download: Path, sha256: str, size: int) -> None:
    """`PermanentError` after deleting the file, unless it is what it should be; then on disk."""
    with download.open("rb") as file:
        found = os.fstat(file.fileno()).st_size
        digest = hashlib.file_digest(file, "sha256").hexdigest() if found == size else ""
        os.fsync(file.fileno())
    if found == size and digest == sha256:
        return
    download.unlink(missing_ok=True)
    if found != size:
        raise PermanentError(
            f"the model file has {found} bytes, {size} were promised",
            where=download.name,
            fix="Publish file and index again; the index goes last.",
            code="E630",
        )
    raise PermanentError(
        f"the model file has SHA-256 {digest[:12]}.., {sha256[:12]}.. was promised",
        where=download.name,
        fix="Publish file and index again; if it recurs, look for a proxy that changes bytes.",
        code="E631",
    )


def _sync(folder: Path) -> None:
    """Make a rename in *folder* last."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
