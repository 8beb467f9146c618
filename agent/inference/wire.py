"""Frames between the host and its worker: a fixed header, then raw bytes.

Strictly one request, one reply. Tensors travel as little-endian float32; only the reply to
``LOAD`` is JSON, and an error is text.
"""

import socket
import struct
from typing import Final

REQUEST: Final = struct.Struct("<QIIIII")
"""Payload size, operation, slot, and the shape (b, w, k) of the windows."""

REPLY: Final = struct.Struct("<QII")
"""Payload size, 1 for success, number of outputs."""

LOAD: Final = 1
UNLOAD: Final = 2
PREDICT: Final = 3

MAX_MODEL_BYTES: Final = 256_000_000
MAX_REPLY_BYTES: Final = 64_000_000


def receive(sock: socket.socket, size: int) -> bytearray:
    """Exactly *size* bytes; `EOFError` when the other end is gone."""
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size:
        n = sock.recv_into(view[got:])
        if n == 0:
            raise EOFError
        got += n
    return buffer
