"""Doing what a verb says; a defect in one becomes an answer, and the agent goes on."""

from collections.abc import Mapping
from typing import Any

import structlog

from agent.core.errors import AgentError, PermanentError
from agent.core.requests import Caller, Verb

log = structlog.get_logger()


async def outcome(
    name: str, verb: Verb, args: Mapping[str, Any], caller: Caller
) -> tuple[Any, AgentError | None]:
    """What *verb* gives, and why it gave nothing."""
    try:
        return await verb.handler(args, caller), None
    except AgentError as e:
        return None, e
    except Exception as e:
        log.exception("verb.defect", verb=name)
        return None, PermanentError(
            f"{name} failed: {type(e).__name__}: {e}",
            fix="See the journal: journalctl -u edge-agent.",
            code="E779",
        )
