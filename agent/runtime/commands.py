"""Requests over a broker: believed only when everything fits, and every one is in the trail."""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import orjson
import structlog

from agent.config.schema import CommandsSection
from agent.core.errors import AgentError
from agent.core.ports import TRUSTED, AuditTrail, Clock, StateStore
from agent.core.requests import Back, Declined, Request, Verb
from agent.core.stats import Stats
from agent.runtime.command_ids import CommandIds
from agent.runtime.verbs import outcome

log = structlog.get_logger()

WAITING: Final = 32
"""Requests that may wait; more are dropped, and counted in the trail."""

RUNNING: Final = 8
"""Requests that may be worked on at once."""

REFUSALS_BURST: Final = 30
REFUSALS_PER_S: Final = 1.0
"""So many refusals are written down and answered one by one; a flood is one row a second."""

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KEYS: Final = frozenset({"v", "id", "expires", "args"})
_SHOWN: Final = 200
"""Characters of a refused payload that go into the trail."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request whose payload is what it should be; port `Caller`."""

    id: str
    expires_ns: int
    args: Mapping[str, Any]
    actor: str
    clock: Clock
    back: Back

    def expired(self) -> bool:
        return self.clock.state in TRUSTED and self.clock.wall_ns() > self.expires_ns


class Commands:
    """Takes requests from sinks, judges them one after the other, and has the verbs do them."""

    def __init__(
        self,
        rules: Callable[[], CommandsSection | None],
        verbs: Mapping[str, Verb],
        state: StateStore,
        audit: AuditTrail,
        clock: Clock,
        stats: Stats,
        durable: Callable[[], bool],
    ) -> None:
        """*rules* are asked for each request: a reload holds at once. *durable*: is the disk."""
        self._rules, self._verbs, self._audit = rules, verbs, audit
        self._clock, self._stats, self._durable = clock, stats, durable
        self._ids = CommandIds(state)
        self._waiting: deque[Request] = deque()
        self._news = asyncio.Event()
        self._running = 0
        self._dropped = 0
        self._tokens, self._filled_s = float(REFUSALS_BURST), clock.mono_s()

    def offer(self, request: Request) -> None:
        """A request has come. Never waits and never raises: it is called while reading a socket."""
        self._stats.add("commands.received")
        if len(self._waiting) >= WAITING:
            self._dropped += 1
        else:
            self._waiting.append(request)
        self._news.set()

    async def run(self) -> None:
        """Judge what comes until cancelled."""
        async with asyncio.TaskGroup() as tg:
            tg.create_task(self._summaries(), name="commands.flood")
            while True:
                await self._news.wait()
                self._news.clear()
                while self._waiting:
                    await self._admit(self._waiting.popleft(), tg)

    async def _admit(self, request: Request, tg: asyncio.TaskGroup) -> None:
        try:
            asked = self._judge(request)
            await self._take(request, asked)
        except Declined as e:
            await self._decline(request, e)
            return
        facts = {"verb": request.verb, "id": asked.id, "args": dict(asked.args)}
        log.info("command.accepted", actor=asked.actor, **facts)
        await self._audit.write("command", asked.actor, facts | {"result": "accepted"})
        self._running += 1
        tg.create_task(self._do(request, asked), name=f"command {request.verb}")

    def _judge(self, request: Request) -> _Asked:
        """The request, believed; raises `Declined` with the first thing that does not fit."""
        rules = self._rules()
        if rules is None or request.via not in rules.sinks:
            raise Declined("not_allowed", "requests from this broker are not allowed", code="E791")
        if len(request.payload) > rules.max_size:
            what = f"{len(request.payload)} bytes are more than {rules.max_size}"
            raise Declined("too_large", what, code="E790")
        if request.retained:
            raise Declined(
                "retained",
                "a retained request would be done again at each connection",
                fix="Publish it without retain, and delete the retained message.",
                code="E792",
            )
        verb = self._verbs.get(request.verb)
        if request.verb not in rules.verbs or verb is None or not verb.remote:
            raise Declined(
                "not_allowed",
                f"the verb `{request.verb:.40}` is not allowed",
                fix=f"Allowed: {', '.join(rules.verbs)}.",
                code="E791",
            )
        if request.flaw:
            raise Declined("malformed", request.flaw, code="E790")
        asked = self._parse(request)
        self._in_time(asked, rules)
        return asked

    def _parse(self, request: Request) -> _Asked:
        try:
            raw = orjson.loads(request.payload)
        except ValueError as e:
            raise Declined("malformed", f"the request is no JSON ({e})", code="E790") from e
        if not isinstance(raw, dict) or not raw.keys() <= _KEYS or raw.get("v", 1) != 1:
            what = 'the request is not {"id", "expires", "args"}'
            raise Declined("malformed", what, code="E790")
        name, args = _id(raw), raw.get("args", {})
        if name is None:
            what = "`id` is not 1 to 64 of A-Z a-z 0-9 _ . -"
            raise Declined("malformed", what, code="E790")
        if not isinstance(args, dict):
            raise Declined("malformed", "`args` is no object", code="E790")
        expires_ns = _instant(raw.get("expires"))
        back = Back(request.via, request.room, partial(_tell, request, name))
        return _Asked(name, expires_ns, args, f"mqtt:{request.via}", self._clock, back)

    def _in_time(self, asked: _Asked, rules: CommandsSection) -> None:
        if self._clock.state not in TRUSTED:
            if rules.without_clock == "accept":
                return
            raise Declined(
                "no_clock",
                f"the gateway's clock is {self._clock.state}: "
                "it cannot tell whether the request has expired",
                fix="Give it NTP, or write `without_clock: accept` under `commands:`.",
                code="E795",
            )
        ahead_s = (asked.expires_ns - self._clock.wall_ns()) / 1e9
        if ahead_s < 0:
            raise Declined("expired", f"the request expired {-ahead_s:.1f} s ago", code="E794")
        if ahead_s > rules.max_ahead_s:
            what = (
                f"`expires` is {ahead_s:.0f} s ahead, at most {rules.max_ahead_s:g} s are allowed"
            )
            raise Declined("malformed", what, code="E790")

    async def _take(self, request: Request, asked: _Asked) -> None:
        """Remember the id before anything is done."""
        rules = self._rules()
        if self._running >= RUNNING or rules is None:
            raise Declined("busy", f"{self._running} requests are being worked on", code="E797")
        now_ns = self._clock.wall_ns() if self._clock.state in TRUSTED else None
        word = await self._ids.take(asked.id, asked.expires_ns, now_ns, rules.remember)
        if word == "repeated":
            raise Declined(word, f"the id {asked.id} was used before", code="E793")
        if word:
            what = f"{rules.remember} requests that have not expired are remembered: no room"
            raise Declined(word, what, fix="Use a shorter `expires`.", code="E797")
        if self._verbs[request.verb].admin and not self._durable():
            raise Declined(
                "not_durable",
                "the disk refuses: what is changed could not be written down",
                fix="See `edge-agent status`.",
                code="E796",
            )

    async def _decline(self, request: Request, e: Declined) -> None:
        """Write down and answer a refusal; of a flood only the number."""
        self._stats.add("commands.refused")
        now_s = self._clock.mono_s()
        refill = (now_s - self._filled_s) * REFUSALS_PER_S
        self._tokens, self._filled_s = min(REFUSALS_BURST, self._tokens + refill), now_s
        if self._tokens < 1:
            self._dropped += 1
            return
        self._tokens -= 1
        name = _id_in(request.payload) if e.result != "too_large" else None
        facts = {"verb": f"{request.verb:.40}", "id": name, "result": e.result, "why": e.what}
        log.warning("command.refused", via=request.via, **facts)
        payload = request.payload[:_SHOWN].decode(errors="replace")
        await self._audit.write("command", f"mqtt:{request.via}", facts | {"payload": payload})
        await self._answer(request, name, _refusal(e))

    async def _do(self, request: Request, asked: _Asked) -> None:
        try:
            verb = self._verbs[request.verb]
            done, error = await outcome(request.verb, verb, asked.args, asked)
        finally:
            self._running -= 1
        if error is not None:
            await self._answer(request, asked.id, _refusal(error))
            return
        word = done.get("result", "done") if isinstance(done, dict) else "done"
        await self._answer(request, asked.id, {"ok": True, "result": word, "data": done})

    async def _answer(self, request: Request, name: str | None, facts: Mapping[str, Any]) -> None:
        try:
            await request.answer(name, {"id": name, "verb": request.verb, **facts})
        except AgentError as e:
            self._stats.add("commands.unanswered")
            log.warning("command.unanswered", via=request.via, id=name, error=str(e))

    async def _summaries(self) -> None:
        """Each second one row for all that were dropped."""
        while True:
            await asyncio.sleep(1.0)
            if self._dropped:
                count, self._dropped = self._dropped, 0
                log.warning("command.flood", dropped=count)
                await self._audit.write("command", "mqtt", {"result": "dropped", "count": count})
                self._stats.add("commands.dropped", count)


async def _tell(request: Request, name: str, word: str, data: Any) -> None:
    facts = {"id": name, "verb": request.verb, "ok": True, "result": word, "data": data}
    await request.answer(name, facts)


def _refusal(e: AgentError) -> dict[str, Any]:
    error = {"code": e.code, "what": e.what, "where": e.where, "fix": e.fix}
    facts: dict[str, Any] = {"ok": False, "result": "failed", "error": error}
    if isinstance(e, Declined):
        facts["result"] = e.result
        facts |= {"data": e.facts} if e.facts else {}
    return facts


def _id(raw: Mapping[str, Any]) -> str | None:
    name = raw.get("id")
    return name if isinstance(name, str) and _ID.fullmatch(name) else None


def _id_in(payload: bytes) -> str | None:
    """The id of a payload that is refused, so that whoever asked is told."""
    try:
        raw = orjson.loads(payload)
    except ValueError:
        return None
    return _id(raw) if isinstance(raw, dict) else None


def _instant(value: object) -> int:
    """ISO 8601 with its zone -> ns since 1970."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        if at is not None and at.tzinfo is not None:
            return int(at.timestamp() * 1e9)
    except (ValueError, OverflowError):
        pass
    what = "`expires` is no time with its zone, such as 2026-11-23T10:00:00Z"
    raise Declined("malformed", what, code="E790")
