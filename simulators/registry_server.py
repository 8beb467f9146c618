"""A model registry of static files on loopback, which can also lie, stall and break off."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Literal

from simulators.loopback import LoopbackServer

Fault = Literal[
    "ok", "error", "silent", "garbage", "cut", "corrupt", "endless", "drip", "other_range"
]
"""What the server does wrong: ``error`` answers 500; ``silent`` never answers; ``garbage`` is an
index that is no JSON; ``cut`` breaks off in the middle of a file; ``corrupt`` changes one byte of
it; ``endless`` never stops sending; ``drip`` sends a byte now and then; ``other_range`` answers a
request for the rest of a file with its start."""

_CHUNK: Final = 1 << 16
_ENDLESS: Final = b"\x55" * _CHUNK


@dataclass(slots=True)
class _Model:
    """What is published of one model."""

    channels: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


class RegistryServer(LoopbackServer):
    """Serves ``NAME/index.json`` and the files of every published version.

    Attributes:
        fault: May be changed at any time; concerns the requests that come from then on.
        requests: (path, first byte asked for) of every request so far.
        sent: Bytes of bodies sent so far.
    """

    def __init__(self) -> None:
        super().__init__(_handler(self))
        self.fault: Fault = "ok"
        self.requests: list[tuple[str, int]] = []
        self.sent = 0
        self._models: dict[str, _Model] = {}

    @property
    def url(self) -> str:
        """What the ``url`` of a registry of type ``http`` takes."""
        return self.base

    def publish(
        self,
        name: str,
        version: str,
        model: bytes,
        channel: str = "stable",
        *,
        manifest: bytes = b"",
        **lies: Any,
    ) -> None:
        """Put a version on a channel; its release is one more than the highest so far.

        A *manifest* is published beside the file. *lies* replace facts of the version's entry in
        the index: ``size=10``, ``sha256="00…"``.
        """
        published = self._models.setdefault(name, _Model())
        file = f"{name}-{version}.onnx"
        published.files[file] = model
        facts: dict[str, Any] = {
            "release": 1 + max((v["release"] for v in published.versions.values()), default=0),
            "file": file,
            "size": len(model),
            "sha256": hashlib.sha256(model).hexdigest(),
        }
        if manifest:
            note = f"{name}-{version}.manifest"
            published.files[note] = manifest
            digest = hashlib.sha256(manifest).hexdigest()
            facts["manifest"] = {"file": note, "size": len(manifest), "sha256": digest}
        published.versions[version] = facts | lies
        published.channels[channel] = version

    def index(self, name: str) -> bytes:
        """The index of a model as it is served."""
        published = self._models[name]
        index = {"schema": 1, "channels": published.channels, "versions": published.versions}
        return json.dumps(index).encode()

    def find(self, path: str) -> bytes | None:
        """The bytes at ``/NAME/FILE``."""
        name, _, file = path.lstrip("/").partition("/")
        if name not in self._models:
            return None
        return self.index(name) if file == "index.json" else self._models[name].files.get(file)

    def body(self, path: str, data: bytes, first: int) -> Iterator[bytes]:
        """The pieces that go out for *data* from byte *first* on, wrong as ``fault`` says."""
        is_file = not path.endswith("index.json")
        if self.fault == "garbage" and not is_file:
            data = b"{" * len(data)
        if self.fault == "corrupt" and is_file:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        if self.fault == "cut" and is_file:
            data = data[: first + (len(data) - first) // 2]
        if self.fault == "endless":
            while not self.closing:
                yield _ENDLESS
        if self.fault == "drip" and is_file:
            for i in range(first, len(data)):
                yield data[i : i + 1]
                if self.wait(0.2):
                    return
        for i in range(first, len(data), _CHUNK):
            yield data[i : i + _CHUNK]


def _handler(registry: RegistryServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Static files with ETag and Range."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """One request; a client that leaves early is no error."""
            with suppress(ConnectionError):
                self._answer()

        def log_message(self, *_: object) -> None:
            """Nothing: who wants to know reads ``requests``."""

        def _answer(self) -> None:
            asked = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
            first = int(asked) if asked.isdecimal() else 0
            registry.requests.append((self.path, first))
            self.close_connection = True
            if registry.fault == "silent":
                while not registry.wait(0.1):
                    pass
                return
            data = registry.find(self.path)
            if data is None or registry.fault == "error":
                self._head(404 if data is None else 500, 0)
                return
            etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            if self.headers.get("If-None-Match") == etag and registry.fault == "ok":
                self._head(304, 0, etag)
                return
            start = 0 if registry.fault == "other_range" else first
            unsized = registry.fault == "endless"
            size = None if unsized else len(data) - start
            self._head(206 if first else 200, size, etag, (start, len(data)) if first else None)
            for piece in registry.body(self.path, data, start):
                self.wfile.write(piece)
                registry.sent += len(piece)

        def _head(
            self,
            status: int,
            size: int | None,
            etag: str = "",
            rest: tuple[int, int] | None = None,
        ) -> None:
            self.send_response(status)
            if size is not None:
                self.send_header("Content-Length", str(size))
            if etag:
                self.send_header("ETag", etag)
            if rest is not None:
                self.send_header("Content-Range", f"bytes {rest[0]}-{rest[1] - 1}/{rest[1]}")
            self.send_header("Connection", "close")
            self.end_headers()

    return Handler
