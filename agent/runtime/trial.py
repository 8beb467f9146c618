"""The trial of a candidate: what a version must show before it may serve."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.codecs.onnx import scan
from agent.core.decision import Decision
from agent.core.errors import PermanentError
from agent.core.features import Preparation
from agent.core.manifest import Manifest
from agent.core.ports import LoadedModel, ModelHost, WorkerLost
from agent.core.window import GridWindow, Window
from agent.runtime.outputs import columns
from agent.runtime.proof import check_inputs, check_needs, prove

LOAD_DEADLINE_S: Final = 60.0

PACE: Final = 0.2
"""Part of the time between two windows that the scoring of one may take."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model must fit into.

    Attributes:
        rows, inputs: w and k of the windows it will be fed.
        decision: Of the configuration; None when it leaves that to the manifest.
        deadline_s: For one call.
        allow_ops: Operators that it may use beyond the usual ones.
        window: What is cut; None when it does not matter.
        units: Of the inputs, as far as they are known.
        tensors: Names of the model's inputs, in its order; empty for a single one of any name.
    """

    rows: int
    inputs: int
    decision: Decision | None = None
    deadline_s: float = 10.0
    allow_ops: tuple[str, ...] = ()
    window: Window | None = None
    units: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()

    def prepared(self, manifest: Manifest | None) -> "Fit":
        """What the model itself is given and must give, where *manifest* says so."""
        if manifest is None:
            return self
        return replace(self, decision=self.decision or manifest.decision).fed(manifest.preparation)

    def fed(self, preparation: Preparation | None) -> "Fit":
        """What the model itself is given: features are fewer and flat."""
        if preparation is None:
            return self
        rows, inputs = preparation.columns(self.rows, self.inputs)
        names = tuple(one.tensor for one in preparation.inputs)
        return replace(self, rows=rows, inputs=inputs, tensors=names)


async def try_out(
    host: ModelHost,
    digest: str,
    model: bytes,
    fit: Fit,
    windows: NDArray[np.float32] | None,
    manifest: Manifest | None = None,
) -> LoadedModel:
    """Look into the file, then load, prove and run the candidate, in the worker of *host*.

    Args:
        host: A worker of its own, not the one that serves.
        digest: SHA-256 of *model*, hex.
        model: The file.
        fit: What it must fit into.
        windows: Stored windows (b, w, k); None when there is no history yet.
        manifest: Its promises; None when it makes none.

    Raises:
        PermanentError: The candidate must not serve.
        TransientError: The trial itself failed.
    """
    where = f"model {digest[:12]}"
    allow = fit.allow_ops
    if manifest is not None:
        check_needs(manifest)
        check_inputs(manifest, fit.window, fit.inputs, fit.units)
        allow += manifest.requires.operators
    await asyncio.to_thread(scan, model, allow, where)
    loaded = await host.load(digest, model, LOAD_DEADLINE_S)
    check_fit(loaded, fit.prepared(manifest))
    x = made_up(fit.rows, fit.inputs) if windows is None or not len(windows) else windows
    if manifest is not None:
        await prove(manifest, lambda given: host.predict(digest, given, fit.deadline_s))
        x = x if manifest.preparation is None else manifest.preparation(x)
    begun_s = perf_counter()
    try:
        outputs = await host.predict(digest, x, fit.deadline_s)
    except WorkerLost:  # perhaps not the model's fault: one more time
        outputs = await _again(host, digest, x, fit.deadline_s)
    took_s = perf_counter() - begun_s
    _check_outputs(outputs, len(x), loaded)
    if isinstance(fit.window, GridWindow):
        await _check_pace(host, digest, x, fit, fit.window, took_s)
    return loaded


async def _check_pace(
    host: ModelHost,
    digest: str,
    x: NDArray[np.float32],
    fit: Fit,
    window: GridWindow,
    took_s: float,
) -> None:
    """`PermanentError` (E689) when a window takes more than a fifth of the time to the next one,
    at the best of three attempts: the machine has other things to do.
    """
    allowed_s = PACE * window.stride_ns / 1e9 * len(x)
    for _ in range(2):
        if took_s <= allowed_s:
            return
        begun_s = perf_counter()
        await host.predict(digest, x, fit.deadline_s)
        took_s = min(took_s, perf_counter() - begun_s)
    if took_s > allowed_s:
        raise PermanentError(
            f"a window takes {1e3 * took_s / len(x):.3g} ms here, and there is one every "
            f"{window.stride_ns / 1e6:g} ms",
            where=f"model {digest[:12]}",
            fix="Publish a smaller model, or raise `stride` of the window.",
            code="E689",
        )


async def _again(
    host: ModelHost, digest: str, x: NDArray[np.float32], deadline_s: float
) -> Mapping[str, NDArray[np.float32]]:
    try:
        return await host.predict(digest, x, deadline_s)
    except WorkerLost as e:
        raise PermanentError(
            f"it took its worker down twice in the trial ({e.what})",
            where=f"model {digest[:12]}",
            fix="Check the file with its author; the version in service stays.",
            code="E643",
        ) from e


def made_up(rows: int, inputs: int) -> NDArray[np.float32]:
    """Windows for a trial without history, float32 (2, w, k): zeros, and noise.

    Two, so that a fixed batch size shows; noise, because a model may rightly have no answer to
    a signal that does not move.
    """
    noise = np.random.default_rng(0).standard_normal((rows, inputs), np.float32)
    return np.stack([np.zeros_like(noise), noise])


def check_fit(loaded: LoadedModel, fit: Fit) -> None:
    """`PermanentError` unless the model takes the windows and gives what is decided on."""
    where = f"model {loaded.digest[:12]}"
    if not _takes(loaded, fit):
        found = ", ".join(f"{n} {_words(s)}" for n, s in loaded.inputs.items()) or "nothing"
        given = f" for {', '.join(fit.tensors)}" if fit.tensors else ""
        raise PermanentError(
            f"it takes {found}; the windows are (any, {fit.rows}, {fit.inputs}){given}",
            where=where,
            fix="Correct `window: rows` or `inputs` of the model, or publish one that fits; a "
            "model with several inputs needs a manifest that says what each is fed.",
            code="E641",
        )
    try:
        names = columns(loaded.outputs)
    except PermanentError as e:
        raise PermanentError(e.what, where=where, fix=e.fix, code=e.code) from None
    wanted = names[0] if fit.decision is None else fit.decision.output
    if wanted not in names:
        raise PermanentError(
            f"it has no output `{wanted}` to decide on (outputs: {', '.join(names)[:200]})",
            where=where,
            fix="Correct `decide: output` of the model, or publish one that has it.",
            code="E651",
        )


def _takes(loaded: LoadedModel, fit: Fit) -> bool:
    """Any number of windows at a time (as many are due as there are machines), into the inputs
    that it has.
    """
    if any(shape[:1] not in {(None,), (1,)} for shape in loaded.inputs.values()):
        return False
    named = tuple(loaded.inputs) == fit.tensors if fit.tensors else len(loaded.inputs) == 1
    return named and loaded.takes(fit.rows, fit.inputs)


def _check_outputs(outputs: Mapping[str, NDArray[np.float32]], b: int, loaded: LoadedModel) -> None:
    where = f"model {loaded.digest[:12]}"
    found = sum(v.size for v in outputs.values())
    promised = len(columns(loaded.outputs))
    if not outputs or found != promised * b:
        raise PermanentError(
            f"its outputs have {found} numbers for {b} windows, {promised * b} were promised",
            where=where,
            fix="Give the outputs the shapes that the file declares: (batch) or (batch, columns).",
            code="E642",
        )
    for name, values in outputs.items():
        if not np.isfinite(values).any():
            raise PermanentError(
                f"output `{name}` is not a number for every one of {b} windows",
                where=where,
                fix="Check scaling and training of the model.",
                code="E642",
            )


def _words(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in shape) + ")"
