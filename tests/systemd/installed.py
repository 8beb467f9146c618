"""A machine with the package installed: its device, model and file, and what it says."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from simulators import models
from tests.systemd.machine import CHECKOUT, Machine
from tests.systemd.packages import release

CONFIG: Final = """\
version: 1
gateway: {id: gateway-1}
devices:
  pump1:
    type: modbus
    connect: "tcp://127.0.0.1:5020"
    unit: 1
    addressing: zero_based
    poll: 100ms
    tags:
      flow: {reg: 0, as: uint16}
registries:
  main: {type: directory, url: "dir:///packages/registry", unsigned: accept}
models:
  m:
    registry: main
    channel: stable
    window: {kind: count, rows: 5}
    instances:
      pump1: {inputs: [pump1/flow, pump1/flow, pump1/flow]}
web: {listen: "127.0.0.1:8080"}
"""
DEVICE: Final = (CHECKOUT / "tests" / "qemu" / "plant.py").read_text()
FILE: Final = "/etc/edge-agent/edge-agent.yaml"
INSTALL_S: Final = 300.0


def shelf(folder: Path, *versions: str) -> None:
    """What the machine finds in /packages: packages, a device, and a registry with a model."""
    folder.chmod(0o755)
    for version in versions:
        release(folder, version)
    (folder / "device.py").write_text(DEVICE)
    offer(folder / "registry")


def offer(registry: Path) -> None:
    """Version 7.1 of the model ``m``: five rows of three tags."""
    offered, data = registry / "m", models.tiny()
    offered.mkdir(parents=True)
    (offered / "m.onnx").write_bytes(data)
    version = {"release": 1, "file": "m.onnx", "size": len(data),
               "sha256": hashlib.sha256(data).hexdigest()}  # fmt: skip
    index = {"schema": 1, "channels": {"stable": "7.1"}, "versions": {"7.1": version}}
    (offered / "index.json").write_text(json.dumps(index))


def begin(machine: Machine) -> None:
    """A device that answers, and the configuration taken over by a reload."""
    server = "systemd-run --unit=device /usr/bin/python3 /packages/device.py"
    assert machine.run(server).returncode == 0
    (machine.etc / "edge-agent.yaml").write_text(CONFIG)
    done = machine.run("systemctl reload edge-agent", 60.0)
    assert done.returncode == 0, machine.messages()


def install(machine: Machine, version: str) -> str:
    """`dpkg -i` of that version; what it said."""
    done = machine.run(f"dpkg --force-confold -i /packages/{version}.deb", INSTALL_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def current(machine: Machine) -> str:
    """The version in service."""
    return machine.run("readlink /opt/edge-agent/current").stdout.strip()


def rows(machine: Machine) -> list[str]:
    """The samples of pump1/flow in the journal, oldest first."""
    done = machine.run("edge-agent export --tags pump1/flow --from 24h")
    assert done.returncode == 0 or "E507" in done.stderr, done.stderr
    return done.stdout.splitlines()[1:]


def serving(machine: Machine) -> list[Any]:
    """The version of the model that is in service, if one is."""
    done = machine.run("edge-agent models list --json")
    if done.returncode != 0:
        return []
    return [e["version"] for e in json.loads(done.stdout) if e["serving"]]
