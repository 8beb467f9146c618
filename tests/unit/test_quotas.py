"""Quotas: whoever has more than its share gives, and nobody else, in the order of its rows."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.classes import BULK, class_of
from agent.storage.quotas import Excess

SIZES = st.integers(0, 10_000)
SHARES = st.lists(st.floats(0, 1), min_size=len(BULK), max_size=len(BULK)).map(
    lambda some: dict(zip(BULK, [x / max(sum(some), 1.0) for x in some], strict=True))
)
PARTS = st.lists(st.tuples(st.sampled_from(BULK), st.integers(1, 500)), max_size=200)


def test_every_stream_has_a_class():
    """Devices and what is derived, results of every role, stored history, the agent itself."""
    streams = ["pump1", "pump1~slow", "pump1~derived", "model/p", "model/p~shadow", "model/p~batch",
               "agent"]  # fmt: skip
    assert [class_of(s) for s in streams] == [
        "values", "values", "values", "results", "results", "batch", "metrics"
    ]  # fmt: skip


@given(parts=PARTS, shares=SHARES, max_size=st.integers(1, 50_000), room=st.integers(-500, 60_000))
def test_room_is_made_and_no_share_is_touched(parts, shares, max_size, room):
    """However the classes stand and in which order parts are offered: all together fit into the
    room afterwards, a part goes only from a class beyond its share, and a class that was within
    it loses nothing.
    """
    used = dict.fromkeys(BULK, 0)
    for kind, size in parts:
        used[kind] += size
    before, need = dict(used), sum(used.values()) - room
    excess = Excess(used, room, max_size, shares)
    wanted = sum(shares.values()) * max_size
    scale = min(1.0, max(0, room) / wanted) if wanted > 1 else 1.0
    for kind, size in parts:
        if need <= 0:
            break
        beyond = used[kind] - shares[kind] * max_size * scale
        if excess.gives(kind, size):
            assert beyond > -1e-6
            used[kind] -= size
            need -= size
        else:
            assert beyond < 1e-6
    assert sum(used.values()) <= max(room, 0) or room < 0 or need < 1e-6
    for kind in BULK:
        if before[kind] <= shares[kind] * max_size * scale - 1e-6:
            assert used[kind] == before[kind]


@given(flood=st.sampled_from(BULK), others=st.floats(0, 1))
def test_a_flood_gives_its_own(flood, others):
    """A class that floods gives, as long as it has more than its share, and the others do not."""
    shares = dict.fromkeys(BULK, 0.25)
    used = {kind: round(250 * others) for kind in BULK} | {flood: 5000}
    excess = Excess(used, 1000, 1000, shares)
    assert [kind for kind in BULK if excess.gives(kind, 1)] == [flood]
