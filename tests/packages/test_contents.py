"""What is in the Debian packages. Run by ``make test-packages``."""

import hashlib
import importlib
import json
import os
import re
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.test_docs import ROOT

WORK = Path(os.environ.get("EDGE_AGENT_PACKAGES", ""))
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

pytestmark = pytest.mark.skipif(
    "EDGE_AGENT_PACKAGES" not in os.environ, reason="needs the built packages: make test-packages"
)


@dataclass
class Unpacked:
    """One package.

    Attributes:
        machine: What wheels call its processor.
        root: Its files.
        bill: What it says is in it.
        pins: (name, version) -> SHA-256 of the wheels, as pip is told.
    """

    machine: str
    root: Path

    def __post_init__(self):
        self.bill = json.loads((self.root / "usr/share/doc/edge-agent/sbom.cdx.json").read_text())
        (home,) = self.root.glob("opt/edge-agent/*/requirements.txt")
        found = [re.match(r"(\S+)==(\S+)((?: --hash=sha256:\w+)+)$", line)
                 for line in home.read_text().splitlines()]  # fmt: skip
        self.pins = {(m[1], m[2]): set(re.findall(r"sha256:(\w+)", m[3])) for m in found}
        self.wheels = sorted(home.parent.glob("wheels/*.whl"))


@pytest.fixture(scope="module", params=MACHINES)
def package(request, tmp_path_factory):
    """One for each processor."""
    (file,) = (WORK / request.param / "dist").glob("*.deb")
    root = tmp_path_factory.mktemp(request.param)
    subprocess.run(["dpkg-deb", "-x", file, root], check=True)
    return Unpacked(MACHINES[request.param], root)


def test_the_same_source_gives_the_same_bytes():
    """In another folder, by somebody with another umask, zone and language."""
    one, other = ((WORK / at / "dist").glob("*.deb") for at in ("amd64", "again/and/elsewhere"))
    assert next(one).read_bytes() == next(other).read_bytes()


def test_the_bill_is_one(package):
    """It keeps the strict schema of CycloneDX, every reference in it is to something."""
    schema = importlib.import_module("cyclonedx.schema").SchemaVersion.V1_6
    validator = importlib.import_module("cyclonedx.validation.json").JsonStrictValidator(schema)
    assert validator.validate_str(json.dumps(package.bill)) is None
    refs = {c["bom-ref"] for c in package.bill["components"]} | {"edge-agent"}
    needed = {d["ref"]: set(d["dependsOn"]) for d in package.bill["dependencies"]}
    assert set(needed) == refs
    assert set.union(*needed.values()) == refs - {"edge-agent"}


def test_the_bill_names_what_is_there(package):
    """Each wheel with name, version, digest, package URL, and a licence in SPDX's words; the
    environment is made of the same, and of nothing that the project has not pinned.
    """
    is_expression = importlib.import_module("cyclonedx.spdx").is_expression
    named = {}
    for one in package.bill["components"]:
        key = one["name"], one["version"]
        assert one["purl"] == f"pkg:pypi/{key[0]}@{key[1]}"
        assert is_expression(one["licenses"][0]["expression"]), one
        named[key] = {h["content"] for h in one["hashes"] if h["alg"] == "SHA-256"}
    there = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in package.wheels}
    assert set.union(*named.values()) == there
    assert {key: named[key] for key in package.pins} == package.pins
    pinned = (ROOT / "requirements-dev.txt").read_text() + (
        ROOT / "deploy/debian/pip.txt"
    ).read_text()
    listed = {tuple(line.lower().split("==")) for line in pinned.split()}
    own = {key for key in named if key[0] == "edge-agentd"}
    assert {k for k in named if k not in listed} == own
    scripts = [s for c in package.bill["components"] for s in c.get("components", ())]
    assert [s["purl"].rpartition("@")[0] for s in scripts] == ["pkg:npm/uplot"]


def test_both_pythons_find_a_wheel(package):
    """Of the compiled ones there is one for each Python, or one for all; none is of another
    processor.
    """
    for wheel in package.wheels:
        assert re.search(rf"-any\.whl$|{package.machine}\.whl$", wheel.name), wheel.name
    compiled = [w.name.split("-") for w in package.wheels if not w.name.endswith("-any.whl")]
    for name in {part[0] for part in compiled}:
        tags = {(p[2], p[3]) for p in compiled if p[0] == name}
        each = {("cp311", "cp311"), ("cp313", "cp313")}
        assert tags == each or {abi for _, abi in tags} == {"abi3"}, (name, tags)


def test_nothing_says_where_it_was_downloaded(package):
    """No address or host of an index in what we wrote: scripts, pins, bill, documents, wheel."""
    said = subprocess.check_output([ROOT / ".venv/bin/pip", "config", "list"], text=True)
    hosts = set(re.findall(r"https?://(?:[^/@\s']*@)?([^/:\s']+)", said))
    default = importlib.import_module("pip._internal.models.index").PyPI
    hosts |= {default.file_storage_domain, default.simple_url}
    words = [host.encode() for host in hosts]
    ours = next(w for w in package.wheels if w.name.startswith("edge_agentd-"))
    with zipfile.ZipFile(ours) as packed:
        found = {name: packed.read(name) for name in packed.namelist()}
    for path in package.root.rglob("*"):
        if path.is_file() and path.suffix != ".whl":
            found[str(path.relative_to(package.root))] = path.read_bytes()
    found |= {p.name: p.read_bytes() for p in (ROOT / "deploy/debian").iterdir()}
    found["requirements-dev.txt"] = (ROOT / "requirements-dev.txt").read_bytes()
    assert [(name, word) for name, text in found.items() for word in words if word in text] == []
    assert [
        n for n in found if re.search(rb"(?m)^\s*--?(?:index|extra-index|find-links)", found[n])
    ] == []
