"""docs/models.md: its commands publish, its configuration loads, its tables are complete."""

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator

from agent.codecs import envelope as dsse
from agent.config.load import loads
from agent.config.manifest import schema
from agent.plugins import installed
from agent.registries.oci import OciConfig
from agent.runtime.releases import Stage
from simulators import models
from simulators.oci_registry import OciRegistry
from tests.models_bench import MODEL, bench, document

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "manifest.schema.json").read_text(encoding="utf-8"))
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.fixture
def serve_folder():
    """Python's own file server: no Range, no ETag, as plain as a server can be."""
    with ExitStack() as stack:

        def serve(folder):
            handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            thread = Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield serve


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("kind", ["directory", "http"])
async def test_what_is_published_by_the_book_is_taken_into_service(tmp_path, kind, serve_folder):
    """The shell function and its two calls, as they stand, make a registry the agent follows."""
    define, use, _ = _blocks("bash")
    registry = tmp_path / "registry"
    for file, note in (("bearing.onnx", "1"), ("better.onnx", "2")):
        (tmp_path / file).write_bytes(models.with_metadata(models.tiny(), note=note))
    script = define + use.replace("/srv/models", str(registry))
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=60)
    url = f"dir://{registry}" if kind == "directory" else serve_folder(registry)
    async with bench(document(tmp_path / "data", url, bearing=MODEL)) as b:
        await b.start("bearing")
        assert await b.poll("bearing")
        assert (b.serving("bearing"), b.entry("bearing")["release"]) == ("1.1.0", 2)


def test_the_configuration_of_the_page_is_accepted():
    """The example can be copied."""
    tags = {"flow": {"reg": 0}, "current": {"reg": 1}}
    device = {"type": "modbus", "connect": "tcp://10.0.0.5:502", "unit": 1, "poll": "1s",
              "addressing": "zero_based", "tags": tags}  # fmt: skip
    whole = {"version": 1, "gateway": {"id": "g1"}, "devices": {"pump1": device, "pump2": device}}
    assert (
        "bearing" in loads(yaml.safe_dump(whole) + _blocks("yaml")[0], "c.yaml", installed()).models
    )


def test_every_stage_is_explained():
    """A word that `models list` prints stands in the table."""
    told = set(
        re.findall(
            r"`(\w+)`", TEXT[TEXT.index("| stage |") : TEXT.index("```\nedge-agent models list")]
        )
    )
    assert {str(s) for s in Stage} <= told


def test_every_code_about_models_is_listed():
    """What the agent may say about models and registries, operations.md explains."""
    used = {
        code
        for path in (ROOT / "agent").rglob("*.py")
        for code in re.findall(r"\bE6\d\d\b", path.read_text(encoding="utf-8"))
    }
    listed = set(re.findall(r"\bE6\d\d\b", (ROOT / "docs" / "operations.md").read_text("utf-8")))
    assert used == listed


def test_a_package_is_made_by_the_book(tmp_path, monkeypatch):
    """The commands of the page, as they stand, on a model and healthy rows; the schema holds."""
    rows = np.random.default_rng(3).normal([30.0, 4.0], [1.0, 0.2], (400, 2))
    (tmp_path / "bearing.onnx").write_bytes(models.t2q_model(rows))
    lines = ["time,flow,Motor current"]
    lines += [f"{i},{a:.4f},{b:.4f}" for i, (a, b) in enumerate(rows)]
    (tmp_path / "healthy.csv").write_text("\n".join(lines))
    (tmp_path / "bearing.yaml").write_text(_blocks("yaml")[1])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for script in _blocks("sh"):
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=os.environ | {"PATH": path},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "signer.key").stat().st_mode & 0o077 == 0
    envelope = dsse.read((tmp_path / "out" / "bearing-1.2.0.manifest").read_bytes(), "",
                         dsse.MANIFEST)  # fmt: skip
    manifest = json.loads(envelope.payload)
    Draft202012Validator(SCHEMA).validate(manifest)
    assert sorted(manifest["reference"]["columns"]) == ["current", "flow", "output/score"]
    assert len(manifest["golden"]) == 3
    ring = json.loads((tmp_path / "keyring.json").read_text())
    assert ring["payloadType"] == dsse.KEYRING
    monkeypatch.chdir(tmp_path)
    seen = {}
    exec(_blocks("python")[0], seen)  # noqa: S102 - the page's own lines
    assert (seen["x"].shape, seen["features"].shape) == ((396, 5, 2), (396, 1, 3))


@pytest.mark.needs("docker-registry", "curl")
async def test_a_package_is_pushed_by_the_book(tmp_path):
    """The shell function fills a real container registry with what a gateway finds."""
    model = models.tiny()
    (tmp_path / "b.onnx").write_bytes(model)
    (tmp_path / "b.manifest").write_bytes(b"{}")
    with OciRegistry(tmp_path / "registry") as server:
        place = f"http://127.0.0.1:{server.port}/v2/edge/bearing"
        call = f"push {place} stable 1.2.0 3 b.onnx b.manifest"
        subprocess.run(
            ["bash", "-euc", _blocks("bash")[2] + call], cwd=tmp_path, check=True, timeout=60
        )
        config = OciConfig.model_validate({"type": "oci", "url": server.url})
        offer = await config.build("main", None).resolve("bearing", "stable", None)
        assert (offer.version, offer.release, offer.size) == ("1.2.0", 3, len(model))
        assert offer.manifest.size == 2


def test_the_registries_of_the_page_are_accepted():
    """Each of the four kinds can be copied."""
    whole = {"version": 1, "gateway": {"id": "g1"}}
    found = loads(yaml.safe_dump(whole) + _blocks("yaml")[3], "c.yaml", installed()).registries
    assert [r.type for r in found.values()] == ["directory", "http", "oci", "mlflow"]


def test_the_trust_of_the_page_is_accepted():
    """The section can be copied."""
    whole = {"version": 1, "gateway": {"id": "g1"}}
    assert loads(yaml.safe_dump(whole) + _blocks("yaml")[2], "c.yaml", installed()).trust


def test_the_schema_of_manifests_is_what_the_code_says():
    """docs/manifest.schema.json: `edge-agent config manifest` writes it."""
    assert schema() == SCHEMA
