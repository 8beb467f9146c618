"""What can be taken away: the commands `export` and `bundle`, each in a process of its own."""

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, cast

from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response, StreamingResponse

from agent.inference.sandbox import give_way

CHUNK: Final = 64 * 1024
WITHIN_S: Final = 300.0
FORMATS: Final = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_MAX_ERROR: Final = 4000


async def export(config: Path, tags: Sequence[str], since: str, form: str) -> Response:
    """Samples of *tags* from *since* (``24h``) until now; 409 with the reason if there are none."""
    words = ["export", "-c", str(config), "--from", since, "--format", form]
    if form == "parquet":
        return await _file([*words, "-o", "export.parquet", "--tags", *tags], FORMATS[form])
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - outlives this function
    samples = _output(await _start([*words, "--tags", *tags], errors))
    first = await anext(samples, b"")
    if not first:
        return _failed(errors)
    headers = {"content-disposition": 'attachment; filename="export.csv"'}
    return StreamingResponse(_all(first, samples), media_type=FORMATS[form], headers=headers)


async def bundle(config: Path) -> Response:
    """The diagnostic archive."""
    return await _file(["bundle", "-c", str(config)], "application/gzip")


async def _file(words: Sequence[str], kind: str) -> Response:
    """The one file that a command leaves where it runs."""
    folder, errors = tempfile.TemporaryDirectory(prefix="edge-agent-"), tempfile.TemporaryFile()  # noqa: SIM115
    child = await _start(words, errors, folder.name)
    try:
        async with asyncio.timeout(WITHIN_S):
            await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
    made = os.listdir(folder.name)  # noqa: PTH208 - a name is enough
    if child.returncode or not made:
        folder.cleanup()
        return _failed(errors)
    done = BackgroundTask(folder.cleanup)
    return FileResponse(
        Path(folder.name, made[0]), media_type=kind, filename=made[0], background=done
    )


async def _start(words: Sequence[str], errors: IO[bytes], folder: str | None = None) -> Process:
    """The command as a child that gives way to the agent."""
    command = (sys.executable, "-m", "agent", *words)
    child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=errors, cwd=folder)
    give_way(child.pid)
    return child


async def _output(child: Process) -> AsyncIterator[bytes]:
    """What the command writes; whoever goes away ends it."""
    out = cast("asyncio.StreamReader", child.stdout)
    try:
        while part := await out.read(CHUNK):
            yield part
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
        await child.wait()


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


def _failed(errors: IO[bytes]) -> Response:
    errors.seek(0)
    return Response(errors.read()[-_MAX_ERROR:], 409, media_type="text/plain; charset=utf-8")
