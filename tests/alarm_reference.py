"""One alarm as its definition says it, sample by sample, and random ones to try it with."""

from dataclasses import dataclass, field, replace

import numpy as np

from agent.core.alarms import AlarmSpec
from agent.core.condition import Condition
from agent.core.tag import Tag, TagSet
from tests.series import OWN_VALUE, random_rows

TAGS = TagSet((Tag("p/a"), Tag("p/b"), Tag("p/c")))
WHENS = Condition("p/c", ">", 0.0), Condition("x/far", "==", 1.0)

KINDS = (
    "high_high", "high", "low", "low_low", "deviation", "rate", "state", "stale", "bad_too_long",
    "communication",
)  # fmt: skip


def random_specs(rng):
    """One alarm of each kind, with whatever it may have."""
    return [_random_spec(rng, kind) for kind in KINDS]


def _random_spec(rng, kind):
    tags = ("p/a", "p/b", "p/c")
    spec = AlarmSpec(
        kind,
        "p" if kind == "communication" else rng.choice(tags),
        kind,
        float(rng.randint(-3, 3)),
        on_delay_ns=rng.choice([0, 0, 1, 2, 4]),
        off_delay_ns=rng.choice([0, 0, 1, 2, 4]),
        when=rng.choice([None, None, *WHENS]),
    )
    if kind in {"bad_too_long", "communication"}:
        return spec
    if kind == "stale":
        return replace(spec, limit=rng.randint(1, 5) / 1e9)
    spec = replace(spec, of=rng.choice([(1, 1), (2, 3), (1, 4), (3, 3)]))
    if kind == "state":
        return replace(spec, states=rng.choice([(1.0,), (-1.0, 2.0, 5.0)]))
    if kind == "rate":
        return replace(spec, limit=float(rng.randint(0, 3)), per_ns=2)
    if kind == "deviation":
        point = rng.choice([1.0, *tags])
        return replace(spec, limit=float(rng.randint(0, 3)), deadband=1.0, setpoint=point)
    return replace(spec, deadband=float(rng.randint(0, 2)))


def random_series(rng, rows):
    """Times, values, qualities, and what each of `WHENS` is at each row."""
    state, states = [1.0] * len(WHENS), []
    for _ in range(rows):
        state = [rng.choice([0.0, 1.0, np.nan]) if rng.random() < 0.1 else x for x in state]
        states.append(state)
    found = np.array(states)
    return *random_rows(rng, rows, 5), {when: found[:, i] for i, when in enumerate(WHENS)}


@dataclass
class Reference:
    """One alarm as its definition says it."""

    spec: AlarmSpec
    active: bool = False
    since: int | None = None
    before: tuple[int, float] | None = None
    fresh_at: int | None = None
    votes: list[tuple[bool, bool]] = field(default_factory=list)

    def restarted(self):
        """What stands stands, and must come back sample by sample; all else begins anew."""
        votes = [(True, False)] * self.spec.of[1] if self.active else []
        silent = 0 if self.active and self.spec.kind == "stale" else None
        return Reference(self.spec, self.active, fresh_at=silent, votes=votes)

    def sample(self, t, row, states, dead):
        """True or False when the alarm comes or goes, else None; *row*: tag -> (value, quality)."""
        s = self.spec
        v, q = row.get(s.tag, row["p/a"])
        pointed = s.kind == "deviation" and isinstance(s.setpoint, str)
        unasked = (min(q, row[s.setpoint][1]) if pointed else q) in {28, 40}
        if unasked or (s.when is not None and states[s.when] == 0.0):
            was, self.active, self.since, self.votes = self.active, False, None, []
            self._remember(t, v, q)
            return False if was else None
        judged = self._judged(t, v, q, row, dead)
        if judged is None:
            return None
        if s.of != (1, 1):
            self.votes = [*self.votes, judged][-s.of[1] :]
            beyond = sum(b for b, _ in self.votes) >= s.of[0]
            back = sum(not b for _, b in self.votes) < s.of[0]
            judged = beyond, back
        moving = judged[1] if self.active else judged[0]
        delay = s.off_delay_ns if self.active else s.on_delay_ns
        if not moving:
            self.since = None
            return None
        self.since = t if self.since is None else self.since
        if t - self.since < delay:
            return None
        self.active, self.since = not self.active, None
        return self.active

    def _remember(self, t, v, q):
        """What passes while there is no alarm is remembered all the same."""
        if q in OWN_VALUE:
            if self.before is None or t > self.before[0]:
                self.before = (t, v)
            self.fresh_at = t
        elif self.fresh_at is None:
            self.fresh_at = t

    def _judged(self, t, v, q, row, dead):
        """Is it beyond the limit, is it back; None when this sample says nothing."""
        s = self.spec
        own, before = q in OWN_VALUE, self.before
        self._remember(t, v, q)
        match s.kind:
            case "communication":
                return dead, not dead
            case "bad_too_long":
                return None if dead else (q < 64, q >= 64)
            case "stale":
                return (t - self.fresh_at) / 1e9 > s.limit, t == self.fresh_at
        if not own:
            return None
        match s.kind:
            case "state":
                return v in s.states, v not in s.states
            case "rate":
                if before is None or t <= before[0]:
                    return None
                x = abs(v - before[1]) / (t - before[0]) * s.per_ns
            case "deviation":
                point = s.setpoint
                if isinstance(point, str):
                    point, quality = row[point]
                    if quality not in OWN_VALUE:
                        return None
                x = abs(v - point)
            case "low" | "low_low":
                return v < s.limit, v >= s.limit + s.deadband
            case _:
                x = v
        return x > s.limit, x <= s.limit - s.deadband


def expected(specs, series, restarts=()):
    """Time, alarm, on or off, of every change; before the rows *restarts* the agent was killed."""
    t, v, q, states = series
    found = []
    for spec in specs:
        alarm = Reference(spec)
        for r in range(len(t)):
            alarm = alarm.restarted() if r in restarts else alarm
            row = {tag.name: (v[r, i], int(q[r, i])) for i, tag in enumerate(TAGS)}
            dead = all(x in {8, 24} for x in q[r].tolist())
            change = alarm.sample(int(t[r]), row, {c: s[r] for c, s in states.items()}, dead)
            if change is not None:
                found.append((int(t[r]), spec.name, change))
    return sorted(found)
