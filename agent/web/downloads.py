"""What can be taken away: the commands `export` and `bundle`, each in a process of its own."""

import asyncio
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Final, cast

from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response, StreamingResponse

from agent.web.children import end, made, start

CHUNK: Final = 64 * 1024
FORMATS: Final = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_MAX_ERROR: Final = 4000


async def export(config: Path, tags: Sequence[str], since: str, form: str) -> Response:
    """Samples of *tags* from *since* (``24h``) until now; 409 with the reason if there are none."""
    words = ["export", "-c", str(config), "--from", since, "--format", form]
    if form == "parquet":
        return await _file([*words, "-o", "export.parquet", "--tags", *tags], FORMATS[form])
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - outlives this function
    samples = _output(await start([*words, "--tags", *tags], errors))
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
    path = await made(words, errors, folder.name)
    if path is None:
        folder.cleanup()
        return _failed(errors)
    done = BackgroundTask(folder.cleanup)
    return FileResponse(path, media_type=kind, filename=path.name, background=done)


async def _output(child: Process) -> AsyncIterator[bytes]:
    """What the command writes; whoever goes away ends it."""
    out = cast("asyncio.StreamReader", child.stdout)
    try:
        while part := await out.read(CHUNK):
            yield part
    finally:
        await end(child)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


def _failed(errors: IO[bytes]) -> Response:
    errors.seek(0)
    return Response(errors.read()[-_MAX_ERROR:], 409, media_type="text/plain; charset=utf-8")
