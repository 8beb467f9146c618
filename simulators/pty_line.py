"""A serial line without hardware: two pseudo-terminals, joined by a thread."""

import os
import selectors
import threading
import tty
from typing import Self


class PtyLine:
    """What goes into one end comes out of the other. They take any speed, and no parity.

    Attributes:
        ours, theirs: Paths of the two ends.
    """

    ours = theirs = ""

    def __enter__(self) -> Self:
        self._ends = [os.openpty() for _ in range(2)]
        for pair in self._ends:
            for fd in pair:
                tty.setraw(fd)
        self.ours, self.theirs = (os.ttyname(end) for _, end in self._ends)
        self._stop = os.pipe()
        self._pump = threading.Thread(target=self._run, name="line", daemon=True)
        self._pump.start()
        return self

    def __exit__(self, *exc: object) -> None:
        os.write(self._stop[1], b"x")
        self._pump.join()
        for fd in (*self._ends[0], *self._ends[1], *self._stop):
            os.close(fd)

    def _run(self) -> None:
        (a, _), (b, _) = self._ends
        with selectors.DefaultSelector() as ready:
            for fd, far in ((a, b), (b, a), (self._stop[0], None)):
                ready.register(fd, selectors.EVENT_READ, far)
            while True:
                for key, _ in ready.select():
                    if key.data is None:
                        return
                    os.write(key.data, os.read(key.fd, 4096))
