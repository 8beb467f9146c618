"""Random rows of three tags, as a plant may give them."""

import numpy as np

OWN_VALUE = {64, 76, 84, 192}
"""Qualities whose value says something about the machine (contracts 4)."""

_QUALITIES = (192, 192, 84, 76, 64, 68, 72, 24, 8, 0, 28, 40)


def random_rows(rng, rows, reach):
    """Times (ns), whole values from -*reach* to *reach*, qualities.

    Things last, so that delays and votes come to their end. There are gaps, rows of one time,
    doubt, Bad, and times at which the whole device is dead.
    """
    t, v, q, found = 1000, [0] * 3, (192,) * 3, []
    for _ in range(rows):
        t += rng.choice([0, 1, 1, 1, 2, 3, 50])
        v = [rng.randint(-reach, reach) if rng.random() < 0.4 else x for x in v]
        if rng.random() < 0.5:
            some, dead = tuple(rng.choices(_QUALITIES, k=3)), tuple(rng.choices([8, 24], k=3))
            q = rng.choice([(192,) * 3, (192,) * 3, some, dead])
        found.append((t, v, q))
    times = np.array([t for t, *_ in found], np.int64)
    values = np.array([v for _, v, _ in found], float)
    qualities = np.array([q for *_, q in found], np.uint8)
    values[qualities < 64] = np.nan
    return times, values, qualities
