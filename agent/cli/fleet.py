"""`edge-agent fleet`: what all gateways say at a broker, and whether a release must go on."""

import asyncio
import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.cli.args import DEGRADED, OK, TRY_AGAIN, add_json
from agent.cli.table import table

if TYPE_CHECKING:
    from agent.core.fleet import Ring

HELP = "how far model versions have come in a fleet, read from the broker"

_TOLD: Final = ("active", "probation", "retired")
"""Stages with a column of their own; what is neither of these nor failed is under way."""


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "the newest release of each model, by stage; exit code 1 where too many have failed"
    models = actions.add_parser("models", help=text, description=text)
    models.add_argument("--broker", required=True, metavar="URL", help="mqtts://broker:8883")
    models.add_argument("--prefix", default="edge", metavar="P", help="`gateway: prefix` (edge)")
    models.add_argument("--model", default="", metavar="NAME", help="only this model")
    models.add_argument("--release", type=int, metavar="N", help="not the newest, but this one")
    models.add_argument("--ring", type=float, default=100.0, metavar="PERCENT",
                        help="only the gateways that `target: percent` takes first")  # fmt: skip
    models.add_argument("--percent", type=float, default=5.0, metavar="N",
                        help="so many may have rolled back or rejected it (default 5)")  # fmt: skip
    models.add_argument("--gateways", type=Path, metavar="FILE",
                        help="names of the gateways, one a line; those that say nothing are "
                        "listed")  # fmt: skip
    for name, what in (
        ("user", "user name at the broker"),
        ("password-file", "file with the password"),
        ("ca", "PEM file of the CA of the broker"),
        ("cert", "PEM file of our certificate"),
        ("key", "PEM file of its key"),
    ):
        models.add_argument(f"--{name}", metavar="FILE" if name != "user" else "NAME", help=what)
    models.add_argument("--wait", type=float, default=1.0, metavar="S",
                        help="so long without a message is the end (default 1)")  # fmt: skip
    add_json(models)


def run(args: Namespace) -> int:
    """Read, count, print; 1 when a ring must not grow, 75 when nobody has the release yet."""
    from agent.app import fleet  # noqa: PLC0415
    from agent.core.fleet import rings  # noqa: PLC0415

    gateways = fleet.named(args.gateways)
    peer = fleet.peer(args.broker, args.password_file, user=args.user, ca=args.ca, cert=args.cert,
                      key=args.key)  # fmt: skip
    documents = asyncio.run(fleet.documents(peer, args.prefix, gateways, args.wait))
    found = rings(documents, model=args.model, release=args.release, percent=args.ring)
    silent = sorted(set(gateways) - {gateway for gateway, _ in documents})
    facts = {
        "gateways": len({gateway for gateway, _ in documents}),
        "silent": silent,
        "models": [_facts(r, args.percent) for r in found],
    }
    print(json.dumps(facts) if args.json else _text(found, silent))
    return _verdict(found, args)


def _verdict(found: "list[Ring]", args: Namespace) -> int:
    failing = [r for r in found if r.failed_percent > args.percent]
    for r in failing:
        print(
            f"stop: {r.model} release {r.release} has failed on {len(r.failures)} of {r.gateways} "
            f"gateways ({r.failed_percent:.1f} %), more than {args.percent:g} %",
            file=sys.stderr,
        )
    if failing:
        return DEGRADED
    return OK if any(r.gateways for r in found) else TRY_AGAIN


def _facts(ring: "Ring", percent: float) -> dict[str, Any]:
    return asdict(ring) | {
        "gateways": ring.gateways,
        "failed": len(ring.failures),
        "failed_percent": round(ring.failed_percent, 3),
        "stop": ring.failed_percent > percent,
    }


def _text(found: "list[Ring]", silent: list[str]) -> str:
    head = ["MODEL", "VERSION", "RELEASE", "GATEWAYS", "ACTIVE", "PROBATION", "UNDER WAY",
            "FAILED", "RETIRED", "WITHOUT", "STALE"]  # fmt: skip
    lines = [table(head, map(_row, found)) if found else "no gateway has this model"]
    for ring in found:
        lines += [
            f"{ring.model} {ring.version} on {f.gateway}: {f.stage} since {f.since}"
            + (f" ({f.error})" if f.error else "")
            for f in ring.failures
        ]
    if silent:
        lines.append(f"silent: {', '.join(silent)}")
    return "\n".join(lines)


def _row(r: "Ring") -> list[str]:
    told = {stage: r.stages.get(stage, 0) for stage in _TOLD}
    under_way = r.gateways - sum(told.values()) - len(r.failures)
    failed = f"{len(r.failures)} ({r.failed_percent:.1f} %)" if r.failures else "0"
    return [
        r.model, r.version or "-", str(r.release), str(r.gateways), str(told["active"]),
        str(told["probation"]), str(under_way), failed, str(told["retired"]), str(r.without),
        str(r.stale),
    ]  # fmt: skip
