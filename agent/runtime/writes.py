"""Writing to the plant: what is allowed, once, at which pace, and every attempt in the trail."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from agent.config.schema import WriteRule, WritesSection
from agent.core.errors import AgentError
from agent.core.ports import AuditTrail, Clock
from agent.core.requests import Caller, Declined
from agent.core.stats import Stats
from agent.runtime.write_switch import switched_on

log = structlog.get_logger()

_STEP_NEAR: Final = 1e-6
"""How far, in steps, a value may be off its grid: binary fractions are."""


class Writes:
    """The verb ``write``. The rules are looked up anew for each request: a reload holds at once."""

    def __init__(
        self,
        rules: Callable[[], WritesSection | None],
        source: Callable[[str], Any],
        audit: AuditTrail,
        clock: Clock,
        stats: Stats,
    ) -> None:
        """*source* gives the running source of a device, or None."""
        self._rules, self._source = rules, source
        self._audit, self._clock, self._stats = audit, clock, stats
        self._last_s: dict[str, float] = {}

    async def write(self, args: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """Write ``args["value"]`` to ``args["tag"]``; `Declined` says why it is not there."""
        new = args.get("value")
        new = new if _is_number(new) else f"{new!r:.40}"
        facts: dict[str, Any] = {"tag": f"{args.get('tag')!s:.200}", "new": new, "old": None}
        try:
            facts |= await self._write(args, caller)
        except Declined as e:
            await self._note(caller, facts | e.facts | {"result": e.result, "why": e.what})
            raise
        except AgentError as e:
            await self._note(caller, facts | {"result": "failed", "why": str(e)})
            raise
        except asyncio.CancelledError:
            await self._note(caller, facts | {"result": "unknown", "why": "the agent was stopped"})
            raise
        await self._note(caller, facts)
        return facts

    async def _write(self, args: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        tag, value = args.get("tag"), args.get("value")
        rule = self._rule(tag)
        number = _number(value, str(tag))
        _within(number, rule, str(tag))

        def still() -> None:
            """Once more when the line is ours: waiting for it may have taken a while."""
            if caller.expired():
                raise Declined("expired", "the request expired while it waited for its turn",
                               where=str(tag), code="E794")  # fmt: skip
            self._rule(tag)

        device, _, short = str(tag).partition("/")
        source = self._source(device)
        if source is None:
            raise Declined("not_sent", f"device {device} does not run", where=str(tag), code="E352")
        self._pace(str(tag), rule)
        written: dict[str, Any] = await source.writer().write(short, number, rule, still)
        return written

    def _rule(self, tag: object) -> WriteRule:
        """The rule of *tag*; the read-only switch comes before everything else."""
        rule = switched_on(self._rules(), f"{tag!s:.200}").tags.get(str(tag))
        if rule is None:
            raise Declined(
                "not_listed",
                f"tag `{tag}` may not be written",
                fix="An administrator can add it under `writes: tags:`.",
                code="E357",
            )
        return rule

    def _pace(self, tag: str, rule: WriteRule) -> None:
        now_s = self._clock.mono_s()
        wait_s = self._last_s.get(tag, float("-inf")) + rule.every_s - now_s
        if wait_s > 0:
            raise Declined(
                "rate",
                f"this tag is written at most every {rule.every_s:g} s",
                where=tag,
                fix=f"Wait {wait_s:.1f} s.",
                code="E358",
                facts={"wait_s": round(wait_s, 3)},
            )
        self._last_s[tag] = now_s

    async def _note(self, caller: Caller, facts: Mapping[str, Any]) -> None:
        self._stats.add("writes.asked")
        log.info("tag.write", actor=caller.actor, **facts)
        await self._audit.write("write", caller.actor, facts)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -1e308 < value < 1e308


def _number(value: object, tag: str) -> float:
    """A whole number stays one: 64-bit integers do not fit into a float."""
    if isinstance(value, int | float) and _is_number(value):
        return int(value) if isinstance(value, bool) else value
    what = f"`value` must be a number, true or false, not {value!r:.40}"
    raise Declined("malformed", what, where=tag, code="E350")


def _within(value: float, rule: WriteRule, tag: str) -> None:
    low, high = rule.min, rule.max
    if (low is not None and value < low) or (high is not None and value > high):
        what = f"{value:g} is outside the limits {low} to {high}"
        raise Declined("out_of_range", what, where=tag, code="E351")
    if rule.step is not None:
        steps = (value - (low or 0.0)) / rule.step
        if abs(steps - round(steps)) > _STEP_NEAR:
            what = f"{value:g} is none of the steps of {rule.step:g} from {low or 0.0:g} on"
            raise Declined("step", what, where=tag, code="E351")
