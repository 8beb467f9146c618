"""Entry of the worker process: ``python -m agent.inference.worker FD MEMORY_BYTES``.

First the sandbox, then the heavy imports: a filter binds only threads that start after it.
"""

import os
import socket
import sys

from agent.inference import sandbox


def confined() -> socket.socket:
    """Enter the sandbox; the socket that was inherited. Call it before the heavy imports."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # release 1.29 and later phone home
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    sock = socket.socket(fileno=int(sys.argv[1]))
    missing = sandbox.confine()
    if missing:
        sys.stderr.write(f"not enforced on this machine: {', '.join(missing)}\n")
    return sock


def main() -> None:
    """Serve the socket from within the sandbox."""
    sock = confined()

    from agent.inference.serving import serve  # noqa: PLC0415 - NumPy and ONNX Runtime: only now

    sandbox.limit_memory(int(sys.argv[2]))
    try:
        serve(sock)
    except (EOFError, ConnectionError):
        return


if __name__ == "__main__":
    main()
