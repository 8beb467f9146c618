"""Inside the process of a back-test: it reads the journal beside the daemon, and runs the models
that it is given over the windows of the past.

The daemon asks for each step, so that it knows at any time whose step takes too long.
"""

import json
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from agent.core.backtest import MOST_PAST, Comparison, Errand, Job, errands
from agent.core.past import past_alarms
from agent.inference import wire
from agent.inference.serving import Model, reply
from agent.runtime.outputs import columns
from agent.storage.historian import Historian
from agent.storage.windows import stored

SLICE_S: Final = 0.5
"""A step of scoring returns after about so long."""

FLOATS: Final = 16_384
"""Numbers per call of a model, about: larger ones leave the caches (measured: conv AE, 8 x 60)."""

_MOST: Final = 1024
_LEAST: Final = 16
_QUICK_S: Final = 0.05
"""Time of a call up to which the next one may take more windows."""


class Replaying:
    """Answers the steps of one back-test; open with ``with``."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._models: dict[int, Model] = {}
        self._batch: dict[int, int] = {}
        self._match: Comparison
        self._pieces: Iterator[float]
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def answer(
        self, operation: int, slot: int, payload: memoryview, shape: Sequence[int]
    ) -> tuple[int, list[bytes | memoryview]]:
        """The reply to one request (`serving.Answer`)."""
        if operation == wire.OPEN:
            found = self._open(payload)
        elif operation == wire.NEXT:
            found = self._next()
        elif operation == wire.SCORE:
            found = self._score(slot)
        elif operation == wire.REPORT:
            found = self._report()
        else:
            return reply(self._models, operation, slot, payload, shape)
        return 0, [json.dumps(found).encode()]

    def _open(self, payload: memoryview) -> Mapping[str, Any]:
        folder, job = pickle.loads(payload)  # noqa: S301 - from the daemon that has started us
        historian = self._stack.enter_context(Historian(Path(folder)))
        machines = {f"{instance}.{job.model}": instance for instance, _ in job.machines}
        past = past_alarms(historian.alarms(), machines, MOST_PAST)
        names = [columns(self._models[i].outputs()) for i in range(len(job.entrants))]
        self._match = Comparison(job, names, past)
        self._match.notes += _lacking(job, historian)
        self._pieces = self._cut(historian, list(errands(job, past)))
        return {}

    def _cut(self, historian: Historian, some: Sequence[Errand]) -> Iterator[float]:
        """Begin with one piece of the history after the other; how far we are, 0 to 1."""
        for i, e in enumerate(some):
            for cuts in stored(historian, e.fed, e.begin_ns, e.end_ns):
                if len(cuts):
                    self._match.begin(e, cuts)
                    part = (int(cuts.end_ns[-1]) - e.begin_ns) / (e.end_ns - e.begin_ns)
                    yield (i + part) / len(some)

    def _next(self) -> Mapping[str, Any]:
        """End the piece that all have scored, and begin with the next one."""
        self._end()
        part = next(self._pieces, None)
        self._begun = part is not None
        return {"part": part, "windows": self._match.windows}

    def _end(self) -> None:
        """A piece that all have scored is judged; one that they have not is left out."""
        if self._begun and not any(side.left for side in self._match.sides):
            self._match.end()
        self._begun = False

    def _report(self) -> Mapping[str, Any]:
        self._end()
        return self._match.report(time.process_time(), _peak_bytes()).as_json()

    def _score(self, slot: int) -> Mapping[str, Any]:
        """Run one model over what waits, for a while; how many windows are left."""
        side, model = self._match.sides[slot], self._models[slot]
        until_s = time.perf_counter() + SLICE_S
        while side.left and time.perf_counter() < until_s:
            x = side.next(self._batch.get(slot, 1))
            cpu_s, begun_s = time.process_time(), time.perf_counter()
            found = model.run(x)
            took_s = time.perf_counter() - begun_s
            values = np.hstack([part.reshape(len(x), -1) for part in found])
            self._match.give(slot, values, time.process_time() - cpu_s)
            self._batch[slot] = _paced(self._batch.get(slot, 1), took_s, x[0].size)
        return {"left": side.left}


def _paced(batch: int, took_s: float, floats: int) -> int:
    """Windows of the next call: as many as are quick, so that none comes near the deadline."""
    if took_s > _QUICK_S:
        return max(1, batch // 2)
    return min(4 * batch, max(_LEAST, min(_MOST, FLOATS // max(1, floats))))


def _lacking(job: Job, historian: Historian) -> Iterator[str]:
    """Machines of which the newest rows have not all tags."""
    known = {stream: tags.column for stream, tags in historian.tags().items()}
    for instance, fed in job.machines:
        for stream, names in fed.parts:
            lacks = [n for n in names if n not in known.get(stream, {})]
            if lacks:
                yield f"{instance}: the stored rows of {stream} have no {', '.join(lacks)}"


def _peak_bytes() -> int:
    """The most memory that this process has had, as the kernel counts it."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
