"""A lesson: healthy rows out of the journal, and the detector that they make.

A process of its own at low priority, `python -m agent.app.lesson`: training never takes time from
collection. It reads `Lesson` as JSON, and answers with JSON.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.app.packing import Packed, pack
from agent.codecs.onnx_write import detector
from agent.config.manifest import PackSpec
from agent.config.windows import window
from agent.core.detector import train
from agent.core.errors import AgentError, PermanentError
from agent.core.recording import Recording, cuts
from agent.inference.priority import give_way
from agent.logs import configure
from agent.storage import samples
from agent.storage.historian import Historian

MAX_ROWS: Final = 50_000
"""Of one machine: half a day at 1 Hz."""

MAX_FALSE: Final = 0.01
"""Share of its own healthy windows that a detector may flag."""

_GAP: Final = 5.0
"""Rows so many usual steps apart do not follow one another."""

_APART_NS: Final = 3600 * 10**9
"""Between the rows of two machines in one recording."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine that is learned from.

    Attributes:
        inputs: Full names of its tags, in the order of the channels.
        when: The state (full name) outside which nothing is learned; empty: always.
        until_ns: Rows from then on are not learned from: an alarm that nobody has dismissed.
    """

    inputs: tuple[str, ...]
    when: str = ""
    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is to be learned.

    Attributes:
        data_dir: Of the journal.
        folder: Where ``model.onnx`` and ``manifest.json`` are written.
        spec: The package, as the JSON of a `PackSpec`.
        begin_ns, end_ns: Rows with begin <= t < end.
        need_s: Healthy time that every machine must give.
    """

    data_dir: str
    folder: str
    spec: str
    machines: tuple[Machine, ...]
    begin_ns: int
    end_ns: int
    need_s: float

    def as_json(self) -> str:
        """For the process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Lesson":
        """What `as_json` made."""
        facts = json.loads(text)
        machines = tuple(
            Machine(tuple(m["inputs"]), m["when"], m["until_ns"]) for m in facts["machines"]
        )
        return cls(**facts | {"machines": machines})


async def learn(spec: PackSpec, healthy: Recording, now: datetime) -> tuple[bytes, Packed]:
    """The detector of *healthy* and its package, proven by its own golden vectors.

    Raises:
        PermanentError: E696, there are too few rows or they are too unlike each other; or as
            `pack`.
    """
    where, shape = f"model {spec.name}", window(spec.window)
    windows = [cut.x.astype(np.float64) for cut in cuts(healthy, shape)]
    rows = np.stack([w[-1] for w in windows]) if windows else np.zeros((0, len(spec.channels)))
    try:
        model = detector(train(rows, shape.rows, windows=windows), shape.rows)
    except ValueError as e:
        raise PermanentError(
            f"nothing can be learned: {e}",
            where=where,
            fix="Let the machine run healthily for longer.",
            code="E696",
        ) from e
    packed = await pack(model, spec, healthy, now)
    if packed.alarms is not None and packed.alarms > MAX_FALSE:
        raise PermanentError(
            f"what was learned alarms on {packed.alarms:.1%} of its own healthy rows",
            where=where,
            fix="Learn for longer, so that the rows hold everything that the machine does.",
            code="E696",
        )
    return model, packed


def collected(lesson: Lesson) -> tuple[Recording, float]:
    """The healthy rows of all machines one after the other, and the shortest healthy time, s."""
    names = tuple(c.name for c in PackSpec.model_validate_json(lesson.spec).channels)
    t, v, least_s = [np.zeros(0, np.int64)], [np.zeros((0, len(names)))], np.inf
    with Historian(Path(lesson.data_dir)) as historian:
        for machine in lesson.machines:
            times, values, healthy_s = _rows(historian, lesson, machine, names)
            least_s = min(least_s, healthy_s)
            if not len(times):
                continue
            last = int(t[-1][-1]) if len(t[-1]) else int(times[0]) - _APART_NS
            empty = np.full((1, len(names)), np.nan)
            shifted = times - times[0] + last + _APART_NS
            t += [shifted[:1] - 1, shifted]
            v += [empty, values]
    return Recording(names, np.concatenate(t), np.concatenate(v)), float(least_s)


def _rows(
    historian: Historian, lesson: Lesson, machine: Machine, names: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Its healthy rows, an empty one where they are interrupted; the time that they cover, s."""
    end_ns = lesson.end_ns if machine.until_ns is None else min(lesson.end_ns, machine.until_ns)
    spans = [(lesson.begin_ns, end_ns - 1)]
    if machine.when:
        spans = _states(historian, machine.when, lesson.begin_ns, end_ns)
    nothing = np.zeros(0, np.int64), np.zeros((0, len(names))), 0.0
    if not spans or spans[-1][1] <= lesson.begin_ns:
        return nothing
    wanted = samples.Wanted(machine.inputs, tuple(names), spans, MAX_ROWS)
    t, v = samples.rows(historian, wanted)
    if len(t) < 2:
        return nothing
    steps = np.diff(t)
    follows = steps <= _GAP * float(np.median(steps))
    after = np.flatnonzero(~follows) + 1
    return (
        np.insert(t, after, t[after - 1] + 1),
        np.insert(v, after, np.nan, axis=0),
        float(steps[follows].sum()) / 1e9,
    )


def _states(historian: Historian, tag: str, begin_ns: int, end_ns: int) -> list[Span]:
    """When the state *tag* held; one holds until the next row says another."""
    pieces = list(historian.pieces(tag, begin_ns, end_ns))
    if not pieces:
        return []
    t, v = np.concatenate([p.t for p in pieces]), np.concatenate([p.v for p in pieces])
    order = np.argsort(t, kind="stable")
    ends = [*(t[order][1:] - 1).tolist(), end_ns - 1]
    return [(a, b) for a, b, on in zip(t[order].tolist(), ends, v[order], strict=True) if on > 0]


async def run(lesson: Lesson) -> dict[str, Any]:
    """What came of it, plain JSON: ``made`` is false while healthy time is missing."""
    healthy, healthy_s = collected(lesson)
    facts: dict[str, Any] = {"healthy_s": healthy_s, "rows": len(healthy), "made": False}
    if healthy_s < lesson.need_s:
        return facts
    spec = PackSpec.model_validate_json(lesson.spec)
    spec = spec.model_copy(update={"provenance": spec.provenance | {"rows": str(len(healthy))}})
    model, packed = await learn(spec, healthy, datetime.now(UTC).replace(microsecond=0))
    folder = Path(lesson.folder)
    (folder / "model.onnx").write_bytes(model)
    text = packed.manifest.model_dump_json(by_alias=True, exclude_none=True)
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return facts | {"made": True, "alarms": packed.alarms, "windows": packed.windows}


def main() -> int:
    """Read a lesson from stdin, learn it, answer on stdout."""
    give_way()
    configure(level=logging.WARNING)
    try:
        answer: Mapping[str, Any] = asyncio.run(run(Lesson.from_json(sys.stdin.read())))
    except AgentError as e:
        answer = {"error": {"what": e.what, "where": e.where, "fix": e.fix, "code": e.code}}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
