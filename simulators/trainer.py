"""The far side of a stale model: takes its event, trains candidates, publishes the better one.

As a program: subscribes to the events on a broker, and publishes into a folder that is a registry
of type ``directory`` (or behind any web server). Its key may sign only the models that the keyring
of the gateways allows it. Tracked on an MLflow server when one is named.
"""

import argparse
import asyncio
import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from agent.app.packing import pack
from agent.cli.package_files import seed_of, write
from agent.codecs import envelope as dsse
from agent.codecs.envelope import Envelope
from agent.codecs.rows import read_csv
from agent.config.manifest import ManifestFile, PackSpec, read
from agent.core.errors import AgentError, PermanentError
from agent.core.recording import Recording
from agent.registries.directory import publish, published
from simulators.broker import Collector, Message
from simulators.candidates import METHODS, Method, Trial, compare
from simulators.tracking import Tracking

TOPIC: Final = "+/+/_model/+/stale"
OFF: Final = 0.8
"""Where the alarm of a new version ends; its scores are made so that 1 is the limit."""


@dataclass(frozen=True, slots=True)
class Published:
    """What came of an event."""

    name: str
    version: str
    release: int
    best: Trial
    trials: Sequence[Trial]


@dataclass(slots=True)
class Trainer:
    """Answers the events of stale models.

    Attributes:
        registry: The folder: ``NAME/index.json`` and what it names.
        samples: Where the samples are that events refer to: the gateway's data folder, or a copy.
        seed: The private key.
        channel: Where the new version is published.
        tracking: None when nobody keeps the experiments.
        done: Ids of events that were answered: each counts once.
    """

    registry: Path
    samples: Path
    seed: bytes
    channel: str = "stable"
    methods: Sequence[Method] = METHODS
    tracking: Tracking | None = None
    done: set[str] = field(default_factory=set)

    async def answer(self, event: Mapping[str, Any]) -> Published | None:
        """Train what *event* asks for; None when it has been answered before."""
        if event["id"] in self.done:
            return None
        name = str(event["model"]["name"])
        parent = packaged(self.registry, name, str(event["model"]["version"]))
        rows = await asyncio.to_thread(sampled, self.samples, event, parent)
        found = await self.train(parent, rows, about(event))
        self.done.add(str(event["id"]))
        return found

    async def train(
        self, parent: ManifestFile, rows: Recording, provenance: Mapping[str, str]
    ) -> Published:
        """The better one of all methods on *rows*, packaged, signed and published."""
        window = parent.window.rows
        usable = rows.v[np.isfinite(rows.v).all(axis=1)]
        trials = await asyncio.to_thread(compare, usable, window, self.methods)
        best = trials[0]
        model = best.method.fit(usable, window).model
        known = published(self.registry, parent.name)["versions"].values()
        release = 1 + max((v["release"] for v in known), default=parent.release)
        facts = {k: getattr(parent, k) for k in PackSpec.model_fields} | {
            "version": f"{parent.version.split('+')[0]}+{release}",
            "release": release,
            "features": [],
            "normalisation": None,
            "fit": [],
            "outputs": [],
            "decision": _decision(parent),
            "provenance": {
                "retrained_from": f"{parent.name} {parent.version}, release {parent.release}",
                "method": best.method.name,
                "held_out_false_alarms": f"{best.false_alarms:.4f}",
                "held_out_missed": f"{best.missed:.4f}",
                "rows": str(len(usable)),
                **provenance,
            },
        }
        now = datetime.now(UTC).replace(microsecond=0)
        packed = await pack(model, PackSpec.model_validate(facts), rows, now)
        text = packed.manifest.model_dump_json(by_alias=True, exclude_none=True, indent=1)
        signed = dsse.write(dsse.sign(Envelope(dsse.MANIFEST, text.encode()), self.seed))
        await asyncio.to_thread(self._track, packed.manifest, trials, provenance)
        publish(self.registry, facts, model, signed, self.channel)
        return Published(parent.name, packed.manifest.version, release, best, trials)

    def _track(
        self, made: ManifestFile, trials: Sequence[Trial], provenance: Mapping[str, str]
    ) -> None:
        """One run for each candidate; the one that is published is tagged with its version."""
        if self.tracking is None:
            return
        for trial in trials:
            won = {"published": f"{made.name} {made.version}"} if trial is trials[0] else {}
            self.tracking.log(
                f"{made.name} {trial.method.name}",
                {"method": trial.method.name, **trial.method.parameters},
                {"held_out_false_alarms": trial.false_alarms, "held_out_missed": trial.missed},
                {**provenance, **won},
            )


def _decision(parent: ManifestFile) -> dict[str, Any]:
    """As before, on the new score: k of n and the row stay."""
    before = parent.decision
    kept = {} if before is None else {"of": before.of, "row": before.row}
    return {"output": "score", "above": 1.0, "off": OFF, **kept}


def about(event: Mapping[str, Any]) -> dict[str, str]:
    """What the provenance says of the event: gateways know by it what a version was trained on."""
    sample = event["sample"]
    return {
        "event": str(event["id"]),
        "sample": f"sha256:{sample['sha256']}",
        "suspect_rows": str(sample.get("suspect_rows", 0)),
    }


def sampled(samples: Path, event: Mapping[str, Any], parent: ManifestFile) -> Recording:
    """The rows that *event* refers to: uploaded, or below *samples*; if they are what it says.

    Raises:
        PermanentError: They are not, or are no CSV.
    """
    sample = event["sample"]
    url, path = sample.get("url"), samples / str(sample["file"])
    if url:
        answer = httpx.get(str(url), trust_env=False, timeout=60).raise_for_status()
        path = samples / f"{event['id']}.csv"
        write(path, answer.content)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sample["sha256"]:
        raise PermanentError(
            "this is not the sample that the event tells of",
            where=str(path),
            fix="Copy it again from the gateway.",
            code="E691",
        )
    return read_csv(path, {c.name: c.name for c in parent.channels})


def packaged(registry: Path, name: str, version: str) -> ManifestFile:
    """The manifest of a version that was published here."""
    entry = published(registry, name)["versions"][version]
    path = registry / name / entry["manifest"]["file"]
    return read(dsse.read(path.read_bytes(), str(path), dsse.MANIFEST).payload, str(path))


async def listen(trainer: Trainer, broker: str, tell: Callable[[str], object] = print) -> None:
    """Answer events for ever; one that cannot be answered is told, and the next one comes."""
    loop, heard = asyncio.get_running_loop(), asyncio.Queue[Message]()

    def put(message: Message) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, message)

    with Collector(broker, TOPIC, put):
        while True:
            event = (await heard.get()).json()
            try:
                found = await trainer.answer(event)
            except (AgentError, OSError, ValueError, KeyError, httpx.HTTPError) as e:
                tell(f"event {event.get('id')}: {e!r}")
                continue
            for line in () if found is None else told(found):
                tell(line)


def told(found: Published) -> Iterator[str]:
    """One line for each candidate, and what was published."""
    for trial in found.trials:
        yield (
            f"{found.name} {trial.method.name}: false alarms {trial.false_alarms:.2%}, "
            f"missed {trial.missed:.2%} of the held-out windows"
        )
    yield f"{found.name} {found.version}, release {found.release}: published"


def main(argv: Sequence[str] | None = None) -> int:
    """Train for ever."""
    parser = argparse.ArgumentParser(prog="python -m simulators.trainer", description=__doc__)
    parser.add_argument("--broker", required=True, metavar="mqtt://HOST:PORT")
    parser.add_argument("--registry", required=True, type=Path, metavar="DIR")
    parser.add_argument("--samples", required=True, type=Path, metavar="DIR")
    parser.add_argument("--key", required=True, type=Path, help="as `models keygen` made it")
    parser.add_argument("--channel", default="stable")
    parser.add_argument("--mlflow", metavar="URL", help="where experiments are tracked")
    args = parser.parse_args(argv)
    tracking = None if args.mlflow is None else Tracking(args.mlflow)
    trainer = Trainer(
        args.registry, args.samples, seed_of(args.key), args.channel, tracking=tracking
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(listen(trainer, args.broker))
    return 0


if __name__ == "__main__":
    sys.exit(main())
