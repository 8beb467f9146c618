"""Request planning: is the plan the best one, and are exactly the missing registers found?"""

import random
from collections.abc import Sequence
from typing import Final

from agent.sources.modbus_plan import MAX_REGISTERS, Span, plan
from benchmarks.figure import Figure
from tests.planning import Lesson, cheapest, lesson

MAPS: Final = 300
SPANS: Final = 7
"""Tags of a map of which every possible plan is looked at: 877 of them."""

WEIGHTS: Final = (14.4, 40.0, 77.0)
"""What a request weighs, in registers: 9600, 19200 and 115200 baud and a device of 10 ms."""

DEVICES: Final = 30
TAGS: Final = 300
LACKING: Final = (0.02, 0.1)


def plans() -> Sequence[Figure]:
    """Line time against the best of all plans; tags judged wrongly on devices with holes."""
    rng = random.Random(1)
    over = [_over(rng) for _ in range(MAPS)]
    lessons = {share: [_lesson(rng, share) for _ in range(DEVICES)] for share in LACKING}
    each = [one for some in lessons.values() for one in some]
    wrong = sum(len(one.found ^ one.guilty) for one in each)
    more = max(one.requests / one.ideal for one in each)
    probes = {
        f"probes_{share:.0%}": round(sum(one.probes for one in some) / DEVICES)
        for share, some in lessons.items()
    }
    seen = {"tags": TAGS * len(each), "guilty": sum(len(one.guilty) for one in each)}
    return [
        Figure("plan_optimum", round(max(over), 6), "x the best", "<= 1", {"maps": MAPS}),
        Figure("plan_holes", wrong, "tags judged wrongly", "<= 0", seen | probes),
        Figure("plan_learnt", round(more, 6), "x the ideal requests", "<= 1", probes),
    ]


def _over(rng: random.Random) -> float:
    """Cost of the plan of one map over that of the cheapest."""
    at, wanted = 0, []
    for _ in range(SPANS):
        at += rng.choice((0, 1, rng.randint(2, 30), rng.randint(20, 120)))
        wanted.append(Span(at, rng.choice((1, 2, 4))))
        at = wanted[-1].end
    weight = rng.choice(WEIGHTS)
    cost = sum(weight + s.count for s in plan(wanted, MAX_REGISTERS, weight))
    return cost / cheapest(wanted, MAX_REGISTERS, weight)


def _lesson(rng: random.Random, share: float) -> Lesson:
    """A device that lacks a *share* of its gaps, and of its tags."""
    return lesson(rng, TAGS, share, round(share * TAGS))
