"""Acknowledgements that wait: for the disk, and for those of earlier messages."""

from collections import deque
from collections.abc import Callable


class Taken:
    """One message taken, and what must still happen before it is acknowledged."""

    __slots__ = ("_owed", "_receipts", "mid")

    def __init__(self, mid: int, receipts: "Receipts") -> None:
        self.mid, self._receipts, self._owed = mid, receipts, 1

    @property
    def settled(self) -> bool:
        """May it be acknowledged?"""
        return self._owed <= 0

    def owe(self) -> Callable[[], None]:
        """One thing more must happen before; call what is returned when it has."""
        self._owed += 1
        return self.settle

    def settle(self) -> None:
        """One thing that was owed has happened."""
        self._owed -= 1
        if self._owed == 0:
            self._receipts.pay()


class Receipts:
    """Sends each acknowledgement when its message is settled, in order of arrival (MQTT 5, 4.6).

    Attributes:
        on_paid: Called after some have gone.
    """

    def __init__(self, send: Callable[[int], object]) -> None:
        self._send, self._open, self._lost = send, deque[Taken](), False
        self.on_paid: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._open)

    def take(self, mid: int) -> Taken:
        """A message has come; *mid* 0 is one that nobody wants acknowledged (QoS 0)."""
        taken = Taken(mid, self)
        self._open.append(taken)
        return taken

    def pay(self) -> None:
        """Acknowledge the oldest messages, as far as they are settled."""
        before = len(self._open)
        while self._open and self._open[0].settled:
            mid = self._open.popleft().mid
            if mid and not self._lost:
                self._send(mid)
        if len(self._open) != before:
            self.on_paid()

    def settle_all(self) -> None:
        """Wait for nothing any longer: the disk will not answer."""
        for taken in self._open:
            taken._owed = 0  # noqa: SLF001 - of the same module
        self.pay()

    def lose(self) -> None:
        """The connection is gone: the broker will send again what was not acknowledged."""
        self._lost = True
        self._open.clear()
