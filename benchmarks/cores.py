"""Who runs on which core: what is measured alone on one, its peers on the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def placed(cores: set[int]) -> Iterator[None]:
    """Keep this thread, and every process and thread it starts meanwhile, on *cores* only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def split() -> tuple[set[int], set[int]]:
    """One core for what is measured, the others for its peers; the same one where it is alone."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}
