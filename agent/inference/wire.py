"""Frames between the host and its worker: a fixed header, then raw bytes.

Strictly one request, one reply. Tensors travel as little-endian float32; only the reply to
``LOAD`` is JSON, and an error is text.
"""

import socket
import struct
from collections.abc import Sequence
from typing import Final

REQUEST: Final = struct.Struct("<QIIIII")
"""Payload size, operation, slot, and the shape (b, w, k) of the windows."""

REPLY: Final = struct.Struct("<QII")
"""Payload size, 1 for success, number of outputs."""

LOAD: Final = 1
UNLOAD: Final = 2
PREDICT: Final = 3
OPEN: Final = 4
NEXT: Final = 5
SCORE: Final = 6
REPORT: Final = 7
"""From `OPEN` on: what only the process of a back-test answers, with JSON."""

MAX_MODEL_BYTES: Final = 256_000_000
MAX_REPLY_BYTES: Final = 64_000_000

_KEPT_BYTES: Final = 65536

Frame = tuple[tuple[int, ...], memoryview]
"""The fields of the header, and the payload: valid until the next frame is received."""


class WireError(Exception):
    """The other end says something that is no frame: nothing after it can be trusted."""


class Inbox:
    """Puts frames together from what a stream socket delivers, blocking or not.

    Args:
        header: `REQUEST` or `REPLY`; its first field is the size of the payload in bytes.
        limit: Largest payload that is taken, bytes.
    """

    __slots__ = ("_buffer", "_have", "_header", "_limit")

    def __init__(self, header: struct.Struct, limit: int) -> None:
        self._header, self._limit = header, limit
        self._buffer, self._have = bytearray(_KEPT_BYTES), 0

    def receive(self, sock: socket.socket) -> Frame | None:
        """Receive once; the frame when it is whole.

        Raises `EOFError` at the end of the stream, `WireError` for a frame that is too large
        or is followed by more than the one frame that is due.
        """
        if self._have == 0 and len(self._buffer) > _KEPT_BYTES:
            self._buffer = bytearray(_KEPT_BYTES)
        got = sock.recv_into(memoryview(self._buffer)[self._have :])
        if got == 0:
            raise EOFError
        self._have += got
        head = self._header.size
        if self._have < head:
            return None
        fields = self._header.unpack_from(self._buffer)
        whole = head + fields[0]
        if fields[0] > self._limit or self._have > whole:
            raise WireError
        if self._have < whole:
            self._make_room(whole)
            return None
        self._have = 0
        return fields, memoryview(self._buffer)[head:whole]

    def _make_room(self, size: int) -> None:
        if size > len(self._buffer):
            larger = bytearray(size)
            larger[: self._have] = memoryview(self._buffer)[: self._have]
            self._buffer = larger


def send(sock: socket.socket, parts: Sequence[bytes | memoryview]) -> memoryview | None:
    """Send *parts* (of bytes) in one call; what the socket did not take, None when it took all.

    Raises `BlockingIOError` when a non-blocking socket takes nothing.
    """
    sent = sock.sendmsg(parts)
    if sent == sum(map(len, parts)):
        return None
    return memoryview(b"".join(parts))[sent:]
