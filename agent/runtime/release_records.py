"""The record of a model's versions as plain data, and how the one of an older agent is read."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from agent.core.registry import Artifact
from agent.runtime.life import Release, Version
from agent.runtime.stages import SERVING, UNDER_WAY, Stage

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_OLD: Final = {
    "fetched": Stage.VERIFIED,
    "trying": Stage.VERIFIED,
    "refused": Stage.REJECTED,
    "rolled_back": Stage.REJECTED,
}
"""What the stage of a model said about its candidate, until versions had stages of their own."""

PathOf = Callable[[str], Path]
"""Where the file of a digest is."""


def write(release: Release) -> dict[str, Any]:
    """As plain data."""
    return {
        "versions": [_plain(v) for v in release.versions],
        "last_error": release.last_error,
        "out": release.out,
        "highest": release.highest,
        "pinned": release.pinned,
        "held": release.held,
    }


def facts(artifact: Artifact) -> dict[str, Any]:
    """A version's file as plain data."""
    return {
        "version": artifact.version,
        "release": artifact.release,
        "digest": artifact.digest,
        "manifest": artifact.manifest,
        "signer": artifact.signer,
    }


def _plain(version: Version) -> dict[str, Any]:
    return facts(version.artifact) | {
        "stage": str(version.stage),
        "since_ns": version.since_ns,
        "reason": version.reason,
        "evidence": dict(version.evidence),
        "elapsed_s": version.elapsed_s,
        "tries": version.tries,
        "served_ns": version.served_ns,
        "kept": version.kept,
    }


def read(name: str, value: Mapping[str, Any], path: PathOf) -> Release:
    """From plain data; parts that make no sense count as not known."""
    found = value.get("versions")
    if not isinstance(found, list):
        versions = _migrated(name, value, path)
    else:
        versions = [v for one in found if (v := _version(name, one, path)) is not None]
    return Release(
        _one_each(versions),
        str(value.get("last_error") or ""),
        str(value.get("out") or ""),
        _integer(value.get("highest")),
        str(value.get("pinned") or ""),
        value.get("held") is True,
    )


def _one_each(versions: list[Version]) -> tuple[Version, ...]:
    """Each digest once, and of what serves or is under way the newest only."""
    kept: list[Version] = []
    seen: set[str] = set()
    for version in reversed(versions):
        stage = version.stage
        place = "under way" if stage in UNDER_WAY else str(stage) if stage in SERVING else ""
        if version.digest in seen or place in seen - {""}:
            continue
        seen |= {version.digest, place}
        kept.append(version)
    return tuple(reversed(kept))


def _version(name: str, value: object, path: PathOf) -> Version | None:
    artifact = _artifact(name, value, path)
    if artifact is None or not isinstance(value, Mapping):
        return None
    stage, evidence, elapsed = (value.get(k) for k in ("stage", "evidence", "elapsed_s"))
    if stage not in set(Stage):
        return None
    return Version(
        artifact,
        Stage(stage),
        _integer(value.get("since_ns")),
        str(value.get("reason") or ""),
        evidence if isinstance(evidence, dict) else {},
        float(elapsed) if isinstance(elapsed, int | float) else 0.0,
        _integer(value.get("tries")),
        _integer(value.get("served_ns")),
        value.get("kept") is not False,
    )


def _artifact(name: str, value: object, path: PathOf) -> Artifact | None:
    if not isinstance(value, Mapping):
        return None
    version, release, digest = (value.get(k) for k in ("version", "release", "digest"))
    if not isinstance(release, int) or not isinstance(digest, str):
        return None
    if not _DIGEST.fullmatch(digest):
        return None
    manifest, signer = (str(value.get(k) or "") for k in ("manifest", "signer"))
    return Artifact(name, str(version), release, digest, path(digest), manifest, signer)


def _migrated(name: str, value: Mapping[str, Any], path: PathOf) -> list[Version]:
    """The state of an agent that knew three versions and a list of blocked digests."""
    found: list[Version] = []
    blocked = value.get("blocked")
    for digest in blocked if isinstance(blocked, list) else ():
        if isinstance(digest, str) and _DIGEST.fullmatch(digest):
            known = Artifact(name, digest[:12], 0, digest, path(digest))
            found.append(Version(known, Stage.ROLLED_BACK, 0, "blocked earlier", kept=False))
    stages = {
        "previous": Stage.RETIRED,
        "active": Stage.ACTIVE,
        "candidate": _OLD.get(str(value.get("stage")), Stage.REJECTED),
    }
    taken = {v.digest for v in found}
    for key, stage in stages.items():
        artifact = _artifact(name, value.get(key), path)
        if artifact is None or (artifact.digest in taken and key != "active"):
            continue
        found = [v for v in found if v.digest != artifact.digest]
        tries = _integer(value.get("tries")) if key == "candidate" else 0
        served_ns = 1 if stage is Stage.RETIRED else 0
        found.append(Version(artifact, stage, 0, tries=tries, served_ns=served_ns))
    return found


def _integer(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
