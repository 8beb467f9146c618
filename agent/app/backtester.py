"""The process of a back-test: ``python -m agent.app.backtester FD MEMORY_BYTES``.

In the sandbox of a worker, at nice 10.
"""

import os
import sys
from typing import Final

from agent.inference import sandbox
from agent.inference.worker import confined

NICE: Final = 10


def main() -> None:
    """Serve the socket from within the sandbox."""
    os.nice(NICE)
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
