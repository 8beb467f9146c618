"""Small state and the audit trail."""

import asyncio
import sqlite3

import numpy as np

from agent.core.batch import Batch
from agent.core.tag import Tag, TagSet
from agent.core.texts import Texts
from agent.storage.audit import read_trail, verify
from tests.contract.test_journal import store


async def test_state_is_on_disk_when_put_returns(tmp_path):
    """A value is durable when `put` returns, long before the next group commit."""
    async with store(tmp_path, commit_s=3600.0) as s:
        await s.state.put("alarm", "pump.hot", {"since": 5, "values": [1, None]})
        with sqlite3.connect(f"file:{tmp_path}/journal.db?mode=ro", uri=True) as db:
            found = db.execute("SELECT ns, key, json FROM state").fetchall()
        db.close()
    assert found == [("alarm", "pump.hot", '{"since": 5, "values": [1, null]}')]


async def test_state_survives(tmp_path):
    """Values come back after a restart; None deletes; namespaces are apart."""
    async with store(tmp_path) as s:
        await s.state.put("a", "k", 1)
        await s.state.put("b", "k", 2)
        await s.state.put("a", "gone", 3)
        await s.state.put("a", "gone", None)
    async with store(tmp_path) as s:
        assert s.state.items("a") == {"k": 1}
        assert (s.state.get("b", "k"), s.state.get("b", "none")) == (2, None)


async def test_the_chain_holds(tmp_path):
    """Every row carries the hash of the one before, also over a restart."""
    async with store(tmp_path) as s:
        await s.audit.write("config.applied", "agent", {"digest": "ab", "removed": ["x"]})
        await s.audit.write("model.activated", "mia", {"model": "m"})
    async with store(tmp_path) as s:
        await s.audit.write("alarm.shelved", "tom", {})
        rows = await s.audit.rows()
        assert await s.audit.verify() == ""
    assert [(r["n"], r["kind"], r["actor"]) for r in rows] == [
        (1, "config.applied", "agent"),
        (2, "model.activated", "mia"),
        (3, "alarm.shelved", "tom"),
    ]
    assert rows[0]["facts"] == {"digest": "ab", "removed": ["x"]}
    assert read_trail(tmp_path) == rows


async def test_a_changed_trail_is_found(tmp_path):
    """A row that was changed, taken out or put in breaks the chain, and is named."""
    async with store(tmp_path) as s:
        for i in range(4):
            await s.audit.write("k", "agent", {"i": i})
    rows = read_trail(tmp_path)
    assert verify(rows) == ""
    assert "row 2" in verify([rows[0], rows[1] | {"facts": {"i": 9}}, *rows[2:]])
    assert "row 3" in verify([*rows[:2], rows[2] | {"actor": "eve"}, rows[3]])
    assert verify([rows[0], *rows[2:]]) == "rows 2..2 are missing"
    assert verify(rows[1:]) == "rows 1..1 are missing"


async def test_a_code_is_on_disk_no_later_than_a_row_that_has_it(tmp_path):
    """`set` before `put`: whichever commit has the row has the dictionary too, at any instant."""
    tags = TagSet((Tag("d/lot", kind="text"),))
    async with store(tmp_path, commit_s=0.05) as s:
        texts = Texts(s.state)
        for i in range(300):
            code = texts.code("d/lot", f"lot {i}")
            row = Batch("d", tags, np.array([i]), np.array([[code]]), np.array([[192]], np.uint8))
            s.journal.put(row)
            if i % 10 == 0:
                s.journal.writer.pull(0.0)
                await asyncio.sleep(0)
            with sqlite3.connect(f"file:{tmp_path}/journal.db?mode=ro", uri=True) as db:
                rows = db.execute("SELECT coalesce(max(last), 0) FROM blocks").fetchone()[0]
                known = db.execute("SELECT count(*) FROM state").fetchone()[0]
            db.close()
            assert known >= rows
    async with store(tmp_path) as s:
        batch = await s.journal.read("d", 300)
        assert batch.tags == tags
        assert batch.tags.tags[0].kind == "text"
        assert Texts(s.state).text("d/lot", batch.v[-1, 0]) == "lot 299"
