"""Making a package: from an ONNX file, a few lines of YAML and healthy rows to a manifest.

Windows, features, decision and proof run through the code of the gateway, the model in its
sandboxed worker: what the package shows is what a gateway will do.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.codecs.onnx import scan
from agent.config import manifest as files
from agent.config import manifest_parts as parts
from agent.config.manifest import ManifestFile, PackSpec, preparation
from agent.config.windows import window
from agent.core.decision import flags
from agent.core.errors import PermanentError
from agent.core.manifest import Manifest
from agent.core.ports import LoadedModel
from agent.core.recording import Recording, cuts
from agent.core.reference import reference
from agent.core.stats import Stats
from agent.core.window import CountWindow, Window
from agent.inference.host import WorkerHost
from agent.runtime.clock import SystemClock
from agent.runtime.proof import check_needs, prepared, prove
from agent.runtime.trial import Fit, check_fit

GOLDEN_WINDOWS: Final = 5
"""Windows in each golden recording."""

HEALTHY: Final = 0.999
MARGIN: Final = 0.1
"""A fitted limit: what 99.9 % of healthy scores keep, and a tenth of its way from their median."""

_CALL: Final = 256
_LOAD_S: Final = 60.0
_CALL_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Packed:
    """A manifest, and what its maker should know.

    Attributes:
        windows: Healthy windows scored.
        alarms: Share of them on which the decision stands; None without a decision.
        limit: A limit that nearly all of them keep; None without a decision.
    """

    manifest: ManifestFile
    windows: int
    alarms: float | None
    limit: float | None


async def pack(model: bytes, spec: PackSpec, healthy: Recording, created: datetime) -> Packed:
    """The manifest of *model*; `PermanentError` when it would not run on a gateway."""
    where = f"model {spec.name}"
    scan(model, spec.requires.operators, where)
    spec = _fitted(spec, healthy)
    shape, prepare, deciding = window(spec.window), preparation(spec), spec.decision
    x = _windows(healthy, shape, where)
    digest = hashlib.sha256(model).hexdigest()
    async with WorkerHost(Stats(), SystemClock(), role="candidate") as host:
        loaded = await host.load(digest, model, _LOAD_S)
        fit = Fit(shape.rows, len(spec.channels), None if deciding is None else deciding.decision())
        check_fit(loaded, fit.fed(prepare))
        outputs = await _scored(host, digest, x if prepare is None else prepare(x))
        file = _manifest(spec, model, digest, loaded, created)
        scores = _deciding(spec, outputs)
        file = file.model_copy(update={"reference": _reference(x[:, -1], spec, scores)})
        picked = [_golden(part) for part in _parts(healthy, shape, len(x), scores)]
        proven = await _proven(file, picked, lambda given: host.predict(digest, given, _CALL_S))
    return Packed(proven, len(x), _share(spec, scores), _limit(spec, scores))


async def fit(
    model: bytes,
    parent: ManifestFile,
    changes: Mapping[str, Any],
    healthy: Recording,
    now: datetime,
) -> Packed:
    """The package *parent* for one machine: the parameters that it declares, set anew.

    Normalisation becomes that of *healthy*; the limit one that nearly all healthy scores keep.
    *changes* are the new name, version, release and provenance.
    """
    if not parent.fit:
        raise PermanentError(
            "its manifest declares nothing that may be fitted",
            where=f"model {parent.name} {parent.version}",
            fix="Write `fit: [normalisation, limit]` when it is packed.",
            code="E693",
        )
    facts = {name: getattr(parent, name) for name in PackSpec.model_fields} | dict(changes)
    if "normalisation" in parent.fit:
        facts["normalisation"] = "fit"
    packed = await pack(model, PackSpec.model_validate(facts), healthy, now)
    decision, limit = parent.decision, packed.limit
    if "limit" not in parent.fit or decision is None or limit is None:
        return packed
    off = None if decision.off is None else limit - (decision.above - decision.off)
    facts["decision"] = decision.model_copy(update={"above": limit, "off": off})
    return await pack(model, PackSpec.model_validate(facts), healthy, now)


async def verify(model: bytes, manifest: Manifest) -> int:
    """Everything a gateway checks of a package but signatures; how many windows were compared."""
    where = f"model {manifest.name} {manifest.version}"
    digest = hashlib.sha256(model).hexdigest()
    if (digest, len(model)) != (manifest.sha256, manifest.size):
        raise PermanentError(
            "the model file is not the one of the manifest",
            where=where,
            fix="Take both files of the same package.",
            code="E685",
        )
    check_needs(manifest)
    scan(model, manifest.requires.operators, where)
    async with WorkerHost(Stats(), SystemClock(), role="candidate") as host:
        await host.load(digest, model, _LOAD_S)
        return await prove(manifest, lambda given: host.predict(digest, given, _CALL_S))


def _fitted(spec: PackSpec, healthy: Recording) -> PackSpec:
    """With the mean and the scale of the healthy rows where they are asked for."""
    if spec.normalisation != "fit":
        return spec
    mean, std = np.nanmean(healthy.v, axis=0), np.nanstd(healthy.v, axis=0)
    scale = np.where(std > 1e-9, std, 1.0)
    fitted = parts.Normalisation(mean=mean.tolist(), scale=scale.tolist())
    return spec.model_copy(update={"normalisation": fitted})


def _windows(healthy: Recording, shape: Window, where: str) -> NDArray[np.float32]:
    found = [cut.x for cut in cuts(healthy, shape)]
    if not found:
        raise PermanentError(
            f"the {len(healthy)} healthy rows hold no whole window of {shape.rows} rows",
            where=where,
            fix="Give more rows, or a smaller window.",
            code="E691",
        )
    return np.stack(found)


async def _scored(
    host: WorkerHost, digest: str, x: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    parts = [await host.predict(digest, x[i : i + _CALL], _CALL_S) for i in range(0, len(x), _CALL)]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _deciding(
    spec: PackSpec, outputs: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float64] | None:
    """The scores that decide, (n,); the first single output where nothing decides."""
    if spec.decision is not None:
        return outputs[spec.decision.output].astype(np.float64).reshape(-1)
    single = [v for v in outputs.values() if v.ndim == 1]
    return single[0].astype(np.float64) if single else None


def _share(spec: PackSpec, scores: NDArray[np.float64] | None) -> float | None:
    d = spec.decision
    if d is None or scores is None:
        return None
    return float(flags(scores, d.decision()).mean())


def _limit(spec: PackSpec, scores: NDArray[np.float64] | None) -> float | None:
    if spec.decision is None or scores is None or not np.isfinite(scores).any():
        return None
    middle, high = np.nanquantile(scores, [0.5, HEALTHY])
    return float(high + MARGIN * (high - middle))


def _manifest(
    spec: PackSpec, model: bytes, digest: str, loaded: LoadedModel, created: datetime
) -> ManifestFile:
    outputs = spec.outputs or [parts.Output(name=name) for name in loaded.outputs]
    facts = {name: getattr(spec, name) for name in PackSpec.model_fields} | {"outputs": outputs}
    return ManifestFile.model_construct(
        **facts,
        schema_=1,
        created=created,
        model=parts.ModelFile(sha256=digest, size=len(model)),
        reference=None,
        golden=[],
    )


def _reference(
    rows: NDArray[np.float32], spec: PackSpec, scores: NDArray[np.float64] | None
) -> parts.ReferenceSection:
    """Of the newest row of every window (n, k), because that is what a gateway goes by."""
    columns = dict(zip((c.name for c in spec.channels), rows.T.astype(np.float64), strict=True))
    if scores is not None and spec.decision is not None:
        columns[f"output/{spec.decision.output}"] = scores
    found = {}
    for name, values in columns.items():
        if not np.isfinite(values).any():
            continue
        facts: dict[str, Any] = asdict(reference(values))
        facts["p"] = [round(float(p), 6) for p in facts["p"]]
        facts["limits"] = {str(n): limits for n, limits in facts["limits"].items()}
        found[name] = parts.ReferenceColumn.model_validate(facts)
    return parts.ReferenceSection(rows=len(rows), columns=found)


def _parts(
    healthy: Recording, shape: Window, windows: int, scores: NDArray[np.float64] | None
) -> list[Recording]:
    """The first rows, some from the middle, and those with the highest score."""
    if isinstance(shape, CountWindow):
        length = shape.rows + GOLDEN_WINDOWS - 1
    else:
        span_ns = (shape.rows * shape.period_ns + GOLDEN_WINDOWS * shape.stride_ns) * 2
        length = int((healthy.t < healthy.t[0] + span_ns).sum()) + 1
    starts = [0, max(0, (len(healthy) - length) // 2)]
    if scores is not None and np.isfinite(scores).any():
        worst = int(np.nanargmax(scores)) * len(healthy) // max(windows, 1)
        starts.append(max(0, min(worst - length // 2, len(healthy) - length)))
    return [healthy.part(slice(s, s + length)) for s in dict.fromkeys(starts)]


def _golden(part: Recording) -> parts.GoldenSection:
    facts = {
        "t_ms": [round(int(t - part.t[0]) / 1e6) for t in part.t],
        "rows": [[float(c) if np.isfinite(c) else None for c in row] for row in part.v],
        "outputs": {},
    }
    return parts.GoldenSection.model_validate(facts)


async def _proven(
    file: ManifestFile,
    picked: Sequence[parts.GoldenSection],
    predict: Callable[[NDArray[np.float32]], Awaitable[Mapping[str, NDArray[np.float32]]]],
) -> ManifestFile:
    """With golden recordings whose outputs were computed from the rows as the file has them."""
    known = files.build(file.model_copy(update={"golden": list(picked)}))
    golden = []
    for section, raw in zip(picked, known.golden, strict=True):
        x = prepared(known, raw)
        if not len(x):
            continue
        found = await predict(x)
        d = known.decision
        marks = [] if d is None else flags(_flat(found[d.output]), d).tolist()
        outputs = {name: values.astype(np.float64).tolist() for name, values in found.items()}
        golden.append(section.model_copy(update={"outputs": outputs, "flags": marks}))
    whole = file.model_copy(update={"golden": golden})
    checked = files.read(whole.model_dump_json(by_alias=True).encode(), f"model {file.name}")
    await prove(files.build(checked), predict)
    return checked


def _flat(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    return scores.astype(np.float64).reshape(-1)
