"""Back-tests as they are asked for: by a person, by the life of a version, on real rows."""

import json
from contextlib import closing
from functools import partial

import numpy as np
import onnxruntime
import pytest
import yaml

from agent.app.backtests import child
from agent.core.backtest import Entrant, Job
from agent.core.batch import Batch
from agent.core.decision import Decision
from agent.core.report import QUANTILES
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, Fed
from agent.inference.forks import ForkServer
from agent.runtime.alarmdesk import AlarmDesk
from agent.runtime.backtest import Means, backtest
from simulators import models
from simulators.agent_process import AgentProcess
from simulators.registry_server import RegistryServer
from simulators.replay import read_csv
from tests.agents import told
from tests.contract.test_journal import T0, store
from tests.integration.test_backtest import CHAMPION, HALF, HOUR, S, label, plant, replay
from tests.integration.test_models_cli import edge_agent
from tests.models_bench import MODEL, bench, document
from tests.tools import ManualClock


async def test_a_person_asks_at_the_command_line(tmp_path):
    """A file over history while the agent runs: table, JSON, and exit code 1 where it would be
    silent about a confirmed alarm; what is wrong is told.
    """
    async with plant(tmp_path, hot=[(1000, 1100)], seconds=2 * HOUR) as b:
        label(b, 1002, 1100)
    for name, model in (("one", models.tiny()), ("half", models.tiny(0.4))):
        (tmp_path / f"{name}.onnx").write_bytes(model)
    origin = {"file": str(tmp_path / "one.onnx")}
    more = {k: v for k, v in MODEL.items() if k not in {"registry", "channel"}}
    doc = document(tmp_path / "data", "dir:///nowhere", m=more | origin)
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(doc))

    async def ask(*words):
        return await edge_agent("models", "backtest", *words, "--config", str(config))

    async with AgentProcess(config) as agent:
        await told(agent, lambda s: s["models"]["pump1"]["state"] == "active")
        code, out, err = await ask("m", "--file", str(tmp_path / "half.onnx"))
        assert (code, "windows, " in err) == (1, True), err
        assert "pump1.m" in out
        assert "MISSED" in out
        code, out, _ = await ask("m", "--for", "3h", "--json")
        report = json.loads(out)
        assert (code, report["champion"], report["candidate"]["raised"]) == (0, None, 1)
        for words, wanted, error in (
            (("m", "--version", "9"), 2, "E664"),
            (("m", "--for", "1s"), 1, "E676"),
        ):
            code, out, err = await ask(*words)
            assert (code, out, error in err) == (wanted, "", True), err


async def test_the_life_of_a_version_asks_for_it(tmp_path):
    """A version that would be silent about a confirmed alarm is rejected, and why is on record;
    one that finds it goes on.
    """
    with RegistryServer() as registry:
        registry.publish("m", "1", models.tiny())
        doc = document(tmp_path / "data", registry.url)
        async with plant(tmp_path, doc, hot=[(1000, 1100)], seconds=2 * HOUR) as b:
            label(b, 1002, 1100)
            await b.daemon.store.journal.flush()
            await b.start()
            assert await b.poll()
            b.reload(rollout={"backtest": "3h", "shadow": "1h"})
            await b.start()
            for version, gain in (("2", 0.4), ("3", 0.9)):
                registry.publish("m", version, models.tiny(gain))
                await b.poll()
            assert b.serving() != "2"
            two, three = (v for v in b.rollout.release("m").versions if v.artifact.version in "23")
    assert two.stage == "rejected"
    assert three.stage in {"shadow", "probation"}
    assert "it misses confirmed alarms (pump1.m)" in two.reason
    (past,) = two.evidence["backtest"]["past"]
    assert (past["label"], past["candidate"], past["champion"]) == ("confirmed", False, True)
    assert three.evidence["backtest"]["candidate"]["raised"] == 1


async def test_what_a_person_confirms_is_a_test_from_then_on(tmp_path):
    """The whole way: rows, score, alarm, `alarms confirm`, and a version that would miss it."""
    with RegistryServer() as registry:
        registry.publish("m", "1", models.tiny())
        async with bench(document(tmp_path / "data", registry.url)) as b:
            await b.start()
            await b.poll()
            b._t_ns -= HOUR * S
            b.feed(20)
            b.fed = 1000  # row n has the value n
            b.feed(10)
            await b.scored(1010)
            desk = AlarmDesk(b.daemon.pipeline.alarms, b.daemon.clock, b.daemon.store.state)
            desk.label("pump1.m", "confirmed", "uid:0")
            b.past = b.daemon.models.past
            report = await replay(b, HALF, CHAMPION)
    (past,) = report.past
    assert (past.alarm, past.label, past.candidate, past.champion) == (
        "pump1.m", "confirmed", False, True
    )  # fmt: skip
    assert past.begin_ns == report.champion.alarms[0].begin_ns


@pytest.mark.data
async def test_real_rows_get_the_verdict_of_the_model_alone(tmp_path, real_data):
    """Every window of a real file, through journal, process and decision, as by `session.run`."""
    values = read_csv(real_data / "data/skab/valve1/0.csv.gz").values[400:]
    some = [real_data / "models/skab_t2q" / f"valve1_{i}.onnx" for i in (0, 1)]
    x = np.lib.stride_tricks.sliding_window_view(values.astype(np.float32), 5, axis=0)
    scores = [
        onnxruntime.InferenceSession(path).run(["score"], {"window": x.transpose(0, 2, 1)})[0]
        for path in some
    ]
    names = tuple(f"p/t{i}" for i in range(8))
    async with store(tmp_path) as s:
        t = T0 + np.arange(len(values)) * S
        q = np.full(values.shape, 192, np.uint8)
        s.journal.put(Batch("p", TagSet(tuple(map(Tag, names))), t, values, q))
    machines = (("p", Fed((("p", names),), CountWindow(5))),)
    entrants = tuple(Entrant(v, v, Decision("score", 1.0)) for v in "01")
    job = Job("m", T0, T0 + HOUR * S, machines, entrants)
    with closing(ForkServer()) as forks:
        process = partial(child, tmp_path, forks)
        means = Means(process, lambda *_: None, lambda _: None, ManualClock())
        report = await backtest(means, job, [path.read_bytes() for path in some])
    for side, wanted in zip((report.candidate, report.champion), scores, strict=True):
        assert (side.scored, side.flagged) == (len(wanted), int((wanted > 1.0).sum()))
        assert side.quantiles == pytest.approx(np.quantile(wanted, QUANTILES), rel=1e-5)
    assert report.agreement == pytest.approx(np.mean((scores[0] > 1) == (scores[1] > 1)), abs=1e-6)
