"""Derived streams and machine states: computed with each batch, kept over restarts."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.batch import Batch
from agent.core.condition import Condition
from agent.core.derive import Derived
from agent.core.derive_table import DeriveTable
from agent.core.ports import StateStore
from agent.core.quality import Quality
from agent.core.tag import TagSet
from agent.core.texts import Texts

NAMESPACE: Final = "derived"
"""Of the state store: text of a condition -> 1.0 or 0.0; name of a tag -> running hours, ns."""


class Derivation:
    """The tables of all streams, and every state as last known."""

    def __init__(self, state: StateStore, texts: Texts) -> None:
        self._state, self._texts = state, texts
        self._tables: dict[str, DeriveTable] = {}
        self._inputs: dict[str, TagSet] = {}
        self._latest: dict[Condition, float] = {}
        self._watched: dict[str, list[tuple[str, int]]] = {}
        self._held: dict[str, tuple[float, int, int]] = {}
        self._now: dict[Condition, NDArray[np.float64]] = {}
        self._rows = 0

    def rewire(
        self, wanted: Mapping[str, Sequence[Derived]], streams: Mapping[str, TagSet]
    ) -> None:
        """Take over a configuration. A table that it leaves alone goes on; another begins anew,
        but for running hours and states.
        """
        self.save()
        kept = self._state.items(NAMESPACE)
        old, self._tables = self._tables, {}
        for source, specs in wanted.items():
            table = old.get(source)
            if (
                table is None
                or table.specs != tuple(specs)
                or self._inputs.get(source) != streams[source]
            ):
                table = DeriveTable(source, streams[source], specs, self._texts.code)
                table.restore(kept)
            self._tables[source], self._inputs[source] = table, streams[source]
        self._watch(streams)
        asked = [c for table in self._tables.values() for c in table.condition_column]
        self._latest = {c: self._latest.get(c, kept.get(str(c), np.nan)) for c in asked}
        for text in kept.keys() - {str(c) for c in asked}:
            if " " in text:  # a state; running hours wait until their tag comes back
                self._state.set(NAMESPACE, text, None)

    def _watch(self, streams: Mapping[str, TagSet]) -> None:
        """Which columns of which streams are inputs of tables of other streams."""
        asked = {name for table in self._tables.values() for name, _ in table.foreign}
        found = dict(streams) | {t.stream: t.tags for t in self._tables.values()}
        self._watched = {
            stream: some
            for stream, tags in found.items()
            if (some := [(name, i) for name, i in tags.column.items() if name in asked])
        }
        self._held = {name: last for name, last in self._held.items() if name in asked}

    def _note(self, batch: Batch) -> None:
        """Keep what tables of other streams need of the newest row."""
        for name, column in self._watched.get(batch.stream, ()):
            value, quality = float(batch.v[-1, column]), int(batch.q[-1, column])
            self._held[name] = value, quality, int(batch.t[-1])

    def run(self, batch: Batch) -> Batch | None:
        """What is derived from *batch*, no row of which is late; None when nothing is."""
        table = self._tables.get(batch.stream)
        self._now, self._rows = {}, len(batch)
        if not len(batch):
            return None
        self._note(batch)
        if table is None:
            return None
        v, q = table.run(batch.t, batch.v, batch.q, self._elsewhere, self._last)
        for condition, column in table.condition_column.items():
            self._now[condition] = v[:, column]
            self._latest[condition] = float(v[-1, column])
        self._write(table.durable(int(batch.t[-1])))
        derived = Batch(table.stream, table.tags, batch.t, v, q, batch.t_by)
        self._note(derived)
        return derived

    def gate(self, condition: Condition) -> NDArray[np.float64]:
        """The state of *condition* at each row of the batch of the last `run`: 1.0, 0.0, NaN."""
        now = self._now.get(condition)
        return np.full(self._rows, self._elsewhere(condition)) if now is None else now

    def _last(self, tag: str) -> tuple[float, int, int]:
        return self._held.get(tag, (np.nan, Quality.BAD, 0))

    def _elsewhere(self, condition: Condition) -> float:
        return self._latest.get(condition, np.nan)

    def stepped(self, step_ns: int) -> None:
        """The wall clock was moved."""
        for table in self._tables.values():
            table.stepped(step_ns)
        self._held = {n: (v, q, at + step_ns) for n, (v, q, at) in self._held.items()}

    def save(self) -> None:
        """Write down what is not yet."""
        for table in self._tables.values():
            self._write(table.durable())

    def _write(self, changed: Mapping[str, float]) -> None:
        for name, value in changed.items():
            self._state.set(NAMESPACE, name, value)
