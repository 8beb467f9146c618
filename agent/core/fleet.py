"""A fleet by its state documents: how far a release has come, and whether it must go on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent.core.ring import place

FAILED: Final = frozenset({"rolled_back", "rejected", "blocked"})
"""Stages of a version that did not make it on a gateway."""

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """A gateway on which a release did not make it."""

    gateway: str
    stage: str
    since: str
    error: str


@dataclass(frozen=True, slots=True)
class Ring:
    """One release of one model on the gateways of a ring.

    Attributes:
        without: Gateways of the ring that have the model and do not know this release.
        stages: Stage -> gateways whose release is there.
        failures: Where it did not make it.
        stale: Gateways where a machine's model is said to be stale.
    """

    model: str
    version: str
    release: int
    without: int
    stages: Mapping[str, int]
    failures: tuple[Failure, ...] = ()
    stale: int = 0

    @property
    def gateways(self) -> int:
        """Those that know the release."""
        return sum(self.stages.values())

    @property
    def failed_percent(self) -> float:
        """Of the gateways that know it."""
        return 100.0 * len(self.failures) / self.gateways if self.gateways else 0.0


@dataclass(slots=True)
class _Counted:
    version: str = ""
    stages: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    stale: int = 0


def rings(
    documents: Mapping[tuple[str, str], Document],
    *,
    model: str = "",
    release: int | None = None,
    percent: float = 100.0,
) -> list[Ring]:
    """The newest release of each model, or *release*, over the gateways that know the model.

    Args:
        documents: (gateway, instance) -> its document.
        model: Only this one.
        release: This one; None for the newest of each model.
        percent: Only the gateways among the first so many percent for that release.
    """
    found: list[Ring] = []
    by_model: dict[str, dict[str, list[Document]]] = {}
    for (gateway, _), document in sorted(documents.items()):
        if model in ("", document["model"]):
            by_model.setdefault(document["model"], {}).setdefault(gateway, []).append(document)
    for name, gateways in by_model.items():
        wanted = _newest(gateways.values()) if release is None else release
        if wanted is not None:
            ring = {g: d for g, d in gateways.items() if place(g, name, wanted) < percent * 100}
            found.append(_ring(name, wanted, ring))
    return found


def _newest(some: Iterable[Sequence[Document]]) -> int | None:
    known = (v["release"] for documents in some for d in documents for v in d["versions"])
    return max(known, default=None)


def _ring(model: str, release: int, gateways: Mapping[str, Sequence[Document]]) -> Ring:
    counted, without = _Counted(), 0
    for gateway, documents in gateways.items():
        document = max(documents, key=lambda d: str(d["ts"]))  # of one model all say the same
        version = next((v for v in document["versions"] if v["release"] == release), None)
        if version is None:
            without += 1
            continue
        stage = str(version["stage"])
        counted.version = str(version["version"])
        counted.stages[stage] = counted.stages.get(stage, 0) + 1
        if stage in FAILED:
            error = str(document["error"])
            counted.failures.append(Failure(gateway, stage, str(version["since"]), error))
        counted.stale += any((d["drift"] or {}).get("verdict") == "stale" for d in documents)
    return Ring(
        model, counted.version, release, without, counted.stages, tuple(counted.failures),
        counted.stale,
    )  # fmt: skip
