"""The check tells what a line can carry, before anybody drives 800 km."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.config.budget import lines, overloads
from agent.config.load import loads
from agent.plugins import installed

METERS = """\
version: 1
gateway: {{id: g1}}
profiles:
  meter: {{type: modbus, connect: "rtu:///dev/ttyUSB0", addressing: zero_based,
          serial: {{baud: {baud}}}, poll: 1s, timeout: 500ms, latency: 10ms, classes: {{slow: 10s}},
          tags: {{a: {{reg: 0}}, b: {{reg: 100}}, c: {{reg: 300, class: slow}}}}}}
devices:
"""


def plant(baud, count):
    """*count* meters on one line, two requests each second and one each ten seconds."""
    text = METERS.format(baud=baud)
    return text + "".join(f"  m{i}: {{profile: meter, unit: {i}}}\n" for i in range(1, count + 1))


def test_the_line_time_is_counted_out():
    """At 9600 baud a request for one register takes 15 characters, two silences and 10 ms."""
    settings = loads(plant(9600, 10), "f", installed())
    (line,) = lines(settings)
    one = 15 * 11 / 9600 + 2 * 3.5 * 11 / 9600 + 0.010
    assert line.need_s == pytest.approx(10 * (2 * one + one / 10))
    assert line.dead_s == pytest.approx(line.need_s + 0.5)
    assert line.period_s == 1.0


def test_a_line_that_cannot_keep_its_period_is_named(tmp_path: Path):
    """Thirty meters at 9600 baud do not fit into a second: advice, exit code 1, also as JSON."""
    file = tmp_path / "plant.yaml"
    file.write_text(plant(9600, 30), encoding="utf-8")

    def check(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent", "check", str(file), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    told = check()
    assert told.returncode == 1
    words = "warning[W301]: rtu:///dev/ttyUSB0 needs 2.22 s per cycle, you asked for 1 s"
    assert words in told.stdout
    (problem,) = json.loads(check("--json").stdout)
    assert (problem["code"], problem["file"]) == ("W301", str(file))


def test_a_faster_line_keeps_it():
    """The same meters at 115200 baud fit."""
    assert not overloads(lines(loads(plant(115200, 30), "f", installed())))
