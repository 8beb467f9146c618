"""The check tells what a line can carry, before anybody drives 800 km."""

import json
import sqlite3
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
    """The same meters at 115200 baud fit; with a long timeout not when one of them has just
    died. What is late by half a second is made up; alone on its line, a device makes nobody late.
    """
    assert lines(loads(plant(115200, 30), "f", installed()))[0].need_s < 1.0
    text = plant(115200, 20).replace("500ms", "1s")
    (line,) = lines(loads(text, "f", installed()))
    assert line.need_s < 1.0
    assert line.dead_s > 1.5
    (problem,) = overloads([line])
    assert (problem.code, "one of its 20 units does not answer" in problem.what) == ("W301", True)
    assert not overloads(
        lines(loads(text.replace("timeout: 1s", "timeout: 800ms"), "f", installed()))
    )
    assert not overloads(lines(loads(plant(9600, 1).replace("500ms", "3s"), "f", installed())))


def test_what_was_measured_is_counted_with(tmp_path: Path):
    """The latency that the agent has kept of a device takes the place of the file's, and the
    check says so; where no agent has run the file counts.
    """
    file = tmp_path / "plant.yaml"
    file.write_text(plant(9600, 2) + f"data_dir: {tmp_path}\n", encoding="utf-8")

    def says() -> str:
        command = [sys.executable, "-m", "agent", "check", str(file)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False
        ).stdout

    before = says()
    assert "that was measured" not in before
    with sqlite3.connect(tmp_path / "journal.db") as conn:
        conn.execute("CREATE TABLE state(ns TEXT, key TEXT, json TEXT)")
        key = "m1@rtu:///dev/ttyUSB0#1"
        conn.execute("INSERT INTO state VALUES ('latency', ?, '0.2')", (key,))
    conn.close()
    assert "that was measured" in says()
    settings = loads(file.read_text(encoding="utf-8"), "f", installed())
    (line,) = lines(settings)
    (slower,) = lines(settings, {key: 0.1})
    assert slower.need_s - line.need_s == pytest.approx(2.1 * 0.09)
