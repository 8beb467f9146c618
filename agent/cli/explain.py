"""`edge-agent explain`: what is known about a tag, and what a code means."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from agent.cli.args import OK, add_daemon, add_json, find_socket
from agent.cli.client import ask
from agent.cli.codes import CODE, EVENT, event, explained, first_command
from agent.cli.override import show
from agent.cli.table import age

HELP = "a tag: where it comes from, how it is read, who uses it; a code: what it means, what to do"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("tag", metavar="TAG|CODE", help="pump1/flow, or E303")
    add_daemon(parser)
    add_json(parser)


def run(args: Namespace) -> int:
    """Print what the agent knows of the tag; a code needs no running agent."""
    if CODE.match(args.tag.upper()):
        return _code(args.tag.upper(), as_json=args.json)
    if EVENT.match(args.tag):
        meaning, first = event(args.tag)
        facts = {"event": args.tag, "means": meaning, "first": first}
        print(
            json.dumps(facts, indent=2) if args.json else f"{args.tag}  {meaning}\n  first  {first}"
        )
        return OK
    told = ask(find_socket(args), "explain", tag=args.tag)
    print(json.dumps(told, indent=2) if args.json else _text(told))
    return OK


def _code(code: str, *, as_json: bool) -> int:
    meaning, cure = explained(code)
    first = first_command(code)
    told = {"code": code, "means": meaning, "first": first, "do": cure}
    text = f"{code}  {meaning}\n  first  {first}\n  do     {cure}"
    print(json.dumps(told, indent=2) if as_json else text)
    return OK


def _text(told: Mapping[str, Any]) -> str:
    lines = [told["tag"]]
    if "address" in told:
        unit = f", unit {told['unit_id']}" if "unit_id" in told else ""
        every = f", every {told['every_s']:g} s" if "every_s" in told else ""
        answers = f", answers in {told['latency_ms']:g} ms" if "latency_ms" in told else ""
        lines += [
            f"  from     {told['connect']}{unit}{answers}",
            f"  address  {told['address']}",
            f"  request  {told['request']}{every}",
            f"  decoded  {told['decoded']}",
        ]
    if "derived" in told:
        lines.append(f"  derived  {told['derived']}")
    lines.append(f"  stream   {told['stream']}")
    last = told.get("last")
    if last is None:
        lines.append("  value    none yet")
    else:
        value = "-" if last["value"] is None else f"{last['value']}"
        lines.append(f"  value    {value} {last['unit']}, {last['q']}, {age(last['age_s'])} ago")
    if told.get("device_error"):
        lines.append(f"  device   {told['device_error']}")
    if told.get("override"):
        lines.append(f"  by hand  {show(told['override'])}")
    lines.append(f"  used by  {', '.join(told['used_by']) or 'nobody'}")
    return "\n".join(lines)
