"""The control socket, asked for real."""

import asyncio
import grp
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cli.client import Refusal, ask
from agent.config.report import ConfigProblems, Problem
from agent.core.errors import AgentError, PermanentError
from agent.core.requests import Verb
from agent.runtime.control import REQUEST_LIMIT, Control, Peer, socket_path
from agent.runtime.loop import loop_factory
from tests.tools import until

NOBODY = 65534
READERS, ADMINS = "daemon", "bin"  # groups that every Debian has


class Trail:
    """An audit trail that remembers."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, dict[str, Any]]] = []

    async def write(self, kind: str, actor: str, facts: Mapping[str, Any]) -> None:
        self.entries.append((kind, actor, dict(facts)))


async def _echo(args: Mapping[str, Any], peer: Peer) -> Any:
    return {"args": dict(args), "uid": peer.uid, "pid": peer.pid}


async def _refuse(args: Mapping[str, Any], peer: Peer) -> Any:
    raise PermanentError("there is no model `x`", where="models", fix="Name one.", code="E640")


async def _refuse_file(args: Mapping[str, Any], peer: Peer) -> Any:
    raise ConfigProblems("f.yaml", "a: 1\n", [Problem("E101", "unknown key `a`", 1, 1)])


async def _break(args: Mapping[str, Any], peer: Peer) -> Any:
    return args["missing"]


VERBS = {
    "status": Verb(_echo),
    "reload": Verb(_echo, admin=True),
    "refuse": Verb(_refuse),
    "refuse_file": Verb(_refuse_file),
    "break": Verb(_break),
}


@asynccontextmanager
async def served(path: Path, trail: Trail | None = None) -> AsyncIterator[Path]:
    task = asyncio.create_task(Control(path, VERBS, trail, ADMINS).run())
    try:
        await until(lambda: task.done() or _listens(path))
        if task.done():
            task.result()
        yield path
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return True


async def raw(path: Path, *requests: bytes) -> list[dict[str, Any]]:
    """The answers to bytes as they are."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(b"".join(requests))
        writer.write_eof()
        return [json.loads(line) async for line in reader]
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_a_verb_gets_its_args_and_who_asks(tmp_path: Path) -> None:
    """The handler sees the arguments and the kernel's word on uid and pid."""
    async with served(tmp_path / "control.sock") as path:
        answer = await asyncio.to_thread(ask, path, "status", device="press1")
    assert answer == {"args": {"device": "press1"}, "uid": os.geteuid(), "pid": os.getpid()}


async def test_several_requests_on_one_connection(tmp_path: Path) -> None:
    """One connection may ask again and again; answers come in order."""
    async with served(tmp_path / "control.sock") as path:
        lines = [b'{"do":"status","args":{"n":%d}}\n' % n for n in range(3)]
        answers = await raw(path, *lines)
    assert [a["result"]["args"]["n"] for a in answers] == [0, 1, 2]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"hello\n", "E772"),
        (b"\xff\xfe\n", "E772"),
        (b"[1]\n", "E772"),
        (b'{"do":7}\n', "E772"),
        (b'{"do":"status","args":[]}\n', "E772"),
        (b"[" * 100_000 + b"\n", "E772"),
        (b'{"do":"explode"}\n', "E771"),
        (b" " * (REQUEST_LIMIT + 10) + b"\n", "E772"),
    ],
)
async def test_malformed_requests_are_answered(tmp_path: Path, request_: bytes, code: str) -> None:
    """Whatever is sent, the answer is an error with a code, and the socket goes on serving."""
    async with served(tmp_path / "control.sock") as path:
        (answer,) = await raw(path, request_)
        assert (answer["ok"], answer["error"]["code"]) == (False, code)
        assert await asyncio.to_thread(ask, path, "status")


async def test_errors_keep_what_where_and_fix(tmp_path: Path) -> None:
    """An `AgentError` of the handler arrives with all its parts; a refused file with its text."""
    async with served(tmp_path / "control.sock") as path:
        with pytest.raises(Refusal, match="no model") as refused:
            await asyncio.to_thread(ask, path, "refuse")
        assert (refused.value.code, refused.value.where) == ("E640", "models")
        with pytest.raises(Refusal) as refused:
            await asyncio.to_thread(ask, path, "refuse_file")
        assert "--> f.yaml:1:1" in refused.value.render()


async def test_a_defect_in_a_handler_is_an_answer(tmp_path: Path) -> None:
    """A bug in one verb is told to who asked; it ends neither the socket nor the agent."""
    async with served(tmp_path / "control.sock") as path:
        with pytest.raises(Refusal) as refused:
            await asyncio.to_thread(ask, path, "break")
        assert refused.value.code == "E779"
        assert await asyncio.to_thread(ask, path, "status")


async def test_admin_verbs_are_audited_with_the_uid(tmp_path: Path) -> None:
    """Whatever changes the agent is in the audit trail with who asked; reading is not."""
    trail = Trail()
    async with served(tmp_path / "control.sock", trail) as path:
        await asyncio.to_thread(ask, path, "status")
        await asyncio.to_thread(ask, path, "reload")
    ((kind, actor, facts),) = trail.entries
    assert (kind, actor) == ("control", f"uid:{os.geteuid()}")
    assert (facts["verb"], facts["allowed"]) == ("reload", True)


async def test_a_stale_socket_is_replaced_and_removed_at_the_end(tmp_path: Path) -> None:
    """What a killed agent left does not stop the next one; an orderly end leaves nothing."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with served(path):
        assert path.stat().st_mode & 0o777 == 0o660
    assert not path.exists()


@pytest.mark.parametrize("turns", range(5))
async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path, turns: int) -> None:
    """In whatever turn of the loop the start is broken off: no file, no open socket stays."""
    path = tmp_path / "control.sock"
    task = asyncio.create_task(Control(path, VERBS, None, ADMINS).run())
    async with asyncio.timeout(5):
        while not path.exists():
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not path.exists()


async def test_a_living_agent_is_not_pushed_aside(tmp_path: Path) -> None:
    """A second agent on the same socket gets a clear error, and the first goes on."""
    async with served(tmp_path / "control.sock") as path:
        with pytest.raises(PermanentError) as refused:
            await Control(path, VERBS).run()
        assert refused.value.code == "E773"
        assert await asyncio.to_thread(ask, path, "status")


async def test_a_socket_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """A folder that is not there, or a path too long for a socket, says so."""
    for path in (tmp_path / "no" / "control.sock", tmp_path / ("x" * 120)):
        with pytest.raises(PermanentError) as refused:
            async with served(path):
                pass
        assert refused.value.code == "E774"


def test_nobody_listening_is_not_running(tmp_path: Path) -> None:
    """The client tells `not running` apart from everything else."""
    with pytest.raises(AgentError) as refused:
        ask(tmp_path / "control.sock", "status")
    assert refused.value.code == "E775"


async def test_no_answer_in_time_is_try_again(tmp_path: Path) -> None:
    """An agent that hangs does not hang the client: E777 after its time."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute.sock"))
        mute.listen()
        with pytest.raises(AgentError) as refused:
            await asyncio.to_thread(ask, tmp_path / "mute.sock", "status", 0.05)
    assert refused.value.code == "E777"


_ASK_AS = """
import os, sys
from pathlib import Path
from agent.cli.client import ask
from agent.core.errors import AgentError
path, verb, *groups = sys.argv[1:]
os.setgroups([int(g) for g in groups]); os.setgid(65534); os.setuid(65534)
try:
    ask(Path(path), verb)
except AgentError as e:
    print(e.code)
else:
    print("ok")
"""


async def as_nobody(path: Path, verb: str, *groups: int) -> str:
    words = [sys.executable, "-c", _ASK_AS, str(path), verb, *map(str, groups)]
    done = await asyncio.to_thread(
        subprocess.run, words, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


@pytest.mark.root
async def test_permission_follows_the_groups(open_folder: Path) -> None:
    """Outside the socket's group: nothing. In it: read. In the admin group as well: change."""
    readers, admins = grp.getgrnam(READERS).gr_gid, grp.getgrnam(ADMINS).gr_gid
    trail = Trail()
    async with served(open_folder / "control.sock", trail) as path:
        os.chown(path, 0, readers)
        assert await as_nobody(path, "status") == "E776"
        assert await as_nobody(path, "status", readers) == "ok"
        assert await as_nobody(path, "reload", readers) == "E770"
        assert await as_nobody(path, "reload", readers, admins) == "ok"
    assert [(actor, facts["allowed"]) for _, actor, facts in trail.entries] == [
        (f"uid:{NOBODY}", False),
        (f"uid:{NOBODY}", True),
    ]


def test_socket_path_is_in_the_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under systemd the socket is in RuntimeDirectory, else with the data."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert socket_path(Path("/data")) == Path("/data/control.sock")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/edge-agent:/run/other")
    assert socket_path(Path("/data")) == Path("/run/edge-agent/control.sock")


@pytest.mark.parametrize("turns", range(8))
def test_nobody_is_left_waiting_when_it_ends(tmp_path: Path, turns: int) -> None:
    """Whoever connects as the socket goes, however many turns of the loop before, sees it closed:
    the process may live on.
    """

    async def met() -> bytes:
        path = tmp_path / "control.sock"
        task = asyncio.create_task(Control(path, VERBS).run())
        await until(lambda: _listens(path))
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(str(path))
            late.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            try:
                async with asyncio.timeout(5):
                    return await asyncio.get_running_loop().sock_recv(late, 1)
            except ConnectionResetError:
                return b""

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert runner.run(met()) == b""
