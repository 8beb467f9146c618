"""The agent's own numbers: what is counted, what it is called, what it looks like as a row."""

import re
from pathlib import Path

import numpy as np

from agent.config.base import Context
from agent.config.selftags import FIXED, mistake
from agent.core.stats import Stats
from agent.sources.internal import Internal, _Wear
from tests.tools import ManualClock

AGENT = Path(__file__).parents[2] / "agent"
_COUNTED = re.compile(r"stats\.(add|set|observe)\(\s*\"([^\"]+)\"")


def rows(folder, stats=None):
    ctx = Context(ManualClock(), stats or Stats(), "g", "edge/g", folder)
    return Internal(ctx, 1.0)


def test_every_number_has_its_name_in_the_list(tmp_path):
    """An alarm on a number of the agent is checked against a list: the list is what is counted."""
    names = set(rows(tmp_path)._system())
    for path in AGENT.rglob("*.py"):
        for how, name in _COUNTED.findall(path.read_text(encoding="utf-8")):
            names |= {f"{name}.p50", f"{name}.p99"} if how == "observe" else {name}

    assert sorted(names) == sorted(FIXED)


def test_a_name_that_cannot_be_is_told_and_an_adapters_own_is_not():
    """Typing mistakes and names of things that are not configured; anything else may come."""
    named = {"sink": ["plant"], "source": []}

    assert mistake("agent/cpu_percent", named) is None
    assert mistake("agent/sink/plant.depth", named) is None
    assert mistake("agent/opcua.sessions", named) is None
    assert mistake("agent/room/office.datagrams", named) is None
    assert mistake("agent/cpu_precent", named) == "did you mean `agent/cpu_percent`?"
    assert mistake("agent/sink/plnt.depth", named) == "Known: agent/sink/plant.*."
    assert mistake("agent/source/x.scan_ms.p99", named) == "Known: no source."


def test_a_row_has_units_and_says_what_is_unknown(tmp_path):
    """CPU, memory, network, disk and counters in one row; a number that is not there is no zero."""
    stats = Stats()
    source = rows(tmp_path / "gone", stats)
    first = source._row()
    stats.observe("loop.lateness_ms", 3.0)
    second = source._row()

    at = {t.name: (t.unit, first.q[0, i]) for i, t in enumerate(first.tags)}
    assert at["agent/rss_bytes"] == ("By", 192)
    assert at["agent/cpu_percent"] == ("%", 192)
    assert at["agent/disk_free_bytes"] == ("By", 40)
    assert {"agent/host.net_sent_bytes", "agent/host.memory_percent"} <= set(at)
    assert second.tags.column.keys() - first.tags.column.keys() == {
        "agent/loop.lateness_ms.p50", "agent/loop.lateness_ms.p99",
    }  # fmt: skip
    assert second.tags is source.streams["agent"]
    assert np.isfinite(second.v[0][second.q[0] == 192]).all()


def test_wear_is_told_as_bytes_a_day_of_the_last_hour():
    """Right from the first minute, forgotten after hours, not fooled by a counter that starts."""
    wear = _Wear()
    minute = [wear.per_day(1000.0 * (n + 1), 60.0) for n in range(60)]
    assert np.allclose(minute, 1000.0 * 1440)
    quiet = [wear.per_day(60_000.0, 60.0) for _ in range(300)]
    assert quiet[59] < 0.6 * minute[-1]
    assert quiet[-1] < 0.01 * minute[-1]
    assert wear.per_day(0.0, 60.0) >= 0
    assert np.isnan(wear.per_day(float("nan"), 60.0))
