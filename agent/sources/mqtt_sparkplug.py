"""Sparkplug B as a source: births give names and types, deaths make what is known the past."""

from dataclasses import dataclass, field
from math import inf, nan
from typing import TYPE_CHECKING, Final

from agent.codecs.sparkplug import BadPayload, Metric, Payload, decode, rebirth
from agent.config.base import Context
from agent.core.batch import Batch
from agent.core.quality import Quality
from agent.links.mqtt_peer import Incoming
from agent.sources.mqtt_decode import PayloadError, Row, Sample, bad, bounded, sample
from agent.sources.mqtt_feed import Feed
from agent.sources.mqtt_tags import MqttTag

if TYPE_CHECKING:
    from agent.sources.mqtt import MqttConfig

_KINDS: Final = {"NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH"}
_ASK_AGAIN_S: Final = 10.0
_ALIASES: Final = 20_000
_NODES: Final = 1000


@dataclass(slots=True)
class _Node:
    """What an edge node has told of itself.

    Attributes:
        names: (device, alias) -> name and datatype; valid until its death or next birth.
        types: (device, name) -> datatype.
    """

    names: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    types: dict[tuple[str, str], int] = field(default_factory=dict)
    bdseq: int | None = None
    seq: int | None = None
    born: bool = False
    asked_s: float = -inf

    def forget(self, device: str) -> None:
        """What *device* has told is no longer so; without a name, what all of them have."""
        for told in (self.names, self.types):
            for key in [k for k in told if not device or k[0] == device]:
                del told[key]  # type: ignore[arg-type]


class SparkplugFeed(Feed):
    """The metrics of one edge node or device, or of several that `{name}` tells apart."""

    def __init__(self, name: str, config: "MqttConfig", ctx: Context) -> None:
        super().__init__(name, config, ctx)
        self._want = (config.topic or "").split("/")
        self._columns = {t.metric: (i, t) for i, t in enumerate(config.tags.values())}
        self._nodes: dict[str, _Node] = {}
        self._requests: list[tuple[str, bytes]] = []

    def filters(self) -> list[str]:
        """Everything of the node: its births and deaths concern its devices."""
        node = "+" if self._want[3].startswith("{") else self._want[3]
        return [f"spBv1.0/{self._want[1]}/+/{node}/#"]

    def requests(self) -> list[tuple[str, bytes]]:
        """What is to be published now."""
        found, self._requests = self._requests, []
        return found

    def take(self, message: Incoming) -> list[Batch]:
        """The rows of a message."""
        levels = message.topic.split("/")
        self.count("messages")
        if len(levels) not in (4, 5) or levels[:2] != [*self._want[:1], self._want[1]]:
            self.count("strangers")
            return []
        kind, node = levels[2], levels[3]
        if kind not in _KINDS or (kind[0] == "D") != (len(levels) == 5) or message.retained:
            return []
        device = levels[4] if len(levels) == 5 else ""
        if node not in self._nodes and len(self._nodes) >= _NODES:
            self.count("strangers")
            return []
        return self._told(kind, self._nodes.setdefault(node, _Node()), node, device, message)

    def _told(
        self, kind: str, state: _Node, node: str, device: str, message: Incoming
    ) -> list[Batch]:
        key = self._key(node, device)
        arrived_ns = self._ctx.clock.wall_ns()
        try:
            payload = decode(bounded(message.payload))
            if kind.endswith("DEATH"):
                return self._death(kind, state, node, device, payload)
            if kind.endswith("BIRTH"):
                self._birth(kind, state, device, payload)
            self._counted(kind, state, node, payload)
            if key is None:
                return []
            found = [
                self._rows(state, node, device, payload, birth=kind.endswith("BIRTH"), past=past)
                for past in (True, False)
            ]
            for t, _ in (*found[0], *found[1]):
                self.plausible(t, arrived_ns)
        except (BadPayload, PayloadError) as e:
            self.count("unusable_messages")
            self.flaw(str(e), message.topic)
            if key is None:
                return []
            columns = list(range(len(self._columns)))
            none = [self.rows[key].all_bad(columns, str(e), Quality.BAD_DEVICE)]
            return [self.batch(key, none, arrived_ns)]
        if found != [[], []]:
            self.judge(key, [*found[0], *found[1]], message.topic)
        return [
            self.batch(key, rows, arrived_ns, past=past)
            for rows, past in zip(found, (True, False), strict=True)
            if rows
        ]

    def _key(self, node: str, device: str) -> str | None:
        """The stream that a topic feeds; None when it is not one of ours."""
        want = [*self._want[3:], ""][:2]
        key = ""
        for level, have in zip(want, (node, device), strict=True):
            if level.startswith("{"):
                key = have
            elif level != have:
                return None
        return key if key in self.rows else None

    def _birth(self, kind: str, state: _Node, device: str, payload: Payload) -> None:
        state.forget(device)
        if kind == "NBIRTH":
            state.born = True
            state.bdseq = _bdseq(payload)
        for metric in payload.metrics:
            if metric.name and len(state.types) < _ALIASES:
                state.types[device, metric.name] = metric.datatype
                if metric.alias is not None:
                    state.names[device, metric.alias] = metric.name, metric.datatype

    def _counted(self, kind: str, state: _Node, node: str, payload: Payload) -> None:
        """Sequence numbers run from 0 to 255 over all messages of a node: a gap is a loss."""
        before, state.seq = state.seq, payload.seq
        if kind == "NBIRTH" or payload.seq is None or before is None:
            return
        if payload.seq != (before + 1) % 256:
            self.count("seq_gaps")
            self._ask(state, node)

    def _death(
        self, kind: str, state: _Node, node: str, device: str, payload: Payload
    ) -> list[Batch]:
        if kind == "NDEATH":
            told = _bdseq(payload)
            if state.bdseq is not None and told is not None and told != state.bdseq:
                return []  # of an older connection of the node
            state.born, state.seq = False, None
        state.forget(device)
        clock = self._ctx.clock
        found = []
        for key in self.rows:
            want = [key if s.startswith("{") else s for s in (*self._want[3:], "")][:2]
            if want[0] == node and (kind == "NDEATH" or want[1] == device):
                batch = self.rows[key].death(clock.wall_ns(), clock.mono_s())
                found += [] if batch is None else [batch]
        self.count("deaths")
        return found

    def _rows(
        self,
        state: _Node,
        node: str,
        device: str,
        payload: Payload,
        *,
        birth: bool,
        past: bool,
    ) -> list[Row]:
        """One row per time: metrics of one message may be of different instants.

        Those of the *past* are rows of their own.
        """
        by_time: dict[int | None, dict[int, Sample]] = {}
        for metric in payload.metrics:
            if metric.historical is not past:
                continue
            name, datatype = metric.name, state.types.get((device, metric.name), 0)
            if not name and metric.alias is not None:
                known = state.names.get((device, metric.alias))
                if known is None:
                    self.count("unknown_aliases")
                    self._ask(state, node)
                    continue
                name, datatype = known
            if name not in self._columns:
                continue
            i, tag = self._columns[name]
            ms = metric.timestamp if metric.timestamp is not None else payload.timestamp
            t = None if ms is None else ms * 10**6
            by_time.setdefault(t, {})[i] = _sample(tag, metric, datatype)
        if not birth and not state.born:
            self._ask(state, node)
        return sorted(by_time.items(), key=lambda r: r[0] or 0)

    def _ask(self, state: _Node, node: str) -> None:
        """Ask the node for a new birth, now and then."""
        now_s = self._ctx.clock.mono_s()
        if self._config.rebirth == "never" or now_s - state.asked_s < _ASK_AGAIN_S:
            return
        state.asked_s = now_s
        self.count("rebirths_asked")
        ms = self._ctx.clock.wall_ns() // 10**6
        self._requests.append((f"spBv1.0/{self._want[1]}/NCMD/{node}", rebirth(ms)))


def _sample(tag: MqttTag, metric: Metric, datatype: int) -> Sample:
    """The value of a metric, with the quality that the node gives it."""
    try:
        one = sample(tag, metric.typed(datatype))
    except BadPayload as e:
        return bad(str(e))
    if metric.quality == 0:
        return Sample(nan, int(Quality.BAD), "the node says that it is bad")
    if metric.quality == 500:
        return Sample(one.value, min(one.q, int(Quality.UNCERTAIN_LAST)), one.why)
    return one


def _bdseq(payload: Payload) -> int | None:
    value = next((m.value for m in payload.metrics if m.name == "bdSeq"), None)
    return value if isinstance(value, int) else None
