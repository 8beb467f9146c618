"""Sample quality: one byte per sample.

The codes are the low byte of OPC DA quality, severity in the top two bits, so an ordinary
comparison answers the usual question: ``q >= Quality.UNCERTAIN`` means usable.
"""

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray


class Quality(IntEnum):
    """Good / Uncertain / Bad, with the reasons a gateway can honestly give."""

    BAD = 0
    BAD_CONFIG = 4
    BAD_NOT_CONNECTED = 8
    BAD_DEVICE = 12
    BAD_SENSOR = 16
    BAD_COMM = 24
    OUT_OF_SERVICE = 28
    NOT_APPLICABLE = 40
    UNCERTAIN = 64
    UNCERTAIN_LAST = 68
    SUBSTITUTED = 72
    UNCERTAIN_PRECISION = 76
    UNCERTAIN_RANGE = 84
    GOOD = 192


WORDS: Final = {int(q): q.name.lower() for q in Quality}
"""The word of each code, as JSON, the page and the command line show it."""

OPC_UA_STATUS: Final = {
    Quality.BAD: 0x80000000,
    Quality.BAD_CONFIG: 0x80890000,
    Quality.BAD_NOT_CONNECTED: 0x808A0000,
    Quality.BAD_DEVICE: 0x808B0000,
    Quality.BAD_SENSOR: 0x808C0000,
    Quality.BAD_COMM: 0x80050000,
    Quality.OUT_OF_SERVICE: 0x808D0000,
    Quality.NOT_APPLICABLE: 0x80000000,
    Quality.UNCERTAIN: 0x40000000,
    Quality.UNCERTAIN_LAST: 0x40900000,
    Quality.SUBSTITUTED: 0x40910000,
    Quality.UNCERTAIN_PRECISION: 0x40000000,
    Quality.UNCERTAIN_RANGE: 0x40940000,
    Quality.GOOD: 0x00000000,
}
"""OPC UA Part 4 StatusCodes of each quality."""


_GOOD: Final = int(Quality.GOOD)

USABLE: Final = int(Quality.UNCERTAIN)
"""``q >= USABLE``: may be used. Plain: for a member of an enum NumPy takes five times as long."""


def all_good(q: NDArray[np.uint8]) -> bool:
    """Is every quality Good: the usual case, told in a third of the time of a comparison."""
    codes = q.tobytes()
    return codes.count(_GOOD) == len(codes)


def word(q: int) -> str:
    """The word of a quality code; an unknown code reads as its severity."""
    return WORDS.get(int(q)) or ("good" if q >= 192 else "uncertain" if q >= 64 else "bad")


def counts_for_limits(q: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which samples raise and clear alarms: good, out of range, precision lost, plain uncertain.

    Held (68) and substituted (72) values neither raise nor clear, nor does anything Bad.
    """
    own = (q != Quality.UNCERTAIN_LAST) & (q != Quality.SUBSTITUTED)
    usable: NDArray[np.bool_] = own & (q >= Quality.UNCERTAIN)
    return usable


def sparkplug(q: int) -> int:
    """Sparkplug B knows 0 Bad, 192 Good and 500 Stale only; doubt is never sent as Good."""
    if q >= Quality.GOOD:
        return 192
    return 500 if q == Quality.UNCERTAIN_LAST else 0
