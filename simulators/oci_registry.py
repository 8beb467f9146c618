"""Debian's docker-registry on loopback, and a publisher that pushes packages to it.

Its files are in a folder, so that a test can do to them what no client may.
"""

import hashlib
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Final, Self

import httpx

from agent.codecs.envelope import MANIFEST
from agent.registries.oci import RELEASE, VERSION, WEIGHTS

IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
_PROGRAM: Final = "docker-registry"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class OciRegistry:
    """A registry that keeps everything below *folder*; with *htpasswd*, only for its users."""

    def __init__(self, folder: Path, *, htpasswd: Path | None = None) -> None:
        self._folder, self._htpasswd = folder, htpasswd
        self.port = free_port()
        self.auth: tuple[str, str] | None = None

    @property
    def url(self) -> str:
        """What the ``url`` of a registry of type ``oci`` takes."""
        return f"oci+http://127.0.0.1:{self.port}/edge"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "data")}},
            "http": {"addr": f"127.0.0.1:{self.port}"},
        }
        if self._htpasswd is not None:
            config["auth"] = {"htpasswd": {"realm": "r", "path": str(self._htpasswd)}}
        path = self._folder / "config.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        self._process = subprocess.Popen(
            [_PROGRAM, "serve", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise OSError("docker-registry does not start")
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/v2/", trust_env=False).is_success or (
                self._htpasswd is not None
            )
        except httpx.HTTPError:
            return False

    def __exit__(self, *exc: object) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def publish(
        self,
        name: str,
        version: str,
        model: bytes,
        channel: str = "stable",
        *,
        manifest: bytes = b"",
        release: int = 1,
        **lies: Any,
    ) -> None:
        """Push a package, then its image manifest under the tag of the channel.

        *lies* replace what the image manifest says of itself.
        """
        base = f"http://127.0.0.1:{self.port}/v2/edge/{name}"
        with httpx.Client(auth=self.auth, trust_env=False) as client:
            layers = [(WEIGHTS, model, "model.onnx"), (MANIFEST, manifest, "edge.manifest")]
            image: dict[str, Any] = {
                "schemaVersion": 2,
                "mediaType": IMAGE,
                "artifactType": "application/vnd.cncf.model.manifest.v1+json",
                "config": _push(client, base, _CONFIG, b"{}", "config.json"),
                "layers": [
                    _push(client, base, kind, data, title) for kind, data, title in layers if data
                ],
                "annotations": {VERSION: version, RELEASE: str(release)},
            }
            answer = client.put(
                f"{base}/manifests/{channel}",
                content=json.dumps(image | lies),
                headers={"Content-Type": IMAGE},
            )
            answer.raise_for_status()

    def blob(self, data: bytes) -> Path:
        """Where the registry keeps a blob: for what no client may do."""
        digest = hashlib.sha256(data).hexdigest()
        blobs = self._folder / "data" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return blobs / digest[:2] / digest / "data"


def _push(
    client: httpx.Client, base: str, media_type: str, data: bytes, title: str
) -> dict[str, Any]:
    """Upload a blob; its descriptor."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    begun = client.post(f"{base}/blobs/uploads/")
    begun.raise_for_status()
    place = httpx.URL(begun.headers["location"]).copy_merge_params({"digest": digest})
    client.put(httpx.URL(base).join(place), content=data).raise_for_status()
    return {
        "mediaType": media_type,
        "digest": digest,
        "size": len(data),
        "annotations": {"org.cncf.model.filepath": title},
    }
