"""The control socket: one JSON object a line, who asks is known from the kernel."""

import asyncio
import grp
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from agent.config.report import ConfigProblems
from agent.core.errors import AgentError, PermanentError
from agent.core.ports import Trail
from agent.core.requests import Declined, Verb
from agent.runtime.verbs import outcome

log = structlog.get_logger()

ADMIN_GROUP: Final = "edge-agent-admin"
REQUEST_LIMIT: Final = 1024 * 1024
"""Largest request in bytes."""
PEERS_LIMIT: Final = 32
IDLE_S: Final = 120.0
_MODE: Final = 0o660
_SO_PEERGROUPS: Final = 59
_GROUPS_ROOM: Final = 1024
"""Room for 256 groups in bytes, the most that Python can ask for."""
_DUMP: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, as the kernel says (SO_PEERCRED)."""

    uid: int
    gid: int
    pid: int
    admin: bool

    @property
    def actor(self) -> str:
        """The name in the audit trail."""
        return f"uid:{self.uid}"

    def expired(self) -> bool:
        """Whoever asks here waits for the answer."""
        return False

    @property
    def back(self) -> None:
        """One answer to each request."""


def socket_path(data_dir: Path) -> Path:
    """``$RUNTIME_DIRECTORY/control.sock``, else in *data_dir*."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return (Path(runtime) if runtime else data_dir) / "control.sock"


class Control:
    """Answers ``{"do", "args"}`` with ``{"ok": true, "result"}`` or ``{"ok": false, "error"}``.

    Whoever may open the socket (its owner and its group) may read. Root, the agent's own user
    and members of *admin_group* may also change things.
    """

    def __init__(
        self,
        path: Path,
        verbs: Mapping[str, Verb],
        audit: Trail | None = None,
        admin_group: str = ADMIN_GROUP,
    ) -> None:
        self.path, self._verbs, self._audit = path, verbs, audit
        self._admin_gid = _gid(admin_group)
        self._peers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer until cancelled. `PermanentError` when the socket cannot be had."""
        async with self._listening():
            await asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        await asyncio.to_thread(_clear, self.path)
        with _bound(self.path) as sock:  # from here on whatever ends this leaves nothing behind
            server = await asyncio.start_unix_server(
                self._connected, sock=sock, limit=REQUEST_LIMIT
            )
            try:
                yield
            finally:
                server.close()
                while self._peers:  # more may have been let in meanwhile
                    for task in self._peers:
                        task.cancel()
                    await asyncio.gather(*self._peers, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._peers.add(task)
        task.add_done_callback(partial(self._gone, writer))

    def _gone(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        """Whoever asked is never left waiting: a task may be cancelled before its first step."""
        writer.close()
        self._peers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("control.defect", exc_info=error)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = self._peer(writer.get_extra_info("socket"))
        with suppress(OSError, TimeoutError):  # gone, or idle for too long
            if len(self._peers) > PEERS_LIMIT:
                await _send(writer, _refusal("E772", "too many connections", "Close some."))
                return
            while await self._one(reader, writer, peer):
                pass

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer
    ) -> bool:
        """Answer one line; False when there is nothing more to expect."""
        try:
            async with asyncio.timeout(IDLE_S):
                line = await reader.readline()
        except ValueError:  # longer than the limit: what follows cannot be told apart
            what = f"the request is larger than {REQUEST_LIMIT} bytes"
            await _send(writer, _refusal("E772", what, "Send one JSON object a line."))
            return False
        if not line:
            return False
        await _send(writer, await self._answer(line, peer))
        return True

    async def _answer(self, line: bytes, peer: Peer) -> dict[str, Any]:
        try:
            request = orjson.loads(line)
        except ValueError as e:
            return _refusal("E772", f"the request is no JSON ({e})", "Send one object a line.")
        name, args = _parts(request)
        if name is None or args is None:
            return _refusal("E772", 'the request is not {"do": VERB, "args": {}}', "")
        verb = self._verbs.get(name)
        if verb is None:
            return _refusal("E771", f"unknown verb `{name}`", f"Known: {', '.join(self._verbs)}.")
        try:
            await self._allow(name, verb, args, peer)
        except PermanentError as e:
            return {"ok": False, "error": describe(e)}
        result, error = await outcome(name, verb, args, peer)
        if error is not None:
            return {"ok": False, "error": describe(error)}
        return {"ok": True, "result": result}

    async def _allow(self, name: str, verb: Verb, args: Mapping[str, Any], peer: Peer) -> None:
        """Note whoever asks for a change; raises `PermanentError` when it is not for them."""
        if not verb.admin:
            return
        facts = {"verb": name, "args": dict(args), "pid": peer.pid, "allowed": peer.admin}
        log.info("control.asked", uid=peer.uid, **facts)
        if self._audit is not None:
            await self._audit.write("control", peer.actor, facts)
        if not peer.admin:
            raise PermanentError(
                f"user {peer.uid} may not ask for `{name}`",
                where=str(self.path),
                fix=f"Use sudo, or join the group {ADMIN_GROUP} and log in again.",
                code="E770",
            )

    def _peer(self, sock: socket.socket) -> Peer:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, gid = struct.unpack("3i", raw)
        admin = uid in (0, os.geteuid()) or self._admin_gid in {gid, *_groups(sock)}
        return Peer(uid, gid, pid, admin)


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """Supplementary groups of the far end; none when there are more than fit."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_ROOM)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}i", raw)


def describe(error: AgentError) -> dict[str, Any]:
    """An error as plain data: code, what, where, fix; for a refused file also every problem."""
    facts: dict[str, Any] = {
        "code": error.code,
        "what": error.what,
        "where": error.where,
        "fix": error.fix,
    }
    if isinstance(error, Declined):
        facts |= {"result": error.result, "facts": error.facts}
    if isinstance(error, ConfigProblems):
        facts |= {"text": error.render(), "problems": error.as_json()}
    return facts


def _refusal(code: str, what: str, fix: str) -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "what": what, "where": "", "fix": fix}}


def _parts(request: object) -> tuple[str | None, dict[str, Any] | None]:
    if not isinstance(request, dict):
        return None, None
    name, args = request.get("do"), request.get("args", {})
    return name if isinstance(name, str) else None, args if isinstance(args, dict) else None


async def _send(writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
    writer.write(orjson.dumps(answer, default=str, option=_DUMP))
    await writer.drain()


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


@contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """A socket bound at *path*, not yet listening, open to its owner and its group; its file goes
    with it, unless another one has taken its place.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.bind(str(path))
            path.chmod(_MODE)
            inode = path.stat().st_ino
        except OSError as e:
            raise PermanentError(
                f"the control socket cannot be made ({e.strerror or e})",
                where=str(path),
                fix="The folder must exist, belong to the agent's user and be not too deep.",
                code="E774",
            ) from e
        try:
            yield sock
        finally:
            with suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()


def _clear(path: Path) -> None:
    """Remove what a dead agent left; refuse to take the place of a living one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
            return
        except OSError:
            return  # not there, or told better by bind
    raise PermanentError(
        "another agent answers on this control socket",
        where=str(path),
        fix="Stop the other one, or give this one its own data_dir.",
        code="E773",
    )
