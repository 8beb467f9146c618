"""What a worker answers, as values of the daemon: shapes that fit, outputs by name, refusals."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.core.errors import PermanentError
from agent.core.ports import LoadedModel, WorkerLost


def refused_load(digest: str, e: WorkerLost) -> PermanentError:
    """A model that ends its worker while it loads is not used."""
    return PermanentError(
        f"the model takes its worker down while it loads ({e.what})",
        where=f"model {digest[:12]}",
        fix="The model is not used; check the file with its author.",
        code="E602",
    )


def check_shape(loaded: LoadedModel, x: NDArray[np.float32]) -> None:
    """`PermanentError` (E608) unless the model takes windows *x* (b, w, k)."""
    if x.ndim == 3 and loaded.takes(*x.shape[1:]):
        return
    want = ", ".join(f"input `{n}` takes {_words(s)}" for n, s in loaded.inputs.items())
    raise PermanentError(
        f"{want}, the windows are {_words(x.shape)}",
        where=f"model {loaded.digest[:12]}",
        fix="Correct `window: rows` or `inputs:` of the model.",
        code="E608",
    )


def _words(shape: tuple[Any, ...]) -> str:
    return "(" + ", ".join("any" if d is None else str(d) for d in shape) + ")"


def results(
    loaded: LoadedModel, outputs: int, answer: memoryview, b: int
) -> Mapping[str, NDArray[np.float32]]:
    """The outputs by name, (b,) or (b, m), as copies: *answer* is overwritten by the next."""
    widths = struct.unpack_from(f"<{outputs}I", answer)
    values = np.frombuffer(answer, np.float32, offset=4 * outputs).copy()
    found: dict[str, NDArray[np.float32]] = {}
    at = 0
    for name, width in zip(loaded.outputs, widths, strict=True):
        part = values[at : at + b * width]
        one = width == 1 and len(loaded.outputs[name]) < 2
        found[name] = part if one else part.reshape(b, width)
        at += b * width
    return found
