"""The page over HTTP: the agent's verbs as JSON, a stream of changes, numbers for Prometheus."""

import asyncio
import base64
import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.config.web import WebSection
from agent.core.errors import PermanentError
from agent.core.requests import Verb
from agent.runtime.control import describe
from agent.runtime.verbs import outcome
from agent.web import downloads
from agent.web.accounts import Accounts, Role, Session
from agent.web.desk import Desk
from agent.web.metrics import CONTENT_TYPE, exposition
from agent.web.ticker import Ticker

STATIC: Final = Path(__file__).parent / "static"

COOKIE: Final = "edge_agent"

TECHNICIAN: Final = frozenset(
    {
        "alarms.ack", "alarms.shelve", "alarms.unshelve", "alarms.confirm", "alarms.dismiss",
        "maintenance", "force", "read",
    }
)  # fmt: skip
"""What a technician may change; every other verb that changes something is an admin's."""

ASKING: Final = frozenset({"read"})
"""Verbs that change nothing and still trouble a device: nobody asks them without a login."""

MAX_BODY: Final = 1024 * 1024

_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever asks over HTTP (port `Caller`)."""

    user: str
    role: Role

    @property
    def actor(self) -> str:
        """The name in the audit trail."""
        return f"web:{self.user}"

    def expired(self) -> bool:
        """Whoever asks here waits for the answer."""
        return False

    @property
    def back(self) -> None:
        """One answer to each request."""


class Page:
    """Every route. What anonymous visitors may see depends on where the page listens."""

    def __init__(self, desk: Desk, section: WebSection) -> None:
        self._desk, self._section = desk, section
        self.accounts = Accounts(desk.folder)
        self._ticker = Ticker(desk.status)

    def app(self) -> ASGIApp:
        """The application for a server."""
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics),
                Route("/events", self._events),
                Route("/download/export", self._export),
                Route("/download/bundle", self._bundle),
                Route("/api/me", self._me),
                Route("/api/login", self._login, methods=["POST"]),
                Route("/api/enrol", self._enrol, methods=["POST"]),
                Route("/api/logout", self._logout, methods=["POST"]),
                Route("/api/{verb}", self._ask, methods=["GET", "POST"]),
                Mount("/static", StaticFiles(directory=STATIC)),
                Mount("/charts", StaticFiles(directory=charts())),
            ],
            middleware=[Middleware(_Guard)],
        )

    # Pages

    async def _index(self, _request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def _health(self, _request: Request) -> Response:
        """200 while the agent runs as it should; 503 with the reasons when it is degraded."""
        status = self._desk.status()
        code = 200 if status["state"] == "running" else 503
        seen = {"state": status["state"], "version": status["version"]}
        if self._section.loopback:
            seen["reasons"] = status["reasons"]
        return _json(seen, code)

    async def _metrics(self, request: Request) -> Response:
        allowed = self._section.metrics == "open" or self._visitor(request) is not None
        if not allowed and not await self._basic(request):
            return Response(status_code=401, headers={"www-authenticate": "Basic"})
        return Response(exposition(self._desk), media_type=CONTENT_TYPE)

    async def _basic(self, request: Request) -> bool:
        """Is there an account with the name and the password of basic authentication."""
        kind, _, told = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(told, validate=True).decode().partition(":")
        except ValueError:
            return False
        address = request.client.host if request.client else ""
        if kind.lower() != "basic":
            return False
        try:
            await asyncio.to_thread(self.accounts.check, user, password, address)
        except PermanentError:
            return False
        return True

    async def _events(self, request: Request) -> Response:
        """Server-sent events: what changed, each second, the same text for all who listen."""
        if self._visitor(request) is None:
            return _unknown()
        return StreamingResponse(self._ticker.listen(), media_type="text/event-stream")

    async def _export(self, request: Request) -> Response:
        """Samples as CSV or Parquet: ``tag`` (many), ``from`` (``24h``), ``format``."""
        if self._visitor(request) is None:
            return _unknown()
        asked = request.query_params
        tags, since, form = asked.getlist("tag"), asked.get("from", "24h"), asked.get("format", "")
        known = self._desk.status()["tags"]
        if not tags or not set(tags) <= known.keys() or not re.fullmatch(r"\d+[smhd]", since):
            what, fix = "this is no wish that can be met", "Give `tag`, and `from` like 24h."
            return _json({"error": _refused("E780", what, fix)}, 400)
        return await downloads.export(self._desk.config, tags, since, _format(form))

    async def _bundle(self, request: Request) -> Response:
        """The diagnostic archive; on loopback it is an admin's, too: it holds the configuration."""
        session = self._session(request)
        if session is None or session.role < Role.ADMIN:
            return _unknown()
        await self._desk.audit.write("web", f"web:{session.user}", {"verb": "bundle"})
        return await downloads.bundle(self._desk.config)

    # Who

    def _session(self, request: Request) -> Session | None:
        return self.accounts.session(request.cookies.get(COOKIE))

    def _visitor(self, request: Request) -> Visitor | None:
        """Who looks; None when that is for nobody. On loopback everybody may look."""
        session = self._session(request)
        if session is not None:
            return Visitor(session.user, session.role)
        return Visitor("anonymous", Role.VIEWER) if self._section.loopback else None

    async def _me(self, request: Request) -> Response:
        session, visitor = self._session(request), self._visitor(request)
        return _json(
            {
                "user": visitor.user if visitor else None,
                "role": visitor.role.name.lower() if visitor else None,
                "csrf": session.csrf if session else None,
                "accounts": bool(self.accounts.known()),
            }
        )

    async def _login(self, request: Request) -> Response:
        return await self._enter(request, self.accounts.log_in, "user", "password")

    async def _enrol(self, request: Request) -> Response:
        return await self._enter(request, self.accounts.enrol, "code", "user", "password")

    async def _enter(
        self, request: Request, way: Callable[..., tuple[str, Session]], *fields: str
    ) -> Response:
        """Log in one way or the other: the cookie, and who that is."""
        given = await _body(request)
        words = [str(given.get(field, ""))[:200] for field in fields]
        address = request.client.host if request.client else ""
        try:
            token, session = await asyncio.to_thread(way, *words, address)
        except PermanentError as e:
            await self._audit("web.refused", f"web:{words[fields.index('user')]}", address)
            return _json({"error": describe(e)}, 429 if e.code == "E763" else 401)
        await self._audit("web.login", f"web:{session.user}", address)
        answer = _json({"user": session.user, "role": session.role.name.lower()})
        secure = self._section.cert is not None
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return answer

    async def _audit(self, kind: str, actor: str, address: str) -> None:
        await self._desk.audit.write(kind, actor, {"address": address})

    async def _logout(self, request: Request) -> Response:
        session = self._session(request)
        if session is None or request.headers.get("x-csrf") != session.csrf:
            return _unknown()
        self.accounts.log_out(request.cookies.get(COOKIE))
        answer = _json({})
        answer.delete_cookie(COOKIE)
        return answer

    # What

    async def _ask(self, request: Request) -> Response:
        """One verb: GET looks, POST changes; a change carries the session's token."""
        name = request.path_params["verb"]
        visitor, verb = self._visitor(request), self._desk.verbs.get(name)
        if visitor is None:
            return _unknown()
        if verb is None:
            return _json({"error": _refused("E771", f"unknown verb `{name}`", "")}, 404)
        if (no := self._why_not(request, name, verb, visitor)) is not None:
            return no
        args: Mapping[str, Any] = dict(request.query_params)
        if request.method == "POST":
            args = await _body(request)
        if verb.admin:
            facts = {"verb": name, "args": dict(args)}
            await self._desk.audit.write("web", visitor.actor, facts)
        result, error = await outcome(name, verb, args, visitor)
        if error is not None:
            return _json({"error": describe(error)}, 409)
        return _json(result)

    def _why_not(
        self, request: Request, name: str, verb: Verb, visitor: Visitor
    ) -> Response | None:
        """The refusal; None when *visitor* may ask for the verb in this way."""
        session, changes = self._session(request), verb.admin or name in ASKING
        if changes and (session is None or request.method != "POST"):
            return _unknown()
        needed = Role.TECHNICIAN if name in TECHNICIAN else Role.ADMIN
        if changes and visitor.role < needed:
            what = f"{visitor.user} may not ask for `{name}`"
            return _json(
                {"error": _refused("E765", what, f"Log in as {needed.name.lower()}.")}, 403
            )
        told = request.headers.get("x-csrf")
        if request.method == "POST" and session is not None and told != session.csrf:
            what, fix = "this does not come from the page", "Load the page anew."
            return _json({"error": _refused("E766", what, fix)}, 403)
        return None


class _Guard:
    """Security headers on every answer; only names and addresses that are this machine's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if not _ours(host):
            what, fix = "this is not the name of this gateway", "Open the page by its IP address."
            answer: Response = _json({"error": _refused("E767", what, fix)}, 421)
            await answer(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def _ours(host: str) -> bool:
    """An address, ``localhost`` or this machine's name: against pages that rebind a name to us."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.removeprefix("[").removesuffix("]")
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    own = socket.gethostname()
    return name.lower() in {"localhost", own.lower(), own.partition(".")[0].lower() + ".local"}


def charts() -> Path:
    """Where the package that carries uPlot has put it."""
    found = find_spec("youplot")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("youplot", name="youplot")
    return Path(found.submodule_search_locations[0]) / "vendor"


def _format(asked: str) -> str:
    return asked if asked in downloads.FORMATS else "csv"


async def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object that was sent; an empty one when it is none."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            return {}
    try:
        found = orjson.loads(bytes(data) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(content: object, status: int = 200) -> Response:
    data = orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS)
    return Response(data, status, media_type="application/json")


def _refused(code: str, what: str, fix: str) -> dict[str, str]:
    return {"code": code, "what": what, "where": "", "fix": fix}


def _unknown() -> Response:
    return _json({"error": _refused("E765", "this needs a login", "Log in.")}, 401)
