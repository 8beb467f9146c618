"""Two versions over the same windows: how often do they say the same."""

from dataclasses import dataclass, field
from typing import Final

OPEN: Final = 2000
"""Windows that only one of them has answered yet; the oldest are given up."""


@dataclass(slots=True)
class Agreement:
    """Compares the flags of what serves and of a candidate, window by window.

    Attributes:
        same: Windows that both flag, or neither.
        only_serving, only_candidate: Windows that one of them flags.
    """

    same: int = 0
    only_serving: int = 0
    only_candidate: int = 0
    _open: dict[tuple[int, bool], bool] = field(default_factory=dict)

    @property
    def windows(self) -> int:
        """Windows that both have answered."""
        return self.same + self.only_serving + self.only_candidate

    def told(self, end_ns: int, *, candidate: bool, flag: bool) -> None:
        """One of them has answered the window that ends at *end_ns*."""
        other = self._open.pop((end_ns, not candidate), None)
        if other is None:
            self._open[end_ns, candidate] = flag
            if len(self._open) > OPEN:
                del self._open[next(iter(self._open))]
        elif other == flag:
            self.same += 1
        elif flag == candidate:
            self.only_candidate += 1
        else:
            self.only_serving += 1
