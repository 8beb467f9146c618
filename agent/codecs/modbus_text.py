"""Text in registers, and all that is read one by one when it changes: lot numbers, times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.core.quality import Quality

Encoding = Literal["ascii", "utf-8", "latin-1", "cp949", "shift_jis", "gb18030"]

CodeOf = Callable[[int, str], float]
"""Column and text -> the code that stands for the text in that column."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How a text lies in its registers.

    Attributes:
        length: Bytes of the text, at most; what lies beyond in its last register is no part of it.
        per_register: 2, or 1 when each register holds one character in its low byte.
        trim: Spaces to take off: at the ``end``, at ``both`` ends; or ``keep`` them.
    """

    length: int
    per_register: Literal[1, 2] = 2
    encoding: Encoding = "ascii"
    trim: Literal["end", "both", "keep"] = "end"

    @property
    def registers(self) -> int:
        """Registers that hold it."""
        return -(-self.length // self.per_register)

    def positions(self, *, swapped: bool) -> list[int]:
        """Byte offsets of its characters; *swapped*: the low byte of a register comes first."""
        if self.per_register == 1:
            return [2 * i + (0 if swapped else 1) for i in range(self.length)]
        return [i ^ 1 if swapped else i for i in range(self.length)]

    def read(self, data: bytes) -> str:
        """Bytes -> text. It ends at the first NUL; what the encoding does not know becomes U+FFFD.

        Control characters go: a text stands in one line everywhere.
        """
        text = data.split(b"\0", 1)[0].decode(self.encoding, "replace")
        text = "".join(c for c in text if c.isprintable())
        if self.trim == "keep":
            return text
        return text.rstrip() if self.trim == "end" else text.strip()


Reader = Callable[[bytes], float]
"""Bytes -> what stands in the column: the code of a text, a time; NaN when they mean nothing."""


class Readings:
    """Columns of a scan that are read one by one: while nothing changes, one gather and one
    compare for all.
    """

    def __init__(self, places: Sequence[tuple[int, list[int], Reader]]) -> None:
        """Args: column, buffer positions and reader of each."""
        self._readers = [r for _, _, r in places]
        self._columns = np.array([c for c, _, _ in places], np.intp)
        ends = np.cumsum([len(p) for _, p, _ in places]).tolist()
        self._parts = [slice(e - len(p), e) for (_, p, _), e in zip(places, ends, strict=True)]
        self._gather = np.array([i for _, p, _ in places for i in p], np.intp)
        self._last = np.zeros(len(self._gather), np.uint8)
        self._read = np.zeros(len(places), np.bool_)
        self._found = np.full(len(places), np.nan)
        self._none = np.ones(len(places), np.bool_)

    def fill(self, buffer: NDArray[np.uint8], v: NDArray[np.float64], q: NDArray[np.uint8]) -> None:
        """Write what stands there into the columns of v (k,); q (k,) says which answers to
        believe, and learns which mean nothing.
        """
        now = buffer.take(self._gather, mode="clip")
        usable = q.take(self._columns) >= Quality.UNCERTAIN
        if not (np.array_equal(now, self._last) and self._read.all()):
            self._changed(now, usable)
        v[self._columns] = self._found
        if self._none.any():
            columns = self._columns[self._none]
            q[columns[q[columns] == Quality.GOOD]] = Quality.BAD_SENSOR

    def _changed(self, now: NDArray[np.uint8], usable: NDArray[np.bool_]) -> None:
        for i in np.flatnonzero(usable):
            part = self._parts[i]
            if not self._read[i] or not np.array_equal(now[part], self._last[part]):
                self._found[i] = self._readers[i](now[part].tobytes())
                self._last[part], self._read[i] = now[part], True
        self._none = np.isnan(self._found)
