"""The process of a back-test: a worker that has the journal, too."""

import socket

from agent.inference import sandbox


def main(sock: socket.socket, memory_bytes: int) -> None:
    """Serve the socket, with an address space of *memory_bytes*, until the daemon is gone."""
    from agent.app.replaying import Replaying  # noqa: PLC0415 - NumPy and ONNX Runtime
    from agent.inference.serving import serve  # noqa: PLC0415

    sandbox.limit_memory(memory_bytes)
    with Replaying() as replaying:
        serve(sock, replaying.answer)
