"""docs/models.md: its commands publish, its configuration loads, its tables are complete."""

import re
import subprocess
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from agent.config.load import loads
from agent.plugins import installed
from agent.runtime.releases import Stage
from simulators import models
from tests.models_bench import MODEL, bench, document

ROOT = Path(__file__).parents[2]
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
    define, use = _blocks("bash")
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
