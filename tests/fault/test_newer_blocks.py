"""After a way back by hand: what a newer version wrote is left as it is, until that one is back."""

import shutil
import sqlite3
import struct
import zlib
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from agent.codecs import sealed as form
from agent.storage.schema import VERSION
from tests.contract.test_journal import rows, store
from tests.contract.test_sealing import count, files, sealed, values
from tests.tools import until


def newer(data, at=0):
    """The bytes of a block file with the version of the blocks from *at* on raised, CRCs right."""
    data = bytearray(data)
    while (at := data.find(form.MAGIC, at)) >= 0:
        block = form.unseal(form.at(bytes(data[at:])))
        head = list(struct.unpack_from("<4sBBHIIII", data, at))
        flags, k, facts = head[2], head[5], head[6]
        head[1] = form.VERSION + 1
        rest = bytes(data[at + 24 : at + 24 + 8 * (1 + flags.bit_count() + k) + facts])
        head[7] = zlib.crc32(struct.pack("<4sBBHIIII", *head[:7], 0) + rest)
        struct.pack_into("<4sBBHIIII", data, at, *head)
        at += block.size
    return bytes(data)


def newer_file(data):
    """The bytes of a block file whose own version is raised, CRC right."""
    name, version = data[:8], data[8] + 1
    begin = struct.pack("<8sII", name, version, zlib.crc32(name + bytes([version])))
    return begin + newer(data)[16:].replace(form.MAGIC, b"????")


def lost(folder):
    """The tables are gone."""
    (folder / "journal.db").unlink()


def raised(folder):
    """The tables are of a newer version."""
    with closing(sqlite3.connect(folder / "journal.db", isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version={VERSION + 1}")


@pytest.mark.parametrize(("blocks", "tables"), [(newer, lost), (newer_file, raised)])
async def test_a_file_of_a_newer_version_is_left_alone(tmp_path, blocks, tables):
    """No table names it: it is reported, not read, not deleted, not written over, and counts for
    nothing; once it can be read its rows are there, beside those that were made meanwhile.
    """
    await sealed(tmp_path, [rows(0, 600)])
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(blocks(whole))
    tables(tmp_path)
    for again in range(2):
        with capture_logs() as said:
            async with store(tmp_path) as s:
                cloud = s.journal.outbox("cloud")
                s.journal.put(rows(1000 * (again + 1), 600))
                await until(lambda n=again + 1: count(tmp_path, "sealed") == n)
                assert await values(cloud) == list(range(1000 * (again + 1), 1000 * again + 1600))
                assert s.journal.outbox("cloud").depth() == 0
        (told,) = [one for one in said if one["event"] == "blocks.newer"]
        assert (told["code"], told["file"]) == ("E240", str(path))
        assert path.read_bytes() == blocks(whole)
        assert count(tmp_path, "quarantine") == 0
    path.write_bytes(whole)
    async with store(tmp_path) as s:
        assert await values(s.journal.outbox("cloud")) == list(range(600))
        assert len({e for _, e, *_ in _sealed(tmp_path)}) == 3


def _sealed(folder):
    with closing(sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True)) as db:
        return db.execute("SELECT stream, epoch, first FROM sealed").fetchall()


async def test_a_file_that_a_newer_version_went_on_with(tmp_path):
    """What stands behind the last block of this version, newer blocks, is neither written over nor
    deleted with the others: tables of before, put back by hand, know nothing of it.
    """
    await sealed(tmp_path, [rows(0, 600)])
    shutil.copy(tmp_path / "journal.db", tmp_path / "before")
    await sealed(tmp_path, [rows(600, 600)])
    (path,) = files(tmp_path)
    with closing(sqlite3.connect(tmp_path / "before")) as db:
        (end,) = db.execute("SELECT bytes FROM files").fetchone()
    mixed = newer(path.read_bytes(), end)
    path.write_bytes(mixed)
    shutil.copy(tmp_path / "before", tmp_path / "journal.db")
    async with store(tmp_path, max_size=1, tidy_s=0.0) as s:
        s.journal.put(rows(600, 600))
        await until(lambda: not _named(tmp_path, 1))
        s.journal.writer.pull(0.0)
        await s.journal.flush()
    assert path.read_bytes() == mixed


def _named(folder, number):
    with closing(sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True)) as db:
        return db.execute("SELECT 1 FROM sealed WHERE file = ?", (number,)).fetchall()


async def test_tables_of_a_newer_version_are_kept(tmp_path):
    """They are renamed, and that is said; names that they gave are given to nobody else."""
    async with store(tmp_path) as s:
        s.journal.put(rows(0, 3))
        lineage = s.journal.lineage
    raised(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = 7 WHERE key = 'epoch'")
    with capture_logs() as said:
        async with store(tmp_path) as s:
            assert s.journal.durable
            assert s.journal.lineage != lineage
            assert s.journal.epoch == 8
    (told,) = [one for one in said if one["event"] == "journal.set_aside"]
    assert (told["code"], told["kept_as"]) == ("E240", str(tmp_path / "journal.db.newer-1"))
    assert (tmp_path / "journal.db.newer-1").exists()
