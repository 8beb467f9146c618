"""Reading what the agent publishes: the simulators' reader against the agent's writer."""

from dataclasses import replace

import numpy as np

from agent.codecs import json
from agent.core.alarms import AlarmEvent
from agent.core.batch import Batch, Origin
from agent.core.ports import Lane, Stored
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet
from simulators.messages import ns, rows, violations

T = 1_700_000_000_123_456_789
TAGS = TagSet((Tag("pump1/flow", "m3/h"), Tag("pump1/row")))
BATCH = Batch(
    "pump1",
    TAGS,
    np.array([T, T + 10**9]),
    np.array([[1.5, 7.0], [np.nan, 8.0]]),
    np.array([[192, 192], [Quality.BAD_COMM, 192]], np.uint8),
)
STORED = Stored("pump1", "9f3a12c4", 7, 5, 6, Lane.LIVE, BATCH)
RESULT = Batch(
    "model/pump1",
    TagSet((Tag("model/pump1/score"),)),
    np.array([T]),
    np.array([[0.25]]),
    np.array([[192]], np.uint8),
    origin=Origin("health", "2", 2, "ab" * 32, "active"),
    window=np.array([T - 10**9]),
)


def test_history_gives_the_rows_that_live_gives() -> None:
    """A row is the same row, whichever way it came."""
    late = list(rows("p/g/history/pump1", json.history(STORED, BATCH)))[1]
    (live,) = rows("p/g/data/pump1", json.row(STORED, BATCH))
    assert live.ts_ns == late.ts_ns == ns("2023-11-14T22:13:21.123456Z")
    assert live.values == late.values == {"flow": None, "row": 8.0}
    assert (live.kind, live.name, live.live, late.live) == ("data", "pump1", True, False)


def test_a_result_names_its_model() -> None:
    """A result is told from a measurement, with the version that made it."""
    stored = replace(STORED, stream=RESULT.stream, first=6, record=RESULT)
    for topic, payload in (
        ("p/g/_model/pump1", json.row(stored, RESULT)),
        ("p/g/history/model/pump1", json.history(stored, RESULT)),
    ):
        (row,) = rows(topic, payload)
        assert (row.kind, row.name, row.values) == ("model", "pump1", {"score": 0.25})
        assert row.model["version"] == "2"
        assert violations(topic, payload) == []


def test_what_the_agent_writes_keeps_the_contract() -> None:
    """Rows, history, alarms and status as the codec makes them have nothing to complain about."""
    event = AlarmEvent("hot", "pump1/temp", "pump1", T, True, 2, 81.0, 80.0, 192)
    facts = {"config": "a", "version": "1", "clock": "synced", "durable": True, "lineage": "9f"}
    assert violations("p/g/data/pump1", json.row(STORED, BATCH)) == []
    assert violations("p/g/history/pump1", json.history(STORED, BATCH)) == []
    assert violations("p/g/_alarm/hot", json.alarm(STORED, event)) == []
    assert violations("p/g/_status", json.status(True, T, facts)) == []


def test_a_broken_contract_is_found() -> None:
    """A value that is null but good, a missing key, a wrong type and no JSON are all reported."""
    good = json.row(STORED, BATCH)
    assert violations("p/g/data/pump1", good.replace(b'"bad_comm"', b'"good"'))
    assert violations("p/g/data/pump1", good.replace(b'"epoch":7', b'"epoch":"7"'))
    assert violations("p/g/data/pump1", good.replace(b'"ts"', b'"time"'))
    assert violations("p/g/data/pump1", b"1.5;2.5")
    assert violations("p/g/history/pump1", good)
    assert violations("something/else", b"{}")
