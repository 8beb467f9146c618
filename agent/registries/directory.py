"""A folder as registry: a local disk, a network share, a stick."""

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Context, RegistrySection
from agent.config.cures import readable, readable_folder
from agent.core.errors import AgentError, PermanentError, TransientError
from agent.core.registry import Offer
from agent.registries.index import FILE, MAX_INDEX, check_name, parse

_CHUNK: Final = 1 << 18
_PREFIX: Final = "dir://"


class DirectoryConfig(RegistrySection):
    """A folder that holds ``NAME/index.json`` and the model files."""

    type: Literal["directory"]
    """A folder: a disk, a stick, a network share."""
    url: str
    """`dir:///srv/models`."""

    @field_validator("url")
    @classmethod
    def _is_folder(cls, value: str) -> str:
        if not value.startswith(_PREFIX + "/"):
            raise PydanticCustomError(
                "registry_url",
                "`{value}` is no folder",
                {"value": value, "code": "E660", "fix": 'Write "dir:///absolute/path".'},
            )
        return value

    def build(self, name: str, ctx: Context) -> "DirectoryRegistry":
        """The registry in this folder."""
        del ctx
        return DirectoryRegistry(name, Path(self.url.removeprefix(_PREFIX)))


def publish(
    root: Path, said: Mapping[str, Any], model: bytes, manifest: bytes, channel: str
) -> None:
    """Put a version on a channel: the files first, the index last and in one step.

    Args:
        root: The folder of the registry.
        said: The manifest's name, version, release.
        model: The ONNX file.
        manifest: The signed one.
        channel: It names this version from now on.
    """
    name, version = str(said["name"]), str(said["version"])
    folder, stem = root / check_name(name), f"{name}-{version}"
    _put(folder / f"{stem}.onnx", model)
    _put(folder / f"{stem}.manifest", manifest)
    index = published(root, name)
    index["versions"][version] = {
        "release": said["release"],
        "file": f"{stem}.onnx",
        "size": len(model),
        "sha256": hashlib.sha256(model).hexdigest(),
        "manifest": {"file": f"{stem}.manifest", "size": len(manifest)},
    }
    index["channels"][channel] = version
    _put(folder / FILE, json.dumps(index, indent=1).encode())


def published(root: Path, name: str) -> dict[str, Any]:
    """The index of a model in a folder of one's own; an empty one where nothing was published."""
    path = root / check_name(name) / FILE
    if not path.is_file():
        return {"schema": 1, "channels": {}, "versions": {}}
    index: dict[str, Any] = json.loads(path.read_bytes())
    return index


def _put(path: Path, data: bytes) -> None:
    """On the disk, whole or not at all."""
    new = path.with_name(path.name + ".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


class DirectoryRegistry:
    """Port `Registry` over plain files."""

    def __init__(self, name: str, root: Path) -> None:
        self._name, self._root = name, root

    async def resolve(self, name: str, channel: str, token: str | None) -> Offer | None:
        """Token: mtime, size and hash of the index; a copy that keeps the mtime is still seen."""
        folder = self._root / check_name(name)
        data, current = await asyncio.to_thread(self._index, folder / FILE)
        if token == current:
            return None
        return parse(
            data,
            name,
            channel,
            where=str(folder / FILE),
            locate=lambda file: str(folder / file),
            token=current,
        )

    async def fetch(self, offer: Offer, offset: int) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._open, Path(offer.url))
        try:
            await asyncio.to_thread(file.seek, offset)
            left = offer.size - offset
            while left > 0 and (chunk := await self._read(file, min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
        finally:
            file.close()

    async def _read(self, file: BinaryIO, count: int) -> bytes:
        try:
            return await asyncio.to_thread(file.read, count)
        except OSError as e:
            raise self._error(Path(file.name), e) from e

    def _index(self, path: Path) -> tuple[bytes, str]:
        with self._open(path) as file:
            about = os.fstat(file.fileno())
            try:
                data = file.read(MAX_INDEX + 1)
            except OSError as e:
                raise self._error(path, e) from e
        digest = hashlib.sha256(data).hexdigest()
        return data, f"{about.st_mtime_ns}-{about.st_size}-{digest}"

    def _open(self, path: Path) -> BinaryIO:
        """Open a regular file; never waits for a pipe or reads a device."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as e:
            raise self._error(path, e) from e
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise PermanentError(
                "is no regular file",
                where=str(path),
                fix="Put the file itself there; pipes, devices and folders are not read.",
                code="E617",
            )
        return os.fdopen(fd, "rb")

    def _error(self, path: Path, error: OSError) -> AgentError:
        """A missing or forbidden file needs an operator; everything else may pass."""
        why = error.strerror or str(error)
        if isinstance(error, FileNotFoundError) and not self._root.is_dir():
            return TransientError(
                f"the folder {self._root} of registry `{self._name}` is not there",
                fix="Mount the share or correct `url`.",
                code="E620",
            )
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return PermanentError(
                "there is no such file", where=str(path), fix="Publish the model.", code="E617"
            )
        if isinstance(error, PermissionError):
            return PermanentError(
                f"cannot be read ({why})",
                where=str(path),
                fix=readable_folder(self._root) or readable(str(path)) or "Let edge-agent read it.",
                code="E622",
            )
        return TransientError(
            f"cannot be read ({why})", where=str(path), fix="Check disk or mount.", code="E620"
        )
