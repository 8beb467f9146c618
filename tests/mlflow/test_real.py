"""A real MLflow server. Run by ``make test-mlflow``."""

import os
import re
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from agent.core.errors import PermanentError
from simulators.mlflow_server import publish
from simulators.oci_registry import free_port
from simulators.packages import Key, mean_manifest, signed
from simulators.plant import Event
from simulators.tracking import Tracking
from simulators.trainer import Trainer
from tests.integration.test_mlflow import V1, V2, port, put, story, trusting
from tests.integration.test_trainer import first_version, plant_rows, stale_event
from tests.models_bench import bench
from tests.tools import until

MLFLOW = os.environ.get("EDGE_AGENT_MLFLOW", "")

pytestmark = pytest.mark.skipif(not MLFLOW, reason="needs MLflow: make test-mlflow")


@asynccontextmanager
async def started(folder):
    """The server with its own database and artefacts; it takes up to a minute."""
    number = free_port()
    args = ["--backend-store-uri", f"sqlite:///{folder}/db", "--workers", "1",
            "--artifacts-destination", str(folder / "artefacts"), "--host", "127.0.0.1",
            "--port", str(number)]  # fmt: skip
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([MLFLOW, "server", *args], env=env, stdout=log, stderr=log,
                                   start_new_session=True)  # fmt: skip
    base = f"http://127.0.0.1:{number}"

    def healthy():
        try:
            return httpx.get(f"{base}/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        await until(healthy, 180, lambda: (folder / "log").read_text()[-2000:])
        yield base
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


async def by_the_book(folder, base, key):
    """The script of docs/models.md, with the client of MLflow."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    (folder / "b.onnx").write_bytes(V1)
    (folder / "b.manifest").write_bytes(signed(mean_manifest("book", "1.2.0", 3, V1), key))
    env = os.environ | {"MLFLOW_TRACKING_URI": base, "GIT_PYTHON_REFRESH": "quiet"}
    python = Path(MLFLOW).with_name("python")
    subprocess.run([python, "-c", script, "b.onnx", "b.manifest", "stable"], cwd=folder, env=env,
                   check=True, timeout=120)  # fmt: skip
    registry = port("mlflow+" + base)
    offer = await registry.resolve("book", "stable", None)
    assert (offer.version, offer.release, offer.size) == ("1.2.0", 3, len(V1))
    assert b"".join([c async for c in registry.fetch(offer, 0)]) == V1


async def test_the_real_server(tmp_path):
    """The story of the stand-in; and MLflow lets a READY version be overwritten: we do not."""
    async with started(tmp_path) as base:
        await story(tmp_path, base, "mlflow+" + base)
        (tmp_path / "two").mkdir()
        doc, key = trusting(tmp_path / "two", "mlflow+" + base)
        put(base, key, 1, V1)
        async with bench(doc) as b:
            await b.start()
            assert await b.poll(), b.entry()["last_error"]
            put(base, key, 2, V2)
            offer = await port("mlflow+" + base).resolve("m", "stable", None)
            httpx.put(offer.url, content=V2[:-1] + b"?", trust_env=False).raise_for_status()
            assert not await b.poll()
            assert "E631" in b.entry()["last_error"]
            assert b.serving() == "1.1"
        await by_the_book(tmp_path, base, key)
        publish(base, "bare", "1", V1, size="0")
        with pytest.raises(PermanentError, match="E614"):
            await port("mlflow+" + base).resolve("bare", "stable", None)


async def test_the_trainer_is_tracked_by_the_real_server(tmp_path):
    """Plain REST: experiment, runs with parameters and metrics, and which one was published."""
    registry, key = tmp_path / "registry", Key.new()
    await first_version(registry, key, plant_rows(300))
    event = stale_event(tmp_path, plant_rows(300, Event(0.0, 0, "duty")))
    async with started(tmp_path) as base:
        for _ in range(2):  # the experiment is made once
            trainer = Trainer(registry, tmp_path, key.seed, tracking=Tracking(base, "pumps"))
            assert await trainer.answer(event)
        asked = {"experiment_name": "pumps"}
        api = f"{base}/api/2.0/mlflow"
        found = httpx.get(f"{api}/experiments/get-by-name", params=asked, trust_env=False).json()
        ids = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        runs = httpx.post(f"{api}/runs/search", json=ids, trust_env=False).json()["runs"]

    assert len(runs) == 10
    assert {r["info"]["status"] for r in runs} == {"FINISHED"}
    assert {m["key"] for m in runs[0]["data"]["metrics"]} >= {"held_out_missed"}
    tags = [{t["key"]: t["value"] for t in r["data"]["tags"]} for r in runs]
    assert sorted(t["published"] for t in tags if "published" in t) == [
        "pump-health 1.0.0+2",
        "pump-health 1.0.0+3",
    ]
