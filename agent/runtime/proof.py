"""What a manifest promises, held against this gateway: who it is for, what it needs, its proof."""

from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from math import inf
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent import __version__
from agent.config.manifest import numbers
from agent.core.decision import flags
from agent.core.errors import PermanentError
from agent.core.manifest import Golden, Manifest
from agent.core.recording import cuts
from agent.core.ring import place

Predict = Callable[[NDArray[np.float32]], Awaitable[Mapping[str, NDArray[np.float32]]]]
"""Windows (b, w, k) as the model is given them -> its outputs."""

WORKER_MB: Final = 400
"""Memory that a worker may take, for all its models (`WorkerHost`)."""

_PUBLISH: Final = "Correct the package, or the configuration of the model."


def meant(manifest: Manifest, gateway: str, *, ring: bool = True) -> None:
    """`PermanentError` (E690) unless *gateway* is one of those it is for, and (*ring*) its turn
    has come.
    """
    named = any(fnmatchcase(gateway, p) for p in manifest.gateways)
    if named and (not ring or in_ring(manifest, gateway)):
        return
    raise PermanentError(
        f"version {manifest.version} is not meant for this gateway yet "
        f"({', '.join(manifest.gateways)}; {manifest.percent:g} %)",
        where=f"model {manifest.name}",
        fix="Nothing to do; or publish it with another `target`.",
        code="E690",
    )


def in_ring(manifest: Manifest, gateway: str) -> bool:
    """Is *gateway* in the share of the fleet that may use the version: its place in the ring
    (`agent.core.ring`) decides, so that a file server can stage a fleet.
    """
    return place(gateway, manifest.name, manifest.release) < manifest.percent * 100


def check_needs(manifest: Manifest) -> None:
    """`PermanentError` (E689) when agent or ONNX Runtime are too old, or memory is too small."""
    try:
        runtime = version("onnxruntime")
    except PackageNotFoundError:
        runtime = "0"
    for what, have, need in (
        ("edge-agent", __version__, manifest.requires.agent),
        ("ONNX Runtime", runtime, manifest.requires.onnxruntime),
    ):
        if numbers(have) < need:
            raise PermanentError(
                f"it needs {what} {'.'.join(map(str, need))} or newer, this is {have}",
                where=f"model {manifest.name} {manifest.version}",
                fix="Update the agent, or publish a package that asks for less.",
                code="E689",
            )
    if manifest.requires.memory_mb is not None and manifest.requires.memory_mb > WORKER_MB:
        raise PermanentError(
            f"it needs {manifest.requires.memory_mb:g} MB, a worker has {WORKER_MB}",
            where=f"model {manifest.name} {manifest.version}",
            fix="Publish a smaller model.",
            code="E689",
        )


def check_inputs(manifest: Manifest, window: object, inputs: int, units: tuple[str, ...]) -> None:
    """`PermanentError` (E689) when the configuration feeds it something else than it was made for.

    A unit that is not known on one side is taken for the right one.
    """
    where = f"model {manifest.name} {manifest.version}"
    if len(manifest.channels) != inputs:
        raise PermanentError(
            f"it takes {len(manifest.channels)} inputs ({', '.join(manifest.channels)}), "
            f"the configuration gives {inputs}",
            where=where,
            fix=_PUBLISH,
            code="E689",
        )
    if window is not None and window != manifest.window:
        raise PermanentError(
            f"it was made for {manifest.window}, the configuration cuts {window}",
            where=where,
            fix=_PUBLISH,
            code="E689",
        )
    for name, made, given in zip(manifest.channels, manifest.units, units, strict=False):
        if made and given and made != given:
            raise PermanentError(
                f"its input {name} is in {made}, the tag in {given}",
                where=where,
                fix="Bind a tag in that unit, or scale the tag.",
                code="E689",
            )


async def prove(manifest: Manifest, predict: Predict, *, timed: bool = True) -> int:
    """Run every golden recording from raw samples to decision; how many windows were compared.

    Raises `PermanentError` (E688) at the first difference: another processor, another runtime or
    a rotten bit answers otherwise, however well the file loads. Also (E689) when it takes too
    long, unless it is not *timed*: at a start the machine is busy with other things.
    """
    windows, fastest_ms = 0, inf
    for number, golden in enumerate(manifest.golden):
        where = f"model {manifest.name} {manifest.version}, golden {number}"
        x = prepared(manifest, golden)
        begun_s = perf_counter()
        found = await predict(x) if len(x) else {}
        fastest_ms = min(fastest_ms, 1e3 * (perf_counter() - begun_s) / max(len(x), 1))
        for name, wanted in golden.outputs.items():
            _compare(name, found.get(name), wanted, golden, where)
        _decide(manifest, golden, found, where)
        windows += len(x)
    if not windows:
        raise _wrong("its golden recordings hold no whole window", f"model {manifest.name}")
    allowed_ms = manifest.requires.run_ms if timed else None
    if allowed_ms is not None and fastest_ms > allowed_ms:
        raise PermanentError(
            f"a window takes {fastest_ms:.3g} ms here, {allowed_ms:g} ms are allowed",
            where=f"model {manifest.name} {manifest.version}",
            fix="Publish a smaller model, or allow more in `requires: run_ms`.",
            code="E689",
        )
    return windows


def prepared(manifest: Manifest, golden: Golden) -> NDArray[np.float32]:
    """The windows of a recording as the model is given them, (b, w, k)."""
    found = [cut.x for cut in cuts(golden.samples, manifest.window)]
    if not found:
        return np.empty((0, 0, 0), np.float32)
    x = np.stack(found)
    return x if manifest.preparation is None else manifest.preparation(x)


def _compare(
    name: str,
    found: NDArray[np.float32] | None,
    wanted: NDArray[np.float64],
    golden: Golden,
    where: str,
) -> None:
    if found is None or found.shape[:1] != wanted.shape[:1] or found.size != wanted.size:
        raise _wrong(f"output `{name}` is not there, or not once per window", where)
    got = found.reshape(wanted.shape).astype(np.float64)
    close = np.isclose(got, wanted, rtol=golden.rtol, atol=golden.atol)
    if not close.all():
        at = tuple(np.argwhere(~close)[0])
        raise _wrong(f"output `{name}` is {got[at]:.9g}, {wanted[at]:.9g} was promised", where)


def _decide(
    manifest: Manifest, golden: Golden, found: Mapping[str, NDArray[np.float32]], where: str
) -> None:
    d = manifest.decision
    if d is None:
        return
    scores = found.get(d.output)
    if scores is None or scores.ndim > 1:
        raise _wrong(f"there is no single output `{d.output}` to decide on", where)
    if list(flags(scores, d)) != list(golden.flags):
        raise _wrong("the decision is another one than was promised", where)


def _wrong(what: str, where: str) -> PermanentError:
    return PermanentError(
        f"it does not do here what its manifest proves: {what}",
        where=where,
        fix="Make the package anew, with the runtime that the gateways have.",
        code="E688",
    )
