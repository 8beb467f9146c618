"""The verb ``bundle``: the diagnostic archive goes over a broker, piece by piece."""

import asyncio
import base64
import hashlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from agent.core.errors import PermanentError
from agent.core.requests import Back, Caller, Declined, Verb
from agent.web import children

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

log = structlog.get_logger()

PIECE: Final = 8_192
"""Bytes of the archive in one answer: a live value behind it waits for 0.1 s at 1 Mbit/s."""

LARGEST: Final = 10_000_000
"""Bytes of an archive."""

PER_S: Final = 256_000.0
"""Bytes of the archive in a second, at most; and never more than half of what the line gives."""

_LEAST: Final = 64
_ENVELOPE: Final = 320
"""Bytes of an answer around its piece, as JSON, with an id of 64 characters."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """The archive as it goes out. *size* and *piece* in bytes, *piece* before base64."""

    name: str
    size: int
    piece: int

    @property
    def pieces(self) -> int:
        return -(-self.size // self.piece)

    def on_line(self, pieces: int) -> int:
        """Bytes that so many answers take."""
        return pieces * (_ENVELOPE + _coded(self.piece))


class BundleVerb:
    """One archive at a time. It changes nothing, and so is had while the disk refuses, too."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon, self._turn = daemon, asyncio.Lock()

    def table(self) -> dict[str, Verb]:
        """The verb by name."""
        return {"bundle": Verb(self.bundle, remote=True)}

    async def bundle(self, args: Mapping[str, Any], caller: Caller) -> Any:
        """The archive as answers ``piece``; then what it must be when it is put together.

        ``piece``: bytes of the archive in one answer, where less than 8,192 is wanted.
        """
        back = caller.back
        if back is None:
            raise PermanentError(
                "the archive goes over a broker only",
                fix="`edge-agent bundle --to DIR` writes it to a folder of the gateway.",
                code="E281",
            )
        piece = _piece(args, back.room)
        if self._turn.locked():
            what = "an archive is being made or sent already"
            raise Declined("busy", what, fix="Ask again when it is through.", code="E282")
        async with self._turn, _archive(self._daemon.loaded.path.resolve()) as path:
            cut = _Cut(path.name, path.stat().st_size, piece)
            if cut.size > LARGEST:
                what = f"the archive has {cut.size} bytes, {LARGEST} may be sent"
                raise Declined("too_large", what, code="E284")
            self._afford(back.via, cut, cut.pieces)
            return await self._send(path, cut, back)

    async def _send(self, path: Path, cut: _Cut, back: Back) -> dict[str, Any]:
        digest, clock = hashlib.sha256(), self._daemon.clock
        with path.open("rb") as file:
            for number in range(1, cut.pieces + 1):
                self._afford(back.via, cut, 1)
                data = file.read(cut.piece)
                digest.update(data)
                began_s = clock.mono_s()
                text = base64.b64encode(data).decode()
                await back.tell("piece", {"piece": number, "pieces": cut.pieces, "base64": text})
                await asyncio.sleep(max(clock.mono_s() - began_s, len(data) / PER_S))
        log.info("bundle.sent", sink=back.via, size=cut.size, pieces=cut.pieces)
        return {
            "name": cut.name,
            "size": cut.size,
            "pieces": cut.pieces,
            "sha256": digest.hexdigest(),
        }

    def _afford(self, sink: str, cut: _Cut, pieces: int) -> None:
        """Raises `Declined` when values would have to wait for *pieces* of them."""
        uplink = self._daemon.uplinks.get(sink)
        spare = uplink.spare() if uplink is not None else None
        cost = cut.on_line(pieces)
        if spare is None or cost <= spare[0]:
            return
        there = "`edge-agent bundle --to DIR` on the gateway needs no line."
        later = f"Ask again later, or raise `data_budget`. {there}"
        raise Declined(
            "budget",
            f"the archive of {cut.size} bytes takes {cost} more on the line; "
            f"the data budget has {spare[0]} to spare, {spare[1]} at most",
            where=f"sink {sink}",
            fix=later if cost <= spare[1] else f"Raise `data_budget`. {there}",
            code="E283",
        )


def _coded(size: int) -> int:
    """Bytes -> characters of base64."""
    return -(-size // 3) * 4


def _piece(args: Mapping[str, Any], room: int) -> int:
    """Bytes of the archive that go into one answer."""
    wish = args.get("piece", PIECE)
    if type(wish) is not int or wish < _LEAST:
        raise PermanentError(
            "`piece` is no number of bytes", fix=f"Give {_LEAST} to {PIECE}.", code="E281"
        )
    fits = (room - _ENVELOPE) // 4 * 3
    if fits < _LEAST:
        what = f"the broker takes messages of {max(room, 0)} bytes: too small for pieces"
        raise Declined("too_large", what, fix="Raise its `max_packet_size`.", code="E284")
    return min(wish, PIECE, fits)


@asynccontextmanager
async def _archive(config: Path) -> AsyncIterator[Path]:
    """What `edge-agent bundle` makes, for as long as it is needed."""
    with (
        tempfile.TemporaryDirectory(prefix="edge-agent-") as folder,
        tempfile.TemporaryFile() as errors,
    ):
        path = await children.made(["bundle", "-c", str(config)], errors, folder)
        if path is None:
            errors.seek(0)
            said = errors.read()[-400:].decode(errors="replace").strip()
            raise PermanentError(
                f"the archive could not be made: {said or 'it took too long'}",
                fix="Try `edge-agent bundle --to DIR` on the gateway.",
                code="E284",
            )
        yield path
