"""Asks the running agent over its control socket. Standard library only: it must start at once."""

import json
import socket
import time
from pathlib import Path
from typing import Any, Final

from agent.core.errors import AgentError

WITHIN_S: Final = 10.0


class Refusal(AgentError):
    """The agent answered with an error.

    Attributes:
        text: What it would print itself, where that says more: every problem of a refused file.
    """

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(
            str(error.get("what", "refused")),
            where=str(error.get("where", "")),
            fix=str(error.get("fix", "")),
            code=str(error.get("code", "")),
        )
        self.text = str(error.get("text", ""))

    def render(self) -> str:
        """The text as the agent made it."""
        return self.text


def ask(path: Path, verb: str, within_s: float = WITHIN_S, **args: Any) -> Any:
    """The result of *verb*, within *within_s* seconds.

    Raises `Refusal` with the agent's own error, `AgentError` E775 when no agent listens, E776
    when this user may not ask at all, E777 when no answer came.
    """
    request = json.dumps({"do": verb, "args": args}).encode() + b"\n"
    deadline = time.monotonic() + within_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(within_s)
        _connect(sock, path)
        try:
            sock.sendall(request)
            line = _line(sock, deadline)
        except TimeoutError as e:
            raise AgentError(
                f"no answer to `{verb}` within {within_s:g} s",
                where=str(path),
                fix="The agent goes on working on it. See: journalctl -u edge-agent.",
                code="E777",
            ) from e
        except OSError as e:
            raise _no_answer(path) from e
    try:
        answer = json.loads(line)
    except ValueError as e:
        raise _no_answer(path) from e
    if not answer.get("ok"):
        raise Refusal(answer.get("error") or {})
    return answer.get("result")


def _connect(sock: socket.socket, path: Path) -> None:
    try:
        sock.connect(str(path))
    except PermissionError as e:
        raise AgentError(
            "this user may not ask the agent",
            where=str(path),
            fix="Use sudo, or join the group of the socket and log in again.",
            code="E776",
        ) from e
    except OSError as e:
        raise AgentError(
            "the agent does not run: nobody listens on its control socket",
            where=str(path),
            fix="Start it (systemctl start edge-agent), or name another with --socket/--config.",
            code="E775",
        ) from e


def _line(sock: socket.socket, deadline: float) -> bytes:
    """One line, or what came before the far end closed."""
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        part = sock.recv(65536)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _no_answer(path: Path) -> AgentError:
    return AgentError(
        "the agent closed the connection without an answer",
        where=str(path),
        fix="It may just be ending; ask again, or see: journalctl -u edge-agent.",
        code="E777",
    )
