"""Real models as packages: what the package path computes is what ONNX Runtime alone computes."""

import gzip
from datetime import UTC, datetime

import numpy as np
import onnxruntime as ort
import pytest

from agent.app.packing import pack, verify
from agent.config.manifest import PackSpec, build
from agent.core.recording import Recording, cuts
from agent.core.stats import Stats
from agent.inference.host import WorkerHost
from agent.runtime.clock import SystemClock
from agent.runtime.proof import check_inputs

pytestmark = pytest.mark.data
NAMES = tuple(f"c{i}" for i in range(24))


def engine(rows):
    return Recording(NAMES, np.arange(len(rows), dtype=np.int64) * 10**9, rows)


@pytest.mark.parametrize("kind", ["hgb", "cnn"])
async def test_the_remaining_life_of_engines(real_data, kind):
    """C-MAPSS FD001: every window of every engine, to 1e-4 cycles."""
    model = (real_data / "models" / f"cmapss_fd001_rul_{kind}.onnx").read_bytes()
    with gzip.open(real_data / "data" / "cmapss" / "train_FD001.txt.gz") as file:
        table = np.loadtxt(file)
    engines = [table[table[:, 0] == n, 2:26] for n in np.unique(table[:, 0])]
    facts = {
        "name": "rul",
        "version": "1",
        "release": 1,
        "channels": [{"name": n} for n in NAMES],
        "window": {"kind": "count", "rows": 30},
        "outputs": [{"name": "rul", "unit": "cycles"}],
    }
    spec = PackSpec.model_validate(facts)
    packed = await pack(model, spec, engine(engines[0]), datetime.now(UTC))
    manifest = build(packed.manifest)
    check_inputs(manifest, manifest.window, 24, ("",) * 24)
    assert await verify(model, manifest) >= 10
    bare = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    windows, worst = 0, 0.0
    async with WorkerHost(Stats(), SystemClock()) as host:
        await host.load("d" * 64, model)
        for rows in engines:
            x = np.stack([cut.x for cut in cuts(engine(rows), manifest.window)])
            found = (await host.predict("d" * 64, x, 60.0))["rul"]
            view = np.lib.stride_tricks.sliding_window_view(rows.astype(np.float32), 30, axis=0)
            plain = bare.run(None, {"window": np.ascontiguousarray(view.transpose(0, 2, 1))})[0]
            worst = max(worst, float(np.abs(found - plain.reshape(-1)).max()))
            windows += len(x)
    assert windows == 17_731
    assert worst <= 1e-4
