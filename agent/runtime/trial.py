"""The trial of a candidate: what a version must show before it may serve."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.core.errors import PermanentError
from agent.core.ports import LoadedModel, ModelHost, WorkerLost

LOAD_DEADLINE_S: Final = 60.0


async def try_out(
    host: ModelHost,
    digest: str,
    model: bytes,
    *,
    rows: int,
    inputs: int,
    windows: NDArray[np.float32] | None,
    deadline_s: float,
) -> LoadedModel:
    """Load and run the candidate once, in the worker of *host*.

    Args:
        host: A worker of its own, not the one that serves.
        digest: SHA-256 of *model*, hex.
        model: The file.
        rows: w of the windows it will be fed.
        inputs: k of the windows it will be fed.
        windows: Stored windows (b, w, k); None when there is no history yet.
        deadline_s: For the one run.

    Raises:
        PermanentError: The candidate must not serve.
        TransientError: The trial itself failed.
    """
    loaded = await host.load(digest, model, LOAD_DEADLINE_S)
    check_inputs(loaded, rows, inputs)
    x = made_up(rows, inputs) if windows is None or not len(windows) else windows
    try:
        outputs = await host.predict(digest, x, deadline_s)
    except WorkerLost:  # perhaps not the model's fault: one more time
        outputs = await _again(host, digest, x, deadline_s)
    _check_outputs(outputs, len(x), digest)
    return loaded


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


def check_inputs(loaded: LoadedModel, rows: int, inputs: int) -> None:
    """`PermanentError` unless the model takes windows of *rows* x *inputs*."""
    shapes = list(loaded.inputs.values())
    wanted = (rows, inputs)
    if len(shapes) == 1:
        inner = shapes[0][1:]
        flat = len(inner) == 1 and inner[0] in {None, rows * inputs}
        cube = len(inner) == 2 and all(d in {None, w} for d, w in zip(inner, wanted, strict=True))
        if flat or cube:
            return
    found = ", ".join(f"{n} {_words(s)}" for n, s in loaded.inputs.items()) or "nothing"
    raise PermanentError(
        f"it takes {found}; the windows are (any, {rows}, {inputs})",
        where=f"model {loaded.digest[:12]}",
        fix="Correct `window: rows` or `inputs` of the model, or publish one that fits.",
        code="E641",
    )


def _check_outputs(outputs: Mapping[str, NDArray[np.float32]], b: int, digest: str) -> None:
    where = f"model {digest[:12]}"
    if not outputs:
        raise PermanentError("it has no output", where=where, code="E642")
    for name, values in outputs.items():
        if values.ndim == 0 or len(values) != b:
            raise PermanentError(
                f"output `{name}` has shape {values.shape} for {b} windows",
                where=where,
                fix="The first dimension of every output is the batch.",
                code="E642",
            )
        if not np.isfinite(values).any():
            raise PermanentError(
                f"output `{name}` is not a number for every one of {b} windows",
                where=where,
                fix="Check scaling and training of the model.",
                code="E642",
            )


def _words(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in shape) + ")"
