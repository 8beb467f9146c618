"""The worker process: forked from `agent.inference.forkserver`, in its sandbox."""

import socket

from agent.inference import sandbox


def main(sock: socket.socket, memory_bytes: int) -> None:
    """Serve the socket, with an address space of *memory_bytes*, until the daemon is gone."""
    from agent.inference.serving import serve  # noqa: PLC0415 - NumPy and ONNX Runtime

    sandbox.limit_memory(memory_bytes)
    serve(sock)
