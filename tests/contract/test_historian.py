"""The historian: one tag over time, out of head and files, and what is exported of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.core.batch import Batch
from agent.core.errors import AgentError
from agent.core.tag import Tag, TagSet
from agent.core.texts import Texts
from agent.storage.historian import Historian
from agent.storage.historian_thread import HistorianThread
from tests.contract.test_journal import T0, rows, store
from tests.contract.test_sealing import count, files
from tests.tools import until

SECOND = 10**9


async def journal(folder):
    """1,500 rows at 1 Hz: two sealed blocks and 300 rows in the head."""
    async with store(folder) as s:
        s.journal.put(rows(0, 600))
        await s.journal.flush()
        s.journal.put(rows(600, 600))
        await s.journal.flush()
        await until(lambda: count(folder, "sealed") == 2)
        s.journal.put(rows(1200, 300))
        await s.journal.flush()


def read(folder, tag, begin, end):
    with Historian(folder) as historian:
        pieces = list(historian.pieces(tag, T0 + begin * SECOND, T0 + end * SECOND))
    return np.concatenate([p.v for p in pieces]).tolist() if pieces else []


async def test_a_tag_over_time(tmp_path):
    """Exactly the samples of the span, in order, from files and head alike."""
    await journal(tmp_path)
    assert read(tmp_path, "pump/flow", 590, 1210) == list(range(590, 1210))
    assert read(tmp_path, "pump/flow", 1490, 9000) == list(range(1490, 1500))
    assert read(tmp_path, "pump/flow", 5000, 9000) == []


async def test_a_reader_does_not_disturb_the_writer(tmp_path):
    """The historian reads while rows are put and sealed, from a thread of its own."""
    async with store(tmp_path) as s:
        thread = HistorianThread(tmp_path)
        for i in range(0, 1800, 100):
            s.journal.put(rows(i, 100))
            await s.journal.flush()
            trend = await thread.trend("pump/flow", T0, T0 + 2000 * SECOND, 1)
            assert trend.n.tolist() == [i + 100]
        assert s.journal.durable


async def test_a_trend_has_least_greatest_and_mean(tmp_path):
    """Each span of time has the extremes and the mean of its usable samples; empty ones none."""
    v = np.array([[1.0, 0], [5, 0], [9, 0], [np.nan, 0], [7, 0], [3, 0]])
    t = T0 + np.array([0, 1, 2, 3, 8, 9]) * SECOND
    q = np.full(v.shape, 192, np.uint8)
    q[1, 0], q[3, 0] = 84, 24
    async with store(tmp_path) as s:
        s.journal.put(Batch("pump", rows(0).tags, t, v, q))
        await s.journal.flush()
        with Historian(tmp_path) as historian:
            trend = historian.trend("pump/flow", T0, T0 + 10 * SECOND, 5)
    assert ((trend.t - T0) // SECOND).tolist() == [0, 2, 8]
    assert trend.n.tolist() == [2, 1, 2]
    assert (trend.low.tolist(), trend.high.tolist()) == ([1, 9, 3], [5, 9, 7])
    assert trend.mean.tolist() == [3, 9, 5]


async def test_a_trend_that_cannot_be_is_refused(tmp_path):
    """A text has no mean; nothing between two times, and no points, are no trend."""
    tags = TagSet((Tag("pump/flow"), Tag("pump/lot", kind="text")))
    async with store(tmp_path) as s:
        s.journal.put(Batch("pump", tags, np.array([T0]), np.ones((1, 2)),
                            np.full((1, 2), 192, np.uint8)))  # fmt: skip
    with Historian(tmp_path) as historian:
        for code, words in (
            ("E512", ("pump/lot", T0, T0 + SECOND, 5)),
            ("E511", ("pump/flow", T0, T0, 5)),
            ("E511", ("pump/flow", T0, T0 + SECOND, 0)),
            ("E507", ("pump/flwo", T0, T0 + SECOND, 5)),
        ):
            with pytest.raises(AgentError) as found:
                historian.trend(*words)
            assert found.value.code == code


async def test_other_columns_are_not_needed(tmp_path):
    """A tag is read though the column beside it is damaged; without its file it is passed over."""
    await journal(tmp_path)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the last column: pump/temp
    path.write_bytes(data)
    assert read(tmp_path, "pump/flow", 0, 1500) == list(range(1500))
    assert len(read(tmp_path, "pump/temp", 0, 1500)) == 900
    path.unlink()
    assert read(tmp_path, "pump/flow", 0, 1500) == list(range(1200, 1500))


async def test_a_tag_that_is_not_there_is_named(tmp_path):
    """A typo is answered with the tags that there are; no journal with what to do."""
    with pytest.raises(AgentError, match="cannot be read"):
        read(tmp_path, "pump/flow", 0, 1)
    await journal(tmp_path)
    with pytest.raises(AgentError, match="pump/flow"):
        read(tmp_path, "pump/flwo", 0, 1)


def export(folder, *words):
    config = folder / "edge-agent.yaml"
    config.write_text(f"data_dir: {folder}\n")
    done = subprocess.run(
        [sys.executable, "-m", "agent", "export", "-c", str(config), *words],
        capture_output=True, text=True, check=False, timeout=60,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def test_export_streams_csv(tmp_path):
    """Times, values and qualities as text; Bad values are empty, texts are texts."""
    tags = TagSet((Tag("pump/flow"), Tag("pump/lot", kind="text")))
    async with store(tmp_path) as s:
        texts = Texts(s.state)
        v = np.array([[1.5, texts.code("pump/lot", "A-7")], [np.nan, 0.0]])
        q = np.array([[192, 192], [24, 24]], np.uint8)
        s.journal.put(Batch("pump", tags, np.array([T0, T0 + SECOND]), v, q))
    code, out, err = export(
        tmp_path, "--tags", "pump/flow", "pump/lot", "--from", "2023-11-14", "--to", "2023-11-15"
    )
    assert (code, err) == (0, "4 samples\n")
    assert out.splitlines() == [
        "time,tag,value,quality",
        "2023-11-14T22:13:20.000000Z,pump/flow,1.5,good",
        "2023-11-14T22:13:21.000000Z,pump/flow,,bad_comm",
        "2023-11-14T22:13:20.000000Z,pump/lot,A-7,good",
        "2023-11-14T22:13:21.000000Z,pump/lot,,bad_comm",
    ]


async def test_export_says_what_is_wrong(tmp_path):
    """A tag that is not there, a time that is none, Parquet to a terminal: each with the cure."""
    await journal(tmp_path)
    code, _, err = export(tmp_path, "--tags", "pump/flwo", "--from", "2023-11-14")
    assert code == 69
    assert "E507" in err
    code, _, err = export(tmp_path, "--tags", "pump/flow", "--from", "yesterday")
    assert code == 2
    assert "2026-11-23T10:00Z" in err
    assert export(tmp_path, "--tags", "pump/flow", "--format", "parquet")[0] == 2


async def test_export_writes_parquet(tmp_path):
    """The same samples as columns."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'edge-agentd[export]'")
    await journal(tmp_path)
    target = tmp_path / "out.parquet"
    code, _, err = export(
        tmp_path, "--tags", "pump/flow", "--from", "2023-11-14", "--to", "2023-11-16",
        "--format", "parquet", "-o", str(target),
    )  # fmt: skip
    assert code == 0, err
    table = parquet.read_table(target)
    assert table.column("value").to_pylist() == list(range(1500))
    assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]"
