"""What a Sparkplug payload costs: 1,000 doubles by alias, from few or many distinct times."""

import time
from collections.abc import Sequence
from typing import Final

from agent.codecs.sparkplug_encode import DOUBLE, Sample, Slot, encode
from benchmarks.figure import Figure

METRICS: Final = 1000
TIMES: Final = 20
_NOW_MS: Final = 1_700_000_000_123
_ROUNDS: Final = 50


def encoding() -> Sequence[Figure]:
    """CPU of one payload of 1,000 metrics, the least and the mean of 50."""
    some = samples(TIMES)
    many = samples(METRICS)
    encode(_NOW_MS, 0, some)
    took = [_ms(some) for _ in range(_ROUNDS)]
    birth = min(_ms(some, birth=True) for _ in range(_ROUNDS))
    seen = {
        "mean_ms": round(sum(took) / len(took), 2),
        "birth_ms": round(birth, 2),
        "every_time_another_ms": round(min(_ms(many) for _ in range(_ROUNDS)), 2),
        "bytes": len(encode(_NOW_MS, 0, some)),
    }
    return [Figure("sparkplug_encode", round(min(took), 2), "ms/1000 metrics", "<= 1.5", seen)]


def samples(times: int) -> list[Sample]:
    """1,000 doubles of so many distinct times, in their order."""
    return [
        (Slot(f"Line/Cell/tag{i}", i, DOUBLE), _NOW_MS + i * times // METRICS, i * 1.1, b"")
        for i in range(METRICS)
    ]


def _ms(some: list[Sample], *, birth: bool = False) -> float:
    started = time.process_time()
    encode(_NOW_MS, 0, some, birth=birth)
    return (time.process_time() - started) * 1000
