"""The pins of a folder of wheels: for pip with hashes, and as a bill of materials (CycloneDX).

python deploy/debian/pins.py WHEELS VERSION --requirements FILE --sbom FILE
"""

import argparse
import email
import hashlib
import json
import re
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

# pip makes the environment and does not become part of it.
TOOLS = {"pip"}


def metadata(wheel: Path) -> Message:
    """What the wheel says about itself."""
    with zipfile.ZipFile(wheel) as packed:
        name = next(n for n in packed.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        return email.message_from_string(packed.read(name).decode())


def component(about: Message, hashes: list[str]) -> dict[str, Any]:
    """One library, under its name in the Python world."""
    name, version = about["Name"].lower().replace("_", "-"), about["Version"]
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in hashes],
    }
    if about["License-Expression"]:
        found["licenses"] = [{"expression": about["License-Expression"]}]
    elif about["License"] and "\n" not in about["License"]:
        found["licenses"] = [{"license": {"name": about["License"]}}]
    return found


def main() -> None:
    """Write both files; the same wheels always give the same bytes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("wheels", type=Path)
    parser.add_argument("version")
    parser.add_argument("--requirements", type=Path, required=True)
    parser.add_argument("--sbom", type=Path, required=True)
    args = parser.parse_args()
    found: dict[str, tuple[Message, list[str]]] = {}
    for wheel in sorted(args.wheels.glob("*.whl")):
        about = metadata(wheel)
        pin = f"{about['Name'].lower().replace('_', '-')}=={about['Version']}"
        found.setdefault(pin, (about, []))[1].append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    lines = [
        " ".join([pin, *(f"--hash=sha256:{digest}" for digest in hashes)])
        for pin, (_, hashes) in found.items()
        if pin.partition("==")[0] not in TOOLS
    ]
    args.requirements.write_text("\n".join(lines) + "\n")
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "name": "edge-agent", "version": args.version}
        },
        "components": [component(about, hashes) for about, hashes in found.values()],
    }
    args.sbom.parent.mkdir(parents=True, exist_ok=True)
    args.sbom.write_text(json.dumps(bill, indent=1) + "\n")


if __name__ == "__main__":
    main()
