"""What waits in memory: the oldest rows go when it is too much, alarm events never."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.ports import Lane, Stored
from agent.storage import queued
from tests.contract.test_journal import event, rows

ROW = queued.weight(Stored("pump", "l", 1, 1, 1, Lane.LIVE, rows(0)))
KINDS = st.lists(st.booleans(), max_size=60)


def entry(n, *, alarm):
    record = event(n) if alarm else rows(n)
    stream, lane = ("~alarm", Lane.ALARM) if alarm else ("pump", Lane.LIVE)
    return Stored(stream, "l", 1, n, n, lane, record), None


def names(entries):
    return [(s.stream, s.first) for s, _ in entries]


@given(kinds=KINDS, need=st.integers(-1, 70))
def test_the_oldest_rows_go_and_alarms_stay(kinds, need):
    """As few rows as give the room, the oldest, and the order of what stays is as it was."""
    queue = queued.Queue()
    every = [entry(n, alarm=alarm) for n, alarm in enumerate(kinds)]
    for one in every:
        assert queue.put(one) == []
    taken, _ = queue.take(urgent=False)
    assert queue.bytes == 0
    waits = queued.deque(taken)
    gone = queued.shed(waits, need * ROW)
    plain = [e for e in every if e[0].lane is Lane.LIVE]
    assert [s.first for s in gone] == [s.first for s, _ in plain[: max(0, need)]]
    left = plain[: max(0, need)]
    assert names(waits) == [name for name in names(every) if name not in names(left)]


@given(kinds=KINDS)
def test_alarms_and_ops_overtake_rows(kinds):
    """What is urgent is taken alone; the rows come later, in their order, and every op once."""
    queue = queued.Queue()
    every = [entry(n, alarm=alarm) for n, alarm in enumerate(kinds)]
    for one in every:
        queue.put(one)
    queue.add({"a": print, "b": len})
    queue.add({"b": repr})
    first, ops = queue.take(urgent=True)
    rest, more = queue.take(urgent=False)
    assert (ops, more) == ({"a": print, "b": repr}, {})
    assert names(first) == [n for n in names(every) if n[0] == "~alarm"]
    assert names(rest) == [n for n in names(every) if n[0] == "pump"]
