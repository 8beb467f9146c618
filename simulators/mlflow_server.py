"""A stand-in for an MLflow server, with the shapes that the real one was recorded with; and a
publisher that talks plain REST, to the stand-in and to the real one alike.
"""

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx

from agent.registries.mlflow import FILE, MANIFEST_FILE
from simulators.loopback import LoopbackServer

_API: Final = "/api/2.0"
_FILES: Final = f"{_API}/mlflow-artifacts/artifacts/"


def publish(
    base: str,
    name: str,
    version: str,
    model: bytes,
    *,
    manifest: bytes = b"",
    release: int = 1,
    channel: str = "stable",
    **lies: str,
) -> str:
    """Put a package on an MLflow server and its alias on it; the number of the model version.

    *lies* replace tags: ``size="1"`` says ``edge.size`` is 1.
    """
    facts = {"version": version, "release": str(release), "size": str(len(model)),
             "sha256": hashlib.sha256(model).hexdigest()}  # fmt: skip
    if manifest:
        facts["manifest_size"] = str(len(manifest))
    tags = [{"key": f"edge.{k}", "value": v} for k, v in (facts | lies).items()]
    with httpx.Client(base_url=base + _API, trust_env=False, timeout=60) as client:
        begun = client.post("/mlflow/runs/create", json={"experiment_id": "0"})
        begun.raise_for_status()
        run = begun.json()["run"]["info"]
        folder = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        for file, data in ((FILE, model), (MANIFEST_FILE, manifest)):
            if data:
                path = f"/mlflow-artifacts/artifacts/{folder}/package/{file}"
                client.put(path, content=data).raise_for_status()
        client.post("/mlflow/registered-models/create", json={"name": name})  # may be there
        made = client.post(
            "/mlflow/model-versions/create",
            json={
                "name": name,
                "source": f"{run['artifact_uri']}/package",
                "run_id": run["run_id"],
                "tags": tags,
            },
        )
        made.raise_for_status()
        number: str = made.json()["model_version"]["version"]
        alias = {"name": name, "alias": channel, "version": number}
        client.post("/mlflow/registered-models/alias", json=alias).raise_for_status()
    return number


class MlflowServer(LoopbackServer):
    """The calls that `publish`, `tracking` and a gateway make, in memory.

    Attributes:
        experiments: Name -> id.
        runs: Id -> what was logged: ``params``, ``metrics``, ``tags``, ``status``.
        files: Path -> artefact; a test may change one, as every client of MLflow may.
        fault: ``truncated`` | ``endless`` | ``garbage`` | ``refuse``; empty when all is well.
        requests: Method and path of every request.
    """

    def __init__(self) -> None:
        super().__init__(_handler(self))
        self.files: dict[str, bytes] = {}
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.fault = ""
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        """What the ``url`` of a registry of type ``mlflow`` takes."""
        return "mlflow+" + self.base

    def look_up(self, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Answer of ``registered-models/alias``, with the codes of MLflow 3.17."""
        name, alias = query.get("name", ""), query.get("alias", "")
        if name not in self.versions:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}
        number = self.aliases.get((name, alias))
        if number is None:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no such alias"}
        found = self.versions[name][int(number) - 1]
        return 200, {"model_version": found | {"aliases": [alias]}}

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A new version, as MLflow describes it."""
        some = self.versions.setdefault(asked["name"], [])
        made = {
            "name": asked["name"],
            "version": str(len(some) + 1),
            "creation_timestamp": 1764000000000,
            "last_updated_timestamp": 1764000000000,
            "current_stage": "None",
            "source": asked["source"],
            "run_id": "",
            "status": "READY",
            "tags": asked["tags"],
        }
        some.append(made)
        return {"model_version": made}

    def begin(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A new run."""
        run = f"{len(self.requests):032x}"
        uri = f"mlflow-artifacts:/{asked['experiment_id']}/{run}/artifacts"
        self.runs[run] = {"name": asked.get("run_name", ""), "status": "RUNNING"}
        return {"run": {"info": {"run_id": run, "artifact_uri": uri}}}

    def note(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What a run logs, or how it ended."""
        run = self.runs[asked["run_id"]]
        for kind in ("params", "metrics", "tags"):
            run.setdefault(kind, {}).update({e["key"]: e["value"] for e in asked.get(kind, ())})
        run["status"] = asked.get("status", run["status"])
        return {}


def _handler(server: MlflowServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """REST of MLflow, as far as it is used."""

        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            del format, args

        def _json(self, status: int, answer: object) -> None:
            data = b"<html>" if server.fault == "garbage" else json.dumps(answer).encode()
            self._send(status, data, [("Content-Type", "application/json")])

        def _send(self, status: int, data: bytes, headers: list[tuple[str, str]]) -> None:
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            server.requests.append(f"GET {url.path}")
            query = {k: v[0] for k, v in parse_qs(url.query).items()}
            if server.fault == "refuse":
                self._send(401, b"", [("WWW-Authenticate", 'Basic realm="mlflow"')])
            elif url.path.startswith(_FILES):
                self._file(server.files.get(url.path.removeprefix(_FILES)))
            elif url.path.endswith("/registered-models/alias"):
                self._json(*server.look_up(query))
            elif query.get("experiment_name") in server.experiments:
                found_id = server.experiments[query["experiment_name"]]
                self._json(200, {"experiment": {"experiment_id": found_id}})
            elif url.path.endswith("/model-versions/get-download-uri"):
                found = server.versions[query["name"]][int(query["version"]) - 1]
                self._json(200, {"artifact_uri": found["source"]})
            else:
                self._json(404, {"error_code": "ENDPOINT_NOT_FOUND"})

        def _file(self, data: bytes | None) -> None:
            if data is None:
                self._json(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
                return
            if server.fault == "endless":
                self.send_response(200)
                self.end_headers()
                while not server.closing:
                    self.wfile.write(b"\x55" * 65536)
                return
            first = int(self.headers.get("Range", "bytes=0-")[6:-1])
            part = data[first : first + (len(data) - first) // 2] if self._cut() else data[first:]
            span = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self.send_response(206 if first else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - first))
            if first:
                self.send_header("Content-Range", span)
            self.end_headers()
            self.wfile.write(part)
            if self._cut():
                self.close_connection = True

        def _cut(self) -> bool:
            return server.fault == "truncated"

        def do_PUT(self) -> None:
            server.files[urlsplit(self.path).path.removeprefix(_FILES)] = self._body()
            self._json(200, {})

        def do_POST(self) -> None:
            asked = json.loads(self._body())
            server.requests.append(f"POST {self.path}")
            if self.path.endswith("/model-versions/create"):
                self._json(200, server.create(asked))
            elif self.path.endswith("/registered-models/alias"):
                server.aliases[asked["name"], asked["alias"]] = asked["version"]
                self._json(200, {})
            elif self.path.endswith("/runs/create"):
                self._json(200, server.begin(asked))
            elif self.path.endswith(("/runs/log-batch", "/runs/update")):
                self._json(200, server.note(asked))
            elif self.path.endswith("/experiments/create"):
                number = server.experiments[asked["name"]] = str(len(server.experiments) + 1)
                self._json(200, {"experiment_id": number})
            else:
                self._json(200, {"registered_model": {"name": asked["name"]}})

    return Handler
