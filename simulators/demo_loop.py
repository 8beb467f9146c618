"""The demo's second story, of pump 1: another duty, and a model that learns it.

Its valve is closed further: all is well, but the model has never seen that. False alarms, which a
person dismisses; the model is stale; the far side takes the sample, trains, and publishes; the
gateway tries the new version on its own history, then beside the old one, then takes it.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from simulators.agent_process import AgentProcess
from simulators.messages import levels, rows
from simulators.packages import Key, evenly, keyring, released
from simulators.plant import Event, Plant, Timeline
from simulators.trainer import Trainer, listen

PUMP: Final = "pump1"
MODEL: Final = "pump1-health"
ALARM: Final = f"{PUMP}.{MODEL}"
ROWS: Final = 200
"""Of a drift window: two of them make a model stale."""

ENOUGH: Final = 120
"""Results of the new version after which it may be called quiet."""

QUIET: Final = 0.05
LOOKS: Final = 10
"""A person takes two seconds to say that an alarm was false."""

SECTIONS: Final[Mapping[str, Any]] = {
    "rollout": {
        "backtest": "10min", "backtest_windows": 50, "shadow": "5s", "shadow_windows": 15,
        "probation": "5s", "retrained": "auto",
    }
}  # fmt: skip
"""A day's patience in seconds; and a version that was trained on this plant's rows need not be
promoted by hand, because a person has said that the alarm was false."""


@dataclass(slots=True)
class Loop:
    """The story of pump 1, and how far it is.

    Attributes:
        folder: For registry, keyring and keys.
        data_dir: Of the agent: the samples are there.
        channels: What the model is fed.
        news: Lines for whoever looks on.
        event: The stale event.
        published: The version that the far side made.
        flags: Version -> for each result since the duty changed, is it above the limit.
        shadow: Results of the new version that nobody acted on.
        looked: Looks that a person has taken at the alarm.
    """

    folder: Path
    data_dir: Path
    channels: tuple[str, ...]
    news: list[str]
    key: Key = field(default_factory=Key.new)
    root: Key = field(default_factory=Key.new)
    changed: bool = False
    dismissed: bool = False
    event: dict[str, Any] = field(default_factory=dict)
    published: str = ""
    acked: bool = False
    flags: dict[str, list[bool]] = field(default_factory=dict)
    shadow: int = 0
    looked: int = 0

    @property
    def registry(self) -> Path:
        """A folder that is a registry."""
        return self.folder / "registry"

    async def prepare(self, healthy: np.ndarray[Any, np.dtype[np.float64]], row_s: float) -> None:
        """Release 1, signed by a key that may sign this model only."""
        keyring(self.folder / "keyring.json", self.root, [self.key.entry(MODEL)])
        rows = evenly(self.channels, healthy, row_s)
        await released(self.registry, self.key, MODEL, rows)

    def config(self, document: dict[str, Any]) -> dict[str, Any]:
        """*document* with pump 1 under the model of this story."""
        instances = {PUMP: {"inputs": [f"{PUMP}/{c}" for c in self.channels]}}
        document["models"][MODEL] = {
            "registry": "plant", "channel": "stable", "poll": "2s", "instances": instances,
            "window": {"kind": "count", "rows": 5}, "drift": {"rows": ROWS},
        }  # fmt: skip
        document["registries"]["plant"] = {"type": "directory", "url": f"dir://{self.registry}"}
        document["trust"] = {
            "keyring": str(self.folder / "keyring.json"), "root": self.root.text,
        }  # fmt: skip
        return document | dict(SECTIONS)

    async def play(self, plant: Plant, agent: AgentProcess, broker: str) -> None:
        """Let it happen: the plant changes, a person dismisses, the far side answers."""
        trainer = Trainer(self.registry, self.data_dir, self.key.seed)
        answering = asyncio.create_task(listen(trainer, broker, self._hear), name="trainer")
        try:
            duty = Event(plant.now_s, 0, "duty", ramp_s=20.0)
            plant.timeline = Timeline([*plant.timeline.events, duty])
            self.changed = True
            self.news.append(f"the valve of {PUMP} is closed by 25 points: another duty, no fault")
            while not self.acked:
                await self._by_hand(agent)
                await asyncio.sleep(0.2)
            await asyncio.Event().wait()
        finally:
            answering.cancel()
            with suppress(asyncio.CancelledError):
                await answering

    async def _by_hand(self, agent: AgentProcess) -> None:
        """What people do: the alarm was false; the event is taken up."""
        standing = {a["alarm"] for a in await agent.ask("alarms.list")}
        self.looked = self.looked + 1 if ALARM in standing else 0
        if not self.dismissed and self.looked > LOOKS:
            await agent.ask("alarms.dismiss", name=ALARM, by="the shift leader")
            self.dismissed = True
            self.news.append(f"the shift leader dismisses the alarm {ALARM}: it was false")
        if self.published and self.event:
            await agent.ask("models.ack", event=self.event["id"])
            self.acked = True

    def _hear(self, line: str) -> None:
        self.news.append(f"far side: {line}")
        name, _, rest = line.partition(" ")
        if name == MODEL and rest.endswith(": published"):
            self.published = rest.partition(",")[0]

    def take(self, topic: str, payload: bytes) -> None:
        """Look at one message."""
        if levels(topic) == ("_model", PUMP, "stale") and not self.event:
            self.event = json.loads(payload)
            why = ", ".join(self.event["reasons"])
            self.news.append(f"model {MODEL} is stale ({why}); {_sample(self.event)}")
        for row in rows(topic, payload):
            version, score = str(row.model.get("version")), row.values.get("score")
            if row.name == f"{PUMP}~shadow":
                self.shadow += 1
            elif row.name == PUMP and row.kind == "model" and self.changed and score is not None:
                self.flags.setdefault(version, []).append(score > 1.0)

    def missing(self, active: Mapping[str, Any]) -> list[str]:
        """What has not happened yet, in the order in which it should."""
        new = self.flags.get(self.published, [])[-ENOUGH:]
        false = self.flags.get("1.0.0", [])
        share = sum(false) / max(len(false), 1)
        steps = {
            f"{MODEL} did not alarm on the new duty": self.dismissed,
            f"only {share:.0%} false alarms of version 1.0.0": share > 0.5,
            f"no stale event of {PUMP}": bool(self.event),
            f"no sample came with it: {self.event.get('sample')}": bool(self.event.get("sample")),
            "the far side has published nothing": bool(self.published),
            "the new version was in no shadow": self.shadow > 0,
            "the new version does not serve": bool(new),
            f"only {len(new)} results of the new version": len(new) >= ENOUGH,
            f"{sum(new)} of its last {len(new)} results are above the limit": (
                sum(new) <= QUIET * ENOUGH
            ),
            f"the alarm {ALARM} still stands": ALARM not in active,
        }
        return [f"loop: {what}" for what, done in steps.items() if not done]


def _sample(event: Mapping[str, Any]) -> str:
    sample = event.get("sample")
    return "no sample" if not sample else f"a sample of {sample['rows']} rows waits"
