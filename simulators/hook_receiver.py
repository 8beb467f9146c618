"""The far side of a webhook on loopback: takes signed events and samples, and may refuse them."""

import base64
import hashlib
import hmac
import json
import ssl
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from simulators.loopback import LoopbackServer


@dataclass(frozen=True, slots=True)
class Request:
    """One request that came, as it was.

    Attributes:
        signed: Is its signature that of the secret both sides know.
        status: How it was answered.
    """

    how: str
    path: str
    event: str
    body: bytes
    signed: bool
    status: int

    @property
    def facts(self) -> dict[str, Any]:
        """The event."""
        found: dict[str, Any] = json.loads(self.body)
        return found


class HookReceiver(LoopbackServer):
    """Takes POST and PUT anywhere.

    Attributes:
        status: How the next requests are answered.
        stuck: They are not answered at all.
        requests: Every request so far.
    """

    def __init__(self, secret: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(_handler(self), tls)
        self.secret, self.status, self.stuck = secret, 204, False
        self.requests: list[Request] = []

    def take(self, one: BaseHTTPRequestHandler) -> int:
        """Note a request; the status of its answer."""
        body = one.rfile.read(int(one.headers.get("content-length", 0)))
        event, at_s = one.headers.get("webhook-id", ""), one.headers.get("webhook-timestamp", "")
        key, said = self.secret.encode(), one.headers.get("webhook-signature", "")
        made = hmac.new(key, f"{event}.{at_s}.".encode() + body, hashlib.sha256).digest()
        signed = hmac.compare_digest(said, f"v1,{base64.b64encode(made).decode()}")
        self.requests.append(Request(one.command, one.path, event, body, signed, self.status))
        return self.status


def _handler(server: HookReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = server.take(self)
            while server.stuck and not server.wait(0.05):
                pass
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    return Handler
