"""Published messages word for word, per version of the contract: what is there stays as it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch, Origin
from agent.core.ports import Lane, Part, Stored
from agent.core.tag import Tag, TagSet

FOLDER = Path(__file__).parent / "golden"
T0 = 1_700_000_000_123_456_789
TAGS = TagSet(
    (
        Tag("press1/oil_temp", "degC", -20, 150),
        Tag("press1/strokes", form="integer"),
        Tag("press1/running", form="boolean"),
        Tag("press1/recipe", kind="text"),
    )
)
RESULT = TagSet((Tag("model/press1/score"),))
ORIGIN = Origin("bearing", "1.4.0", 14, "ab" * 32, "active")


def batch(rows=1, q=192):
    """*rows* rows of a press, one a second; the second one has a value out of range."""
    v = np.array([[41.5, 1204.0, 1.0, 1.0], [162.25, 1205.0, 0.0, 1.0], [42.0, 1206.0, 1.0, 1.0]])
    codes = np.full((rows, 4), q, np.uint8)
    if rows > 1:
        codes[1, 0] = 84
    return Batch("press1", TAGS, np.arange(rows) * 10**9 + T0, v[:rows].copy(), codes)


def stored(record, lane=Lane.LIVE, first=7, rows=1, stream="press1"):
    """A record with its name."""
    return Stored(stream, "9f3a12c4", 3, first, first + rows - 1, lane, record)


def bad():
    """A row in which the temperature could not be read."""
    record = batch()
    record.v[0, 0], record.q[0, 0] = np.nan, 24
    return stored(record)


def result(end="", role="active"):
    """One score of a model."""
    one = Batch(
        f"model/press1{end}", RESULT, np.array([T0]), np.array([[0.5]]),
        np.array([[192]], np.uint8), origin=replace(ORIGIN, role=role),
        window=np.array([T0 - 4 * 10**9]),
    )  # fmt: skip
    return stored(one, stream=f"model/press1{end}")


def alarm():
    """An alarm that was raised."""
    event = AlarmEvent("hot", "press1/oil_temp", "press1", T0, True, 2, 162.25, 150.0, 84)
    return stored(event, Lane.ALARM)


def part():
    """A row of which the temperature is told by its mean, the recipe not at all."""
    due = np.array([False, True, True, False])
    return replace(stored(batch()), first=1, part=Part(due, {0: (41.75, 40.5, 43.0, 7)}))


RECORDS = {
    "part": part,
    "row": lambda: stored(batch()),
    "covering": lambda: Stored("press1", "9f3a12c4", 3, 7, 9, Lane.LIVE, batch()),
    "bad": bad,
    "result": result,
    "shadow": lambda: result("~shadow", "shadow"),
    "history": lambda: stored(batch(3), Lane.HISTORY, rows=3),
}
