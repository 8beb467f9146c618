"""Open the journal on what a power cut has left, and hold it to its promises."""

from collections import Counter
from pathlib import Path

import numpy as np

from agent.core.alarms import AlarmEvent
from agent.core.ports import Lane, Stored
from agent.core.stats import Stats
from agent.storage.db import Store, open_store
from agent.storage.historian import Historian
from agent.storage.outbox import SinkOutbox
from agent.storage.summary import summary
from tests.crash.promises import SINKS, STREAMS, T0, Promises, Row, batch, values
from tests.crash.writer import LIMITS
from tests.tools import ManualClock


async def breaches(data_dir: Path, promises: Promises) -> list[str]:
    """Every promise that was broken; the journal is opened, used and closed."""
    async with open_store(data_dir, LIMITS, ManualClock(), Stats(), "m1", retry_s=0.2) as store:
        found = _started(store, data_dir, promises)
        if not store.journal.durable:
            return found
        outboxes = {sink: store.journal.outbox(sink) for sink in SINKS}
        depths = {sink: outbox.depth() for sink, outbox in outboxes.items()}
        owed = {sink: await _owed(outbox, found) for sink, outbox in outboxes.items()}
        found += _kept(owed, promises)
        found += [
            f"{sink}: {depths[sink]} rows are counted as owed, {len(rows)} are there"
            for sink, rows in owed.items()
            if depths[sink] != len(rows)
        ]
        for sink, outbox in outboxes.items():
            found += _balance(outbox, owed[sink], owed["slow"])
        found += await _history(store, owed["slow"])
        found += await _state(store, promises)
        found += await _goes_on(store)
    return found + _counted(data_dir, owed) + _clocks(data_dir)


def _started(store: Store, data_dir: Path, promises: Promises) -> list[str]:
    """It starts, with the file it had, under a name that was never used."""
    journal, found = store.journal, []
    if not journal.durable:
        found.append("did not start")
    found += [f"set aside: {path.name}" for path in data_dir.rglob("*.broken-*")]
    if journal.epoch in promises.epochs or journal.epoch < max(promises.epochs, default=0):
        found.append(f"epoch {journal.epoch} after {sorted(promises.epochs)}")
    if promises.lineage not in {"", journal.lineage}:
        found.append(f"lineage {journal.lineage} after {promises.lineage}")
    return found


async def _owed(outbox: SinkOutbox, found: list[str]) -> list[Row]:
    """Every row owed, in the order of delivery; what is wrong with one goes to *found*."""
    rows: list[Row] = []
    newest: dict[str, tuple[int, int]] = {}
    for lane in (Lane.ALARM, Lane.HISTORY):
        while some := await outbox.owed(lane, 5000):
            for s in some:
                if newest.get(s.stream, (0, 0)) >= (s.epoch, s.first):
                    found.append(f"{outbox.name}: {s.stream} {s.epoch}/{s.first} out of order")
                newest[s.stream] = (s.epoch, s.last)
                if not _is_itself(s):
                    found.append(f"{outbox.name}: other values in {s.stream} {s.epoch}/{s.first}")
                rows += [(s.stream, s.epoch, seq) for seq in range(s.first, s.last + 1)]
    return rows


def _is_itself(s: Stored) -> bool:
    if isinstance(s.record, AlarmEvent):
        return s.record.value == s.epoch * 1e6 + s.first
    if s.stream not in {"pump", "wide"}:
        return False
    return np.array_equal(s.record.v, values(s.stream, s.epoch, s.first, s.last - s.first + 1))


def _kept(owed: dict[str, list[Row]], promises: Promises) -> list[str]:
    """Nothing reported durable is missing, and what is there has no holes."""
    found = []
    for sink, rows in owed.items():
        needed = promises.durable - (promises.acked if sink == "far" else set())
        lost = sorted(needed.difference(rows))
        if lost:
            found.append(f"{sink}: {len(lost)} rows lost, from {lost[0]} to {lost[-1]}")
    gone = set(owed["slow"]).difference(owed["far"], promises.acked)
    if gone:
        found.append(f"far: {len(gone)} rows are owed no more and were never acknowledged")
    numbers: dict[tuple[str, int], list[int]] = {}
    for stream, epoch, seq in owed["slow"]:
        numbers.setdefault((stream, epoch), []).append(seq)
    found += [
        f"slow: holes or doubles in {key}"
        for key, some in numbers.items()
        if some != list(range(1, len(some) + 1))
    ]
    return found


async def _history(store: Store, owed: list[Row]) -> list[str]:
    """The last row that is owed is the last one in the history."""
    rows = [(epoch, seq) for stream, epoch, seq in owed if stream == "pump"]
    got = await store.journal.read("pump", 1)
    last = None if got is None else got.v[-1, 0]
    wanted = max(rows)[0] * 1e6 + max(rows)[1] if rows else None
    return [] if last == wanted else [f"the history ends with {last}, not with {wanted}"]


async def _state(store: Store, promises: Promises) -> list[str]:
    """State and audit trail are at least as new as was promised."""
    found = [
        f"state {key} is {store.state.get('rig', key)}, {value} was durable"
        for key, value in promises.state.items()
        if (store.state.get("rig", key) or 0) < value
    ]
    rows, broken = await store.audit.rows(), await store.audit.verify()
    if len(rows) < promises.audits:
        found.append(f"{len(rows)} audit records, {promises.audits} were durable")
    return [*found, f"audit: {broken}"] if broken else found


async def _goes_on(store: Store) -> list[str]:
    """It takes new rows, and they are durable."""
    told: list[int] = []
    rows = batch("pump", store.journal.epoch, 1, 3)
    store.journal.put(rows, on_durable=lambda: told.append(1))
    await store.journal.flush()
    return [] if told and store.journal.durable else ["takes no new rows"]


def _balance(outbox: SinkOutbox, owed: list[Row], rows: list[Row]) -> list[str]:
    """The ledger is exact: every row is delivered or buffered, and none was dropped."""
    found = [f"{outbox.name}: no account of {rows}" for rows in outbox.unaccounted()]
    found += [
        f"{outbox.name}: a gap that is none: {gap}"
        for gap in outbox.gaps()
        if gap.reason != "power_off"
    ]
    there, left = Counter(s for s, _, _ in rows), Counter(s for s, _, _ in owed)
    for stream, account in outbox.balance().items():
        wanted = {
            "produced": there[stream],
            "delivered": there[stream] - left[stream],
            "buffered": left[stream],
            "dropped": {},
        }
        if account != wanted:
            found.append(f"{outbox.name}: the ledger of {stream} is {account}, not {wanted}")
    return found


def _counted(data_dir: Path, owed: dict[str, list[Row]]) -> list[str]:
    """The file, read without the agent, tells the same; `_goes_on` has added three rows."""
    return [
        f"{line['sink']}: the file counts {line}, {len(owed[line['sink']]) + 3} rows are owed"
        for line in summary(data_dir)
        if (line["rows"], line["lost"]) != (len(owed[line["sink"]]) + 3, 0)
    ]


def _clocks(data_dir: Path) -> list[str]:
    """Every row has its boot-time clock, out of head and files: the writer's began at T0."""
    with Historian(data_dir) as historian:
        pieces = [
            piece
            for tags in STREAMS.values()
            if tags.tags[0].name.partition("/")[0] in historian.tags()
            for piece in historian.pieces(tags.tags[0].name, 0, 2**63 - 1, clocks=True)
        ]
    return [
        f"rows of epoch {piece.epoch} without their boot-time clock: {piece.boot}"
        for piece in pieces
        if piece.boot is None or (piece.boot != piece.t - T0).any()
    ]
