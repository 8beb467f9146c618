"""The agent as a process of its own: how tests, the demo, SKAB and the benchmarks run it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

_LINE_LIMIT: Final = 16 * 1024 * 1024
_LOG_TAIL: Final = 4000


class AgentEnded(RuntimeError):
    """The agent is not there: it never became ready, or ended by itself."""


class Refused(RuntimeError):
    """The agent answered a request with an error; ``args[0]`` is what it said."""


class AgentProcess:
    """``python -m agent run CONFIG`` as a child process, ready inside the ``async with``.

    The child is the leader of its own session: a Ctrl-C in the terminal reaches only whoever
    started it. Leaving the block sends SIGTERM, waits, and kills whatever is left of the session.

    Attributes:
        config: The configuration file.
        data_dir: Where that file says the agent keeps its data.
        socket: Its control socket.
        log: What the agent wrote to stdout and stderr.
    """

    def __init__(
        self,
        config: Path | str,
        *,
        ready_within_s: float = 30.0,
        grace_s: float = 20.0,
        env: Mapping[str, str] | None = None,
        command: tuple[str, ...] = (),
        program: tuple[str, ...] = (sys.executable, "-m", "agent"),
    ) -> None:
        """Take note of what to run.

        Args:
            config: The configuration file; ``data_dir`` is read from it.
            ready_within_s: How long the control socket may take to answer.
            grace_s: How long the agent may take to end after SIGTERM.
            env: Added to the environment of the child.
            command: Put before the program, for example ``("faketime", "-f", "+1h")``.
            program: What to run instead of the agent of this interpreter.
        """
        self.config = Path(config)
        self.data_dir = _data_dir(self.config)
        self.log = self.config.with_suffix(".log")
        self._ready_within_s, self._grace_s = ready_within_s, grace_s
        self._env, self._command = dict(env or {}), (*command, *program, "run")
        self.socket = Path(self._env.get("RUNTIME_DIRECTORY", self.data_dir)) / "control.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the daemon."""
        return self._running().pid

    @property
    def returncode(self) -> int | None:
        """How the daemon ended; None while it runs."""
        return self._running().poll()

    async def __aenter__(self) -> Self:
        self._start()
        try:
            await self._ready()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def ask(self, verb: str, **args: Any) -> Any:
        """The result of one request over the control socket.

        Raises:
            Refused: The agent answered with an error.
            OSError: Nobody listens, or the connection ended before the answer.
        """
        reader, writer = await asyncio.open_unix_connection(str(self.socket), limit=_LINE_LIMIT)
        try:
            request = {"do": verb, "args": args} if args else {"do": verb}
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            line = await reader.readline()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        if not line:
            raise ConnectionResetError(f"{self.socket}: closed without an answer")
        answer = json.loads(line)
        if not answer.get("ok"):
            raise Refused(answer.get("error"))
        return answer.get("result")

    async def terminate(self) -> int:
        """Ask the daemon to end (SIGTERM), and wait. Its return code.

        One that does not end is aborted: its log then ends with where each thread was.
        """
        process = self._running()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            if not await self._ended(self._grace_s):
                process.send_signal(signal.SIGABRT)
                await self._ended(self._grace_s)
        return process.wait()

    async def kill(self) -> None:
        """End the daemon at once, as a power cut would, and wait until it is gone."""
        process = self._running()
        process.kill()
        await self._ended(self._grace_s)
        process.wait()

    def tail(self, chars: int = _LOG_TAIL) -> str:
        """The end of what the agent wrote."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")[-chars:]
        except FileNotFoundError:
            return ""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AgentEnded("the agent was not started: use `async with`")
        return self._process

    def _start(self) -> None:
        env = {k: v for k, v in os.environ.items() if k != "RUNTIME_DIRECTORY"}
        env |= {"PYTHONFAULTHANDLER": "1"} | self._env
        with suppress(FileNotFoundError):
            self.socket.unlink()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    async def _ready(self) -> None:
        process = self._running()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._ready_within_s
        while True:
            with suppress(OSError, Refused):
                await self.ask("status")
                return
            if process.poll() is not None:
                raise AgentEnded(
                    f"the agent ended with code {process.returncode} before it was ready:\n"
                    f"{self.tail()}"
                )
            if loop.time() > deadline:
                raise AgentEnded(
                    f"{self.socket} did not answer within {self._ready_within_s:g} s:\n"
                    f"{self.tail()}"
                )
            await asyncio.sleep(0.02)

    async def _ended(self, within_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while self._running().poll() is None:
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    async def _end(self) -> None:
        process = self._running()
        try:
            await self.terminate()
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _data_dir(config: Path) -> Path:
    """The ``data_dir`` of a configuration file."""
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or "data_dir" not in document:
        raise ValueError(f"{config}: no `data_dir`")
    return Path(str(document["data_dir"]))
