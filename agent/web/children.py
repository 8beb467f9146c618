"""Commands of ours that run beside the agent, each in a process that gives way to it."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

WITHIN_S: Final = 300.0


async def start(words: Sequence[str], errors: IO[bytes], folder: str | None = None) -> Process:
    """The command *words*, in *folder*; its complaints go to *errors*."""
    command = (sys.executable, "-m", "agent.cli.aside", *words)
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=errors, cwd=folder)


async def end(child: Process) -> None:
    """Nobody waits for it any more."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.kill()
    await child.wait()


async def made(words: Sequence[str], errors: IO[bytes], folder: str) -> Path | None:
    """The one file that the command leaves in *folder*; None when it fails, or takes 300 s."""
    child = await start(words, errors, folder)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                await child.communicate()
    finally:
        await end(child)
    left = os.listdir(folder)  # noqa: PTH208 - a name is enough
    return None if child.returncode or not left else Path(folder, left[0])
