"""The event loop of the daemon: uvloop where it is installed (extra ``fast``), else asyncio's."""

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop.

    uvloop does the same with a third less CPU per Modbus request; nothing depends on it.
    """
    try:
        import uvloop  # noqa: PLC0415 - may be missing
    except ImportError:
        return asyncio.new_event_loop
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make
