"""What goes when room is short: delivered first, then the oldest bulk, alarms last; no share is
touched. On real tables, with several sinks.
"""

import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from agent.core.classes import BULK, class_of
from agent.storage.database import FILE, Database
from agent.storage.files import Extent
from agent.storage.quotas import EVENT_BYTES, ROW_BYTES, Excess
from agent.storage.retention import Retention
from agent.storage.room import allowed, taken
from tests.journals import limits
from tests.tools import ManualClock

STREAM = dict(zip(BULK, ["pump", "model/m", "model/m~batch", "agent"], strict=True))
KINDS = st.sampled_from(BULK)
SINKS = st.lists(st.integers(0, 2**24), max_size=3)
"""Of each sink, as bits: which parts it has."""

SHARES = st.lists(st.floats(0, 1), min_size=5, max_size=5).map(
    lambda some: dict(zip(("alarms", *BULK), (x / max(sum(some), 1.0) for x in some), strict=True))
)


@dataclass(frozen=True)
class Part:
    """A file, a block of the head or an alarm event: *n* is its number and its age."""

    n: int
    kind: str
    size: int
    done: bool


@cache
def empty():
    """Tables without rows."""
    folder = Path(tempfile.mkdtemp(prefix="edge-agent-eviction-"))
    Database(folder / FILE, fresh=False).close()
    return folder / FILE


class World:
    """A journal with files, blocks in the head and alarm events, some of them delivered."""

    def __init__(self, folder, files, head, alarms, sinks):
        shutil.copy(empty(), folder / FILE)
        self.db, self._sinks = Database(folder / FILE, fresh=False), sinks
        conn = self.db.conn
        conn.execute("PRAGMA synchronous=OFF")
        for stream in STREAM.values():
            self.db.name_id(stream)
        self.files = [self._part(n, kind, size) for n, (kind, size) in enumerate(files, 1)]
        for f in self.files:
            self.db.files.known[f.n], self.db.files.kinds[f.n] = Extent(1, f.size), f.kind
            conn.execute(
                "INSERT INTO sealed VALUES (?, 1, ?, ?, ?, ?, 1, 1, ?, 0, ?)",
                (self.db.find(STREAM[f.kind]), f.n, f.n, f.n, f.n, f.n, f.size),
            )
        after = len(files) + 1
        self.head = [self._part(n, kind, size) for n, (kind, size) in enumerate(head, after)]
        for b in self.head:
            conn.execute(
                "INSERT INTO head(stream, epoch, first, last, t0, t1, tags, made, data)"
                " VALUES (?, 1, ?, ?, ?, ?, 1, 1, zeroblob(?))",
                (self.db.find(STREAM[b.kind]), b.n, b.n, b.n, b.n, b.size - ROW_BYTES),
            )
        self.alarms = [self._part(n, "alarms", 1000) for n in range(1, alarms + 1)]
        for a in self.alarms:
            text = "x" * (a.size - EVENT_BYTES)
            conn.execute("INSERT INTO alarms VALUES (1, ?, ?, 1, ?)", (a.n, a.n, text))

    def _part(self, n, kind, size):
        return Part(n, kind, size, all(have >> n % 25 & 1 for have in self._sinks))

    def delivered(self, owed):
        return all(have >> owed[2] % 25 & 1 for have in self._sinks)

    def find(self, bounds):
        """What goes of each kind of parts, in the order in which it was chosen."""
        retention = Retention(self.delivered)
        used = retention.used(self.db)
        found = retention.find(self.db, bounds, ManualClock(), 10**12, used)
        files = [self.files[n - 1] for n in found.files]
        rows = [(v.owed[0], v.owed[2]) for v in found.rows]
        head = {(STREAM[b.kind], b.n): b for b in self.head}
        alarms = [self.alarms[n - 1] for stream, n in rows if stream == "~alarm"]
        return used, files, [head[row] for row in rows if row in head], alarms


SIZES = st.integers(1_000, 200_000)


@how(max_examples=150)
@given(
    files=st.lists(st.tuples(KINDS, SIZES), max_size=16),
    head=st.lists(st.tuples(KINDS, st.integers(1_000, 30_000)), max_size=8),
    alarms=st.integers(0, 20), sinks=SINKS, shares=SHARES, max_size=st.integers(1, 3_000_000),
)  # fmt: skip
def test_delivered_then_the_oldest_then_alarms(files, head, alarms, sinks, shares, max_size):
    """Whatever lies there, whoever has it:

    - of a class what was delivered to all goes before what was not, and older before younger;
    - only a class beyond its share gives, and blocks of the head only when it has no file left;
    - no more goes than is needed, and less only when no class has more than its share;
    - alarm events only go beyond their own share, however short the room is.
    """
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), files, head, alarms, sinks)
        bounds = limits(max_size=max_size, shares=shares, keep_s=1e9)
        need = taken(world.db) - allowed(world.db, max_size)
        used, gone, blocks, events = world.find(bounds)
        world.db.close()
    room = sum(used[kind] for kind in BULK) - need
    for every, went in ((world.files, gone), (world.head, blocks)):
        assert went == [p for p in ranked(every) if p in went]
        for kind in BULK:
            of_kind = [p for p in ranked(every) if p.kind == kind]
            mine = [p for p in went if p.kind == kind]
            assert mine == of_kind[: len(mine)]
    excess = Excess(used, room, max_size, shares)
    missing = need
    for part in gone + blocks:
        assert missing > 0
        assert excess.gives(part.kind, part.size)
        missing -= part.size
    for block in blocks:
        assert [f for f in world.files if f.kind == block.kind and f not in gone] == []
    if missing > 0:
        left = [p for p in world.files + world.head if p not in gone + blocks]
        assert [p for p in left if excess.gives(p.kind, p.size)] == []
    beyond = used["alarms"] - shares["alarms"] * max_size
    assert events == ranked(world.alarms)[: len(events)]
    assert len(events) == min(alarms, max(0, -int(-beyond // 1000)))


def ranked(parts):
    """The order in which they go: what everybody has, then what is older."""
    return sorted(parts, key=lambda p: (not p.done, p.n))


def test_every_class_has_a_stream():
    """The streams of these tests are of the classes that they stand for."""
    assert {kind: class_of(stream) for kind, stream in STREAM.items()} == {k: k for k in BULK}
