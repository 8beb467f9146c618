"""Many windows at once are the windows that scoring cuts one by one."""

from itertools import pairwise

import numpy as np
import pytest

from agent.core.batch import Batch
from agent.core.cutting import Strip, windows
from agent.core.history import History
from agent.core.ports import LoadedModel
from agent.core.quality import Quality
from agent.core.registry import Artifact
from agent.core.stats import Stats
from agent.core.tag import Tag, TagSet
from agent.core.window import CountWindow, GridWindow
from agent.runtime.lane import InstancePlan
from agent.runtime.scoring import Scoring
from tests.tools import ManualClock

S = 1_000_000_000
CODES = np.array([192, 192, 192, 192, 192, 192, 84, 68, 72, 24], np.uint8)


class Plant:
    """Rows of some streams by time, in runs between which the clock is moved; gaps now and then."""

    def __init__(self, rng, periods, states):
        self.rng, self.names = rng, [f"s{i}" for i in range(len(periods))]
        self.columns = [int(rng.integers(1, 4)) for _ in periods]
        if states:
            self.names.append("state")
            self.columns.append(1)
        self.runs = []
        t = int(rng.integers(1, 9)) * 1000 * S
        for number in range(int(rng.integers(1, 4))):
            rows = [self._rows(t, p, k) for p, k in zip(periods, self.columns, strict=False)]
            if states:
                lead = rows[0][0]
                value = rng.choice([0.0, 1.0, 1.0, 1.0, np.nan], len(lead)).reshape(-1, 1)
                rows.append((lead, value, np.full((len(lead), 1), 192, np.uint8)))
            self.runs.append(((1, number), rows))
            t += int(rng.choice([-40, 90, 400])) * S

    def _rows(self, t, period, k):
        n = int(self.rng.integers(0, 70))
        gaps = np.where(self.rng.random(n) < 0.06, self.rng.integers(2, 9, n) * S, period)
        at = t + np.cumsum(gaps + self.rng.integers(-period // 9, period // 9, n)).astype(np.int64)
        return at, self.rng.normal(size=(n, k)), self.rng.choice(CODES, (n, k))

    def strips(self, i):
        """Stream *i* cut anywhere."""
        for run, rows in self.runs:
            t, v, q = rows[i]
            edges = np.unique([0, *self.rng.integers(0, len(t) + 1, 4), len(t)])
            for a, b in pairwise(edges.tolist()):
                yield Strip(run, a == 0, t[a:b], v[a:b], q[a:b])


def online(plant, window, when):
    """What waits to be scored after every row has arrived, in the order of time."""
    sets = {
        n: TagSet(tuple(Tag(f"{n}/{c}") for c in range(k)))
        for n, k in zip(plant.names, plant.columns, strict=True)
    }
    rings = {n: History(tags, 5000) for n, tags in sets.items()}
    fed = [n for n in plant.names if n != "state"]
    parts = tuple((n, tuple(range(len(sets[n])))) for n in fed)
    inputs = tuple(t.name for n in fed for t in sets[n])
    plan = InstancePlan("p", "m", inputs, window, 1.0, parts, ("state", 0) if when else None)
    stats = Stats()
    scoring = Scoring(None, None, rings.get, ManualClock(), stats)
    loaded = LoadedModel("d", {}, {"score": (None,)}, 1.0)
    scoring.activate(Artifact("m", "1", 1, "d", None), loaded, [plan])
    found = []
    for _, rows in plant.runs:
        for ring in rings.values():
            ring.clear()
        scoring.stepped()
        order = sorted(
            (int(t), -i, r) for i, (ts, _, _) in enumerate(rows) for r, t in enumerate(ts)
        )
        for _, minus, r in order:
            name, (t, v, q) = plant.names[-minus], rows[-minus]
            one = slice(r, r + 1)
            batch = Batch(name, sets[name], t[one], v[one], q[one])
            rings[name].append(batch)
            if name != "state":
                scoring.arrived(batch, rings[name])
            found += scoring.lanes["p"].waiting
            scoring.lanes["p"].waiting.clear()
    assert not stats.values.get("model/p.skipped_windows"), "what is too much at once is left out"
    return [(c.x.tobytes(), c.quality, c.start_ns, c.end_ns) for c in found]


def offline(plant, window, when):
    feeds = [plant.strips(i) for i in range(len(plant.names))]
    states = feeds.pop() if when else None
    cuts = [c.cut(i) for c in windows(feeds, window, states) for i in range(len(c))]
    return [(c.x.tobytes(), c.quality, c.start_ns, c.end_ns) for c in cuts]


@pytest.mark.parametrize("when", [False, True])
def test_count_windows_are_those_of_scoring(when):
    """Gaps, steps of the clock, Bad and held samples, `reset_after`, `when:`: the same windows."""
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        reset_ns = None if seed % 3 == 0 else int(rng.integers(2, 9)) * S
        window = CountWindow(int(rng.integers(1, 9)), reset_ns)
        plant = Plant(rng, [S], when)
        wanted = online(plant, window, when)
        assert offline(plant, window, when) == wanted, seed
        seen += len(wanted)
    assert seen > 2000


@pytest.mark.parametrize("when", [False, True])
def test_grid_windows_are_those_of_scoring(when):
    """One to three streams, strides with and without a common step, values that are held."""
    seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        periods = [S, *(int(rng.integers(1, 32)) * S // 4 for _ in range(seed % 3))]
        period = int(rng.choice([S, 2 * S, 700_000_001]))
        stride = int(rng.choice([period, 3 * period, S, 5 * S // 2]))
        window = GridWindow(int(rng.integers(1, 7)), period, stride, int(rng.integers(1, 30)) * S)
        plant = Plant(rng, periods, when)
        online_, offline_ = online(plant, window, when), offline(plant, window, when)
        assert offline_ == online_, seed
        seen += len(online_)
    assert seen > 500


def test_no_window_spans_a_hole():
    """After rows that are missing a count window begins anew, and so does a stream of a grid."""
    t = np.arange(20) * S
    v, q = t[:, None] / S, np.full((20, 1), Quality.GOOD, np.uint8)

    def strips():
        yield Strip((1, 0), True, t[:8], v[:8], q[:8])
        yield Strip((1, 0), True, t[12:], v[12:], q[12:])

    for window in (CountWindow(4), GridWindow(4, S, S, S)):
        found = [c.cut(i) for c in windows([strips()], window) for i in range(len(c))]
        assert [c.end_ns // S for c in found] == [3, 4, 5, 6, 7, 15, 16, 17, 18, 19]


def test_a_slow_stream_on_a_fine_grid_is_cut_in_pieces():
    """300,000 windows between 30,000 rows come in order, none twice, none left out."""
    t = np.arange(30_000) * 10 * S
    v, q = t[:, None] / S, np.full((len(t), 1), Quality.GOOD, np.uint8)
    q[5000] = Quality.BAD_COMM
    pieces = list(windows([iter([Strip((1, 0), True, t, v, q)])], GridWindow(2, S, S, 10 * S)))
    ends = np.concatenate([c.end_ns for c in pieces])
    assert max(map(len, pieces)) <= 2**18 + 1
    steps = np.concatenate([c.base[c.first + 1, 0] for c in pieces])
    assert np.array_equal(steps, ends // (10 * S) * 10)
    bad = np.concatenate([c.quality for c in pieces]) == Quality.BAD_COMM
    assert steps[bad].tolist() == [50_000.0] * 10 + [50_010.0]
    assert len(ends) == (len(t) - 1) * 10
