"""What a model eats, gives, decides and must prove: its manifest, as the runtime knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.core.decision import Decision
from agent.core.features import Preparation
from agent.core.recording import Recording
from agent.core.reference import Reference
from agent.core.window import Window


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """Raw samples, and what must come of them.

    Attributes:
        samples: Rows as a source would give them.
        outputs: Output -> float64 (m,) or (m, columns): one row for each window of the samples.
        flags: bool (m,): the decision after each window; empty when the model decides nothing.
        atol, rtol: How far an output may be off.
    """

    samples: Recording
    outputs: Mapping[str, NDArray[np.float64]]
    flags: NDArray[np.bool_]
    atol: float
    rtol: float


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a gateway must have.

    Attributes:
        agent, onnxruntime: Oldest version, as numbers; empty for any.
        run_ms: A window must be scored within this time; None for any.
        memory_mb: What its worker must be allowed, MB; None for any.
        operators: Operators beyond the usual ones that the signer vouches for.
    """

    agent: tuple[int, ...] = ()
    onnxruntime: tuple[int, ...] = ()
    run_ms: float | None = None
    operators: tuple[str, ...] = ()
    memory_mb: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """One version of one model.

    Attributes:
        release: Rising number within the name.
        created_ns, expires_ns: ns since the epoch; ``expires_ns`` None: never.
        sha256, size: Of the model file.
        channels, units: Of the columns of a window, in order.
        gateways, percent: Whom it is meant for: patterns of gateway names, share of them.
        fallback: Least and greatest value of each channel while no version can run, None for
            none; empty when it has no such limits.
        reference: Healthy values of each channel, and of the output that decides
            (``output/NAME``); empty when the package has none.
        not_watched: Channels whose drift says nothing.
        acceptance: Criteria of `agent.runtime.gates.Gates` that it wants at least so strict.
    """

    name: str
    version: str
    release: int
    created_ns: int
    expires_ns: int | None
    sha256: str
    size: int
    channels: tuple[str, ...]
    units: tuple[str, ...]
    window: Window
    preparation: Preparation | None
    decision: Decision | None
    golden: tuple[Golden, ...]
    requires: Requirements
    gateways: tuple[str, ...] = ("*",)
    percent: float = 100.0
    provenance: Mapping[str, str] = field(default_factory=dict)
    reference: Mapping[str, Reference] = field(default_factory=dict)
    not_watched: frozenset[str] = frozenset()
    acceptance: Mapping[str, float] = field(default_factory=dict)
    fallback: tuple[tuple[float | None, float | None], ...] = ()
