"""The demo: what a newcomer runs first tells its whole story and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from simulators.demo import HEADLESS_S, Script
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")

DEMO = (Path(sys.executable).with_name("edge-agent"), "demo", "--headless")
"""As `make demo` runs it: by the installed command."""


def test_the_story_fits_the_time_it_is_given() -> None:
    """The fault begins before the second version, and both well before the end."""
    for end_s in (20.0, 60.0, 300.0, None):
        script = Script.of(end_s, headless=True)
        assert script.fault_s < script.second_s <= (end_s or HEADLESS_S) / 2 + 5.0


def test_everything_arrives_at_the_broker() -> None:
    """Data, results of both versions, the alarm, births and status arrive; contract unbroken."""
    done = subprocess.run(
        [*DEMO, "--for", "30"], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "demo: everything arrived" in done.stdout


def left(folder: Path) -> list[Path]:
    """Temporary folders of demos."""
    return list(folder.glob("edge-agent-demo-*"))


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: the demo makes a socket below it, and Unix allows 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        yield Path(name)


async def test_an_interrupt_ends_everything(short: Path) -> None:
    """After Ctrl-C no process is left, and the temporary folder is gone."""
    env = os.environ | {"TMPDIR": str(short)}
    log = short / "out"
    with log.open("w") as file:
        demo = subprocess.Popen([*DEMO, "--for", "60"], stdout=file, stderr=file, env=env)
    try:
        await until(lambda: "listen along" in log.read_text(), 60.0)
        family = psutil.Process(demo.pid).children(recursive=True)
        assert family
        demo.send_signal(signal.SIGINT)
        await until(lambda: demo.poll() is not None, 60.0)
        assert demo.returncode == 0, log.read_text()
        await until(lambda: not [p for p in family if p.is_running()])
        assert not left(short)
    finally:
        if demo.poll() is None:  # its children have sessions of their own: nobody else ends them
            for process in [*psutil.Process(demo.pid).children(recursive=True), demo]:
                process.kill()
        demo.wait()
