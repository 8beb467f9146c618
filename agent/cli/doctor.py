"""`edge-agent doctor`: looks at everything around the agent, and says how each trouble is cured."""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.args import CONFIG, CONFIGURATION, DEGRADED, OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.app.doctor import Finding
    from agent.config.schema import Settings

HELP = "look at clock, disk, permissions, certificates, brokers, devices; each trouble has its cure"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when all is well, 1 when something was found, 78 when the file is refused."""
    from agent.config.load import ConfigProblems, load  # noqa: PLC0415 - pydantic takes its time
    from agent.plugins import installed  # noqa: PLC0415

    file = args.config or CONFIG
    try:
        settings = load(Path(file), installed())
    except ConfigProblems as problems:
        first, others = problems.problems[0], len(problems.problems) - 1
        text = f"{file}:{first.line}: {first.what}" + (f", and {others} more" if others else "")
        refused = _finding("configuration", "bad", text, f"edge-agent check {file}")
        _show([refused, *_running(args)], as_json=args.json)
        return CONFIGURATION
    found = [_finding("configuration", "ok", file), *_around(settings, args)]
    _show(found, as_json=args.json)
    return OK if all(f.verdict == "ok" for f in found) else DEGRADED


def _around(settings: "Settings", args: Namespace) -> "Iterator[Finding]":
    from agent.app.doctor import asked_from_here, examine  # noqa: PLC0415

    yield from examine(settings)
    told = list(_running(args))
    yield from told
    if told[0].verdict == "bad":

        async def asked() -> "list[Finding]":
            return [finding async for finding in asked_from_here(settings)]

        yield from asyncio.run(asked())
        if settings.devices:
            cure = f"edge-agent dry-run {args.config or CONFIG}"
            yield _finding("devices", "warning", "not asked: no agent runs", cure)


def _running(args: Namespace) -> "Iterator[Finding]":
    """The agent, and what it says of its devices and brokers if it runs."""
    from agent.app.doctor import told_by_agent  # noqa: PLC0415

    try:
        status = ask(find_socket(args), "status")
    except AgentError as e:
        yield _finding("agent", "bad", e.what, e.fix)
    else:
        yield _finding("agent", "ok", f"runs, version {status['version']}")
        yield from told_by_agent(status)


def _finding(subject: str, verdict: "str", text: str, cure: str = "") -> "Finding":
    from agent.app.doctor import Finding  # noqa: PLC0415

    return Finding(subject, verdict, text, cure)  # type: ignore[arg-type]


def _show(found: "list[Finding]", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(f) for f in found], indent=2))
        return
    wide = max(len(f.subject) for f in found)
    for f in found:
        print(f"{f.verdict:<7}  {f.subject:<{wide}}  {f.text}")
        if f.cure:
            print(f"{'':<7}  {'':<{wide}}  -> {f.cure}")
    bad = sum(f.verdict != "ok" for f in found)
    print(f"\n{bad} of {len(found)} need attention." if bad else "\nAll is well.")
