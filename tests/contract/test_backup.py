"""A backup is whole while the agent writes; a restored box never uses a name twice."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from agent.core.errors import AgentError
from agent.storage.backup import BESIDE, pack, unpack
from tests.contract.test_journal import event, rows, store
from tests.contract.test_sealing import count, values
from tests.tools import until


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "agent", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=60,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip


async def test_another_box_goes_on(tmp_path):
    """Rows, acknowledgements, alarms, state and models are there; the lineage is another one."""
    old, new = tmp_path / "old", tmp_path / "new"
    config = tmp_path / "old.yaml"
    config.write_text(f"version: 1\ndata_dir: {new}\n")
    for folder in BESIDE:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "한글.yaml").write_text(folder)
    async with store(old) as s:
        cloud = s.journal.outbox("cloud")
        cloud.ack(s.journal.put(rows(0, 600)))
        await s.journal.flush()
        await until(lambda: count(old, "sealed") == 1)
        s.journal.put(rows(600, 9))
        s.journal.put(event())
        await s.state.put("ns", "k", 5)
        (old / "models").mkdir()
        (old / "models" / "m.onnx").write_bytes(b"model")
        lineage, epoch = s.journal.lineage, s.journal.epoch
        pack(old, config, tmp_path / "box.tar.gz")
        s.journal.put(rows(609, 5))
    done = command("restore", tmp_path / "box.tar.gz", "-c", tmp_path / "etc" / "agent.yaml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "etc" / "agent.yaml").read_text() == config.read_text()
    assert [(tmp_path / "etc" / f / "한글.yaml").read_text() for f in BESIDE] == [*BESIDE]
    assert (new / "models" / "m.onnx").read_bytes() == b"model"
    async with store(new) as s:
        assert (s.journal.lineage != lineage, s.journal.epoch) == (True, epoch + 1)
        cloud = s.journal.outbox("cloud")
        assert await values(cloud) == list(range(600, 609))
        assert s.state.get("ns", "k") == 5
        (gap,) = cloud.gaps()
        assert (gap.stream, gap.first, gap.reason) == ("pump", 610, "power_off")
        assert s.journal.lineage_of(gap.epoch) == lineage
    assert (new / "journal.db").owner() == new.owner()


async def test_nothing_is_overwritten(tmp_path):
    """A journal that is there stays; a file that is no backup leaves nothing behind."""
    async with store(tmp_path / "data") as s:
        s.journal.put(rows(0))
    done = command("backup", tmp_path / "box.tar.gz", "-c", _config(tmp_path))
    assert done.returncode == 0, done.stderr
    with pytest.raises(AgentError, match="already"):
        unpack(tmp_path / "box.tar.gz", tmp_path / "data", tmp_path / "x.yaml")
    (tmp_path / "junk").write_bytes(b"junk")
    with tarfile.open(tmp_path / "empty.tar.gz", "w:gz"):
        pass
    for bad in ("junk", "empty.tar.gz"):
        with pytest.raises(AgentError, match="no backup"):
            unpack(tmp_path / bad, tmp_path / "other", tmp_path / "x.yaml")
        assert list((tmp_path / "other").iterdir()) == []


def _config(folder):
    path = folder / "agent.yaml"
    path.write_text(f"data_dir: {folder / 'data'}\n")
    return path
