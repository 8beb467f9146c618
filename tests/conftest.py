"""Markers: what a test needs from the machine, and how to get it."""

import os
import random
import shutil
from pathlib import Path

import pytest

_PACKAGES = {
    "mosquitto": "mosquitto",
    "mosquitto_sub": "mosquitto-clients",
    "strace": "strace",
    "faketime": "libfaketime faketime",
    "mkfs.ext4": "e2fsprogs",
    "unshare": "util-linux",
    "gcc": "gcc libmodbus-dev",
}
STRICT = os.environ.get("EDGE_AGENT_STRICT") == "1"
SEED = int(os.environ.get("EDGE_AGENT_SEED") or random.SystemRandom().randrange(2**32))
"""Of every random instant; EDGE_AGENT_SEED repeats a run."""


def data_dir() -> Path:
    """Folder with ``data/`` and ``models/``: EDGE_AGENT_DATA, else ../shared."""
    default = Path(__file__).resolve().parents[2] / "shared"
    return Path(os.environ.get("EDGE_AGENT_DATA", default))


def pytest_report_header() -> str:
    """The seed, so that a run can be repeated."""
    return f"EDGE_AGENT_SEED={SEED}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip with the cure in the reason; in strict mode a missing need is a failure."""
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
                _missing(
                    f"{program} is not installed: apt-get install {_PACKAGES.get(program, program)}"
                )
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
