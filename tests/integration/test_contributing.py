"""The worked example of CONTRIBUTING.md is code that runs."""

import re
import subprocess
import sys
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")

DRIVER = """
import asyncio, socket
from pathlib import Path
from agent.config.base import Context
from agent.config.load import loads
from agent.core.stats import Stats
from agent.plugins import installed
from agent.runtime.clock import SystemClock

async def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    text = Path("c.yaml").read_text().replace("9700", str(port))
    settings = loads(text, "c.yaml", installed())
    ctx = Context(SystemClock(), Stats(), "g1", "edge/g1", Path("."))
    source = settings.devices["office"].build("office", ctx)
    rows = []
    task = asyncio.create_task(source.run(lambda b, on_durable=None: rows.append(b)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        async with asyncio.timeout(10):
            while len(rows) < 2:
                s.sendto(b"21.5 48" if not rows else b"hello", ("127.0.0.1", port))
                await asyncio.sleep(0.02)
    task.cancel()
    print(rows[0].v.tolist(), rows[0].q.tolist(), rows[1].q.tolist())

asyncio.run(main())
"""


def _block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return found


def test_the_worked_example_runs(tmp_path):
    """Code, entry point and configuration of "add a protocol" work together as they stand."""
    (tmp_path / "room_sensor.py").write_text(_block("python"), encoding="utf-8")
    (tmp_path / "c.yaml").write_text(_block("yaml"), encoding="utf-8")
    entry = re.search(r'^(room = )"(.*)"$', _block("toml"), re.MULTILINE)
    info = tmp_path / "room_sensor-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: room-sensor\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[edge_agent.sources]\n{entry[1]}{entry[2]}\n")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "[[21.5, 48.0]] [[192, 192]] [[16, 16]]\n", done.stderr
