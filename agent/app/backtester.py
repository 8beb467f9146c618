"""The process of a back-test: ``python -m agent.app.backtester FD MEMORY_BYTES``.

In the sandbox of a worker.
"""

import sys

from agent.inference import sandbox
from agent.inference.worker import confined


def main() -> None:
    """Serve the socket from within the sandbox."""
    sock = confined()

    from agent.app.replaying import Replaying  # noqa: PLC0415 - NumPy and ONNX Runtime: only now
    from agent.inference.serving import serve  # noqa: PLC0415

    sandbox.limit_memory(int(sys.argv[2]))
    with Replaying() as replaying:
        try:
            serve(sock, replaying.answer)
        except (EOFError, ConnectionError):
            return


if __name__ == "__main__":
    main()
