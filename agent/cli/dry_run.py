"""`edge-agent dry-run`: the whole file against the live devices; nothing is kept or published."""

import asyncio
import json
import logging
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.args import CONFIG, DEGRADED, OK, add_json
from agent.cli.table import number, table

if TYPE_CHECKING:
    from agent.config.report import Problem
    from agent.config.schema import Settings
    from agent.core.batch import Batch
    from agent.core.tag import Tag
    from agent.core.texts import Texts
    from agent.sources.modbus_orders import Orders

HELP = "read every tag of a file from the live devices; nothing is kept or published"


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", nargs="?", default=CONFIG, metavar="FILE")
    parser.add_argument("--for", dest="seconds", type=float, default=10.0, metavar="SECONDS")
    add_json(parser)


def run(args: Namespace) -> int:
    """0 when every tag has a usable value, 1 when one has not or has its words in another order
    than the file says, 78 when the file is refused.
    """
    from agent.config.load import load  # noqa: PLC0415 - pydantic takes its time
    from agent.logs import configure  # noqa: PLC0415
    from agent.plugins import installed  # noqa: PLC0415

    settings = load(Path(args.file), installed())
    configure(level=logging.ERROR)  # what is wrong is told below
    tags, errors, hints = asyncio.run(_read(settings, args.seconds))
    if args.json:
        advice = [{"code": p.code, "tag": name, "what": p.what, "fix": p.fix} for name, p in hints]
        print(json.dumps({"tags": tags, "devices": errors, "advice": advice}, indent=2))
    else:
        rows = [
            [name, number(t["value"], 6), t["unit"], t["q"], f"{t['good']}/{t['rows']}"]
            for name, t in tags.items()
        ]
        print(table(["TAG", "VALUE", "UNIT", "QUALITY", "USABLE"], rows))
        for device, error in errors.items():
            print(f"{device}: {error}")
        for _, hint in hints:
            print(f"warning[{hint.code}]: {hint.what}\n   = help: {hint.fix}")
    bad = [name for name, t in tags.items() if not t["good"]]
    if not args.json:
        print(f"\n{len(tags) - len(bad)} of {len(tags)} tags gave a usable value.")
    return DEGRADED if bad or hints else OK


class _Seen:
    """The newest row of each stream, and how many were usable."""

    def __init__(self, texts: "Texts") -> None:
        self._texts = texts
        self.tags: dict[str, dict[str, Any]] = {}
        self.orders: dict[str, Orders] = {}

    def __call__(self, batch: "Batch", **_: object) -> None:
        from agent.core.batch import range_checked  # noqa: PLC0415
        from agent.core.quality import word  # noqa: PLC0415

        orders = self.orders.get(batch.stream.partition("~")[0])
        if orders is not None:
            names = [tag.name for tag in batch.tags]
            for v, q in zip(batch.v.tolist(), batch.q.tolist(), strict=True):
                usable = {name: code >= 64 for name, code in zip(names, q, strict=True)}
                orders.take(dict(zip(names, v, strict=True)), usable)
        batch = range_checked(batch)
        for i, tag in enumerate(batch.tags):
            if orders is not None and tag.name in orders:
                continue
            one = self.tags.setdefault(tag.name, unread(tag))  # a device may tell its tags itself
            q = int(batch.q[-1, i])
            one["rows"] += len(batch)
            one["good"] += int((batch.q[:, i] >= 64).sum())
            value: float | str | None = float(batch.v[-1, i]) if q >= 64 else None
            if tag.kind == "text" and value is not None:
                value = self._texts.text(tag.name, float(value))
            one["value"], one["q"] = value, word(q)


def unread(tag: "Tag") -> dict[str, Any]:
    """What is told of a tag of which nothing came."""
    return {"value": None, "unit": tag.unit, "q": "bad", "rows": 0, "good": 0}


async def _read(
    settings: "Settings", seconds: float
) -> tuple[dict[str, dict[str, Any]], Mapping[str, str], list[tuple[str, "Problem"]]]:
    """What every tag gave within *seconds*, what each device complains about, and which tags look
    as if their words came in another order.
    """
    from agent.config.base import Context  # noqa: PLC0415
    from agent.core.stats import Stats  # noqa: PLC0415
    from agent.core.texts import Texts  # noqa: PLC0415
    from agent.runtime.clock import SystemClock  # noqa: PLC0415
    from agent.sources.modbus import ModbusConfig  # noqa: PLC0415
    from agent.sources.modbus_orders import Orders  # noqa: PLC0415

    texts, sources = Texts(), {}
    seen = _Seen(texts)
    with tempfile.TemporaryDirectory(prefix="edge-agent-dry-run-") as folder:
        gateway = settings.gateway
        root = f"{gateway.prefix}/{gateway.id}"
        ctx = Context(SystemClock(), Stats(), gateway.id, root, Path(folder), texts)
        for name, section in settings.devices.items():
            device: Any = section
            for tags in device.tag_sets(name).values():
                for tag in tags:
                    seen.tags[tag.name] = unread(tag)
            if isinstance(device, ModbusConfig):
                seen.orders[name] = orders = Orders(name, device)
                device = orders.section
            sources[name] = device.build(name, ctx)
        tasks = [asyncio.create_task(s.run(seen), name=n) for n, s in sources.items()]
        ended, running = await asyncio.wait(tasks, timeout=seconds) if tasks else (set(), set())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    errors = {n: s.facts().get("last_error", "") for n, s in sources.items() if hasattr(s, "facts")}
    errors |= {t.get_name(): str(t.exception()) for t in ended if t.exception()}
    hints = [hint for orders in seen.orders.values() for hint in orders.hints().items()]
    return seen.tags, {n: e for n, e in errors.items() if e}, hints
