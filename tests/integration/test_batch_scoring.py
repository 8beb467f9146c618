"""Stored history scored in batches: the results of online scoring, each window once."""

import gzip
from contextlib import asynccontextmanager

import numpy as np
import pytest

from agent.app import plan
from agent.core.batch import Batch
from agent.core.errors import PermanentError, TransientError
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.storage.historian import Historian
from simulators import models
from tests.models_bench import MODEL, bench, document

S = 10**9
COUNT = MODEL | {"decide": {"output": "score", "above": 6.0, "off": 5.0, "of": [2, 3]}}
STEPS = {"kind": "grid", "rows": 4, "period": "1s", "stride": "2s", "max_age": "3s"}
GRID = COUNT | {"window": STEPS}
RESET = COUNT | {"window": {"kind": "count", "rows": 5, "reset_after": "2500ms"}}


@asynccontextmanager
async def served(data_dir, section, model=None, devices=None):
    """A bench in which one version serves."""
    data_dir.mkdir(exist_ok=True)
    file = data_dir / "m.onnx"
    file.write_bytes(model or models.tiny())
    section = {k: v for k, v in section.items() if k not in {"registry", "channel"}}
    doc = document(data_dir, "dir:///nowhere", m=section | {"file": str(file)})
    async with bench(doc | ({"devices": devices} if devices else {})) as b:
        await b.start()
        yield b


def rows(b, seed, n):
    """A machine that wanders, with gaps, Bad samples and a fault in the middle."""
    rng = np.random.default_rng(seed)
    t = b._t_ns // S * S - 4000 * S + np.cumsum(rng.choice([1, 1, 1, 2, 6], n)) * S
    v = 4 + rng.normal(0, 1, (n, 3)).cumsum(axis=0) * 0.2
    v[n // 2 : n // 2 + 40] += 9
    q = np.where(rng.random((n, 3)) < 0.01, 24, 192).astype(np.uint8)
    return t, v, q


async def fed(b, t, v, q, device="pump1"):
    """Row by row through the pipeline, as from a device; scored online as they come."""
    tags: TagSet = plan.streams(b.daemon.loaded.settings)[device]
    for i in range(len(t)):
        s = slice(i, i + 1)
        b.daemon.pipeline.emit(Batch(device, tags, t[s], v[s], q[s]))
        if i % 50 == 49:
            await b.daemon.scoring.drain(5.0)
    await b.daemon.scoring.drain(5.0)


def told(b, stream, column):
    """(end of the window, quality) -> value of *column* in everything that *stream* was told."""
    batches = [r.record for r in b.records if r.stream == stream]
    short = column
    return [
        (int(t), int(x.q[i, x.tags.short.index(short)]), float(x.v[i, x.tags.short.index(short)]))
        for x in batches
        for i, t in enumerate(x.t)
    ]


def alarm_flags(b, times):
    """Did the alarm stand after the result of each time, as its events say."""
    events = [(r.record.t_ns, r.record.active) for r in b.records if r.lane == "alarm"]
    return [bool(([a for t, a in events if t <= at] or [False])[-1]) for at in times]


def same(b, instance="pump1"):
    """Both ways gave the same windows, qualities, scores and flags."""
    online, batch = (told(b, f"model/{instance}{end}", "score") for end in ("", "~batch"))
    assert [x[:2] for x in batch] == [x[:2] for x in online][: len(batch)]
    values = np.array([x[2] for x in online][: len(batch)]), np.array([x[2] for x in batch])
    assert np.allclose(*values, rtol=1e-5, equal_nan=True)
    told_last = {t: (q, f) for t, q, f in told(b, f"model/{instance}~batch", "flag")}
    flags = {t: bool(f) for t, (q, f) in told_last.items() if q >= Quality.UNCERTAIN}
    assert list(flags.values()) == alarm_flags(b, flags)
    return len(online), len(batch), sum(flags.values())


@pytest.mark.parametrize("section", [COUNT, GRID, RESET], ids=["count", "grid", "reset"])
async def test_every_window_is_scored_as_it_was_online(tmp_path, section):
    """Also when the history is scored in several runs, and with Bad rows and gaps in it."""
    async with served(tmp_path, section) as b:
        t, v, q = rows(b, 1, 600)
        for part in (slice(200), slice(200, 400), slice(400, 600)):
            await fed(b, t[part], v[part], q[part])
            done = await b.daemon.models.score("m")
            assert done["pump1"] > 20
            assert await b.daemon.models.score("m") == {"pump1": 0}
        online, batch, flagged = same(b)
        assert online - batch <= (1 if section is GRID else 0)  # a grid may go on at its newest row
        assert 5 < flagged < batch


async def test_a_restart_goes_on_behind_the_last_result(tmp_path):
    """Nothing is scored again, nothing left out, and the decision goes on with what it knew; what
    was scored can be read back, with the window and the version.
    """
    async with served(tmp_path, COUNT) as b:
        t, v, q = rows(b, 5, 300)
        await fed(b, t[:150], v[:150], q[:150])
        await b.daemon.models.score("m")
        first = told(b, "model/pump1~batch", "flag")
    async with served(tmp_path, COUNT) as b:
        await fed(b, t[150:], v[150:], q[150:])
        await b.daemon.models.score("m")
        second = told(b, "model/pump1~batch", "flag")
        await b.daemon.store.journal.flush()
        read = await b.daemon.store.journal.read("model/pump1~batch", 10_000)
    assert len(first) == len({t for t, *_ in first}) == 146
    assert first[-1][0] < second[0][0]
    assert (read.origin.role, read.origin.model, read.late.all()) == ("batch", "m", True)
    with Historian(tmp_path) as historian:
        pieces = list(historian.pieces("model/pump1~batch/flag", 0, 2**62))
    assert np.concatenate([p.t for p in pieces]).tolist() == [x[0] for x in first + second]


async def test_what_no_version_serves_waits(tmp_path):
    """The next run scores it all."""
    async with served(tmp_path, COUNT) as b:
        b.daemon.models._withdraw("m")
        await fed(b, *rows(b, 1, 50))
        with pytest.raises(TransientError, match="E694"):
            await b.daemon.models.score("m")
        await b.start()
        assert await b.daemon.models.score("m") == {"pump1": 46}


async def test_a_window_that_the_model_refuses_stops_no_other(tmp_path):
    """Its result is Bad; with a crash the worker is replaced and the window scored again."""
    async with served(tmp_path, COUNT) as b:
        await fed(b, *rows(b, 1, 50))
        refused = b.daemon.models.host.predict
        calls = []

        async def predict(digest, x, deadline_s):

            calls.append(len(x))
            if (x[:, -1, 0] == marked).any():
                raise PermanentError("no", code="E603")
            return await refused(digest, x, deadline_s)

        marked = np.float32(b.daemon.pipeline.channels["pump1"].history.view(20)[1][0, 0])
        b.daemon.models.batch._host = type("H", (), {"predict": staticmethod(predict)})()
        assert await b.daemon.models.score("m") == {"pump1": 46}
        found = told(b, "model/pump1~batch", "score")
        online = told(b, "model/pump1", "score")
        bad = [i for i, (x, y) in enumerate(zip(found, online, strict=True)) if x[1] != y[1]]
        assert len(bad) == 1
        assert found[bad[0]][1] == Quality.BAD_SENSOR


@pytest.mark.data
async def test_both_ways_flag_the_same_rows_of_skab(tmp_path, real_data):
    """Every labelled recording that is here, with its own detector: no flag differs."""
    names = sorted((real_data / "models" / "skab_t2q").glob("*.onnx"))
    assert names
    compared = 0
    tags = [f"t{i}" for i in range(8)]
    device = {
        "type": "modbus", "connect": "tcp://127.0.0.1:9", "unit": 1, "addressing": "zero_based",
        "tags": {n: {"reg": 2 * i, "as": "float32", "order": "ABCD"} for i, n in enumerate(tags)},
    }  # fmt: skip
    for number, file in enumerate(names):
        kind, _, index = file.stem.rpartition("_")
        with gzip.open(real_data / "data" / "skab" / kind / f"{index}.csv.gz", "rt") as text:
            lines = text.read().splitlines()[1:]
        v = np.array([line.split(";")[1:9] for line in lines], float)
        section = COUNT | {
            "decide": {"output": "score", "above": 1.0},
            "instances": {"pump1": {"inputs": [f"pump1/{n}" for n in tags]}},
        }
        devices = {"pump1": device}
        async with served(tmp_path / str(number), section, file.read_bytes(), devices) as b:
            t = b._t_ns // S * S - 4000 * S + np.arange(len(v)) * S
            await fed(b, t, v, np.full(v.shape, 192, np.uint8))
            await b.daemon.models.score("m")
            online, batch, flagged = same(b)
            assert online == batch == len(v) - 4
            assert flagged
            compared += batch
    assert compared > 10_000
