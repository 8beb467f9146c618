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
        asked = [c for table in self._tables.values() for c in table.condition_column]
        self._latest = {c: self._latest.get(c, kept.get(str(c), np.nan)) for c in asked}
        for text in kept.keys() - {str(c) for c in asked}:
            if " " in text:  # a state; running hours wait until their tag comes back
                self._state.set(NAMESPACE, text, None)

    def run(self, batch: Batch) -> Batch | None:
        """What is derived from *batch*, no row of which is late; None when nothing is."""
        table = self._tables.get(batch.stream)
        self._now, self._rows = {}, len(batch)
        if table is None or not len(batch):
            return None
        v, q = table.run(batch.t, batch.v, batch.q, self._elsewhere)
        for condition, column in table.condition_column.items():
            self._now[condition] = v[:, column]
            self._latest[condition] = float(v[-1, column])
        self._write(table.durable(int(batch.t[-1])))
        return Batch(table.stream, table.tags, batch.t, v, q, batch.t_by)

    def gate(self, condition: Condition) -> NDArray[np.float64]:
        """The state of *condition* at each row of the batch of the last `run`: 1.0, 0.0, NaN."""
        now = self._now.get(condition)
        return np.full(self._rows, self._elsewhere(condition)) if now is None else now

    def _elsewhere(self, condition: Condition) -> float:
        return self._latest.get(condition, np.nan)

    def stepped(self, step_ns: int) -> None:
        """The wall clock was moved."""
        for table in self._tables.values():
            table.stepped(step_ns)

    def save(self) -> None:
        """Write down what is not yet."""
        for table in self._tables.values():
            self._write(table.durable())

    def _write(self, changed: Mapping[str, float]) -> None:
        for name, value in changed.items():
            self._state.set(NAMESPACE, name, value)
