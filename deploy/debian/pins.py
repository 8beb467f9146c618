"""The pins of a folder of wheels: for pip with hashes, and as a bill of materials (CycloneDX).

SOURCE_DATE_EPOCH=... python deploy/debian/pins.py WHEELS VERSION --requirements FILE --sbom FILE
"""

import argparse
import email
import hashlib
import json
import os
import re
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# pip makes the environment and does not become part of it.
TOOLS = {"pip"}
OURS = "edge-agentd"
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "MIT License": "MIT",
}
"""What authors wrote before there were expressions, in the words of SPDX."""


@dataclass
class Library:
    """One name and version, in as many wheels as there are kinds of Python.

    Attributes:
        name: As the index writes it.
        about: What its first wheel says of itself.
        hashes: SHA-256 of each wheel.
        scripts: What it carries for browsers.
    """

    name: str
    about: Message
    hashes: list[str]
    scripts: list[dict[str, Any]]

    @property
    def version(self) -> str:
        """As its author writes it."""
        return self.about["Version"]

    @property
    def ref(self) -> str:
        """The package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"

    def needs(self) -> set[str]:
        """Names of libraries; of extras those of ours, which are all installed or not there."""
        wanted = map(Requirement, self.about.get_all("Requires-Dist", []))
        return {
            canonicalize_name(one.name)
            for one in wanted
            if self.name == OURS or "extra" not in str(one.marker)
        }

    def component(self) -> dict[str, Any]:
        """Its entry in the bill."""
        licence = self.about["License-Expression"] or self.about["License"]
        found = component(self.ref, self.name, self.version, SPDX.get(licence, licence))
        found["hashes"] = [{"alg": "SHA-256", "content": digest} for digest in self.hashes]
        return found | ({"components": self.scripts} if self.scripts else {})


def component(purl: str, name: str, version: str, licence: str) -> dict[str, Any]:
    """What every entry says."""
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "licenses": [{"expression": licence}]}  # fmt: skip


def opened(wheel: Path) -> Library:
    """What the wheel says about itself, and the scripts of the page in it."""
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        own = next(n for n in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        about = email.message_from_string(packed.read(own).decode())
        heads = [packed.read(n)[:200].decode() for n in names if n.endswith("/uplot.iife.min.js")]
    versions = [re.search(r"uPlot \(v([\d.]+)\)", head)[1] for head in heads]
    scripts = [component(f"pkg:npm/uplot@{v}", "uplot", v, "MIT") for v in versions]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Library(canonicalize_name(about["Name"]), about, [digest], scripts)


def bill(version: str, libraries: list[Library]) -> dict[str, Any]:
    """All of them, each with what it needs, as of SOURCE_DATE_EPOCH."""
    refs = {one.name: one.ref for one in libraries}
    needed = {one.ref: sorted(refs[n] for n in one.needs() if n in refs) for one in libraries}
    needed["edge-agent"] = sorted(refs[name] for name in {OURS, *TOOLS})
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(
                int(os.environ["SOURCE_DATE_EPOCH"]), UTC
            ).isoformat(),
            "component": {
                "type": "application", "bom-ref": "edge-agent", "name": "edge-agent",
                "version": version,
            },
        },
        "components": [one.component() for one in libraries],
        "dependencies": [{"ref": ref, "dependsOn": on} for ref, on in sorted(needed.items())],
    }  # fmt: skip


def main() -> None:
    """Write both files; the same wheels always give the same bytes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("wheels", type=Path)
    parser.add_argument("version")
    parser.add_argument("--requirements", type=Path, required=True)
    parser.add_argument("--sbom", type=Path, required=True)
    args = parser.parse_args()
    found: dict[str, Library] = {}
    for wheel in sorted(args.wheels.glob("*.whl")):
        one = opened(wheel)
        if one.ref in found:
            found[one.ref].hashes += one.hashes
        else:
            found[one.ref] = one
    lines = [
        " ".join([f"{one.name}=={one.version}", *(f"--hash=sha256:{h}" for h in one.hashes)])
        for one in found.values()
        if one.name not in TOOLS
    ]
    args.requirements.write_text("\n".join(lines) + "\n")
    args.sbom.parent.mkdir(parents=True, exist_ok=True)
    args.sbom.write_text(json.dumps(bill(args.version, list(found.values())), indent=1) + "\n")


if __name__ == "__main__":
    main()
