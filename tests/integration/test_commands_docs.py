"""docs/commands.md and operations.md against the code."""

import json
import re
from pathlib import Path

from agent.config.load import loads
from agent.plugins import installed
from tests.contracts import problems

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "commands.md").read_text("utf-8")
SOURCES = [
    ROOT / "agent" / part
    for part in (
        "runtime/commands.py",
        "runtime/command_ids.py",
        "runtime/writes.py",
        "runtime/write_switch.py",
        "app/tagverbs.py",
        "app/bundleverb.py",
        "sources/modbus_write.py",
        "codecs/modbus_encode.py",
        "config/permissions.py",
    )
]


def test_the_payloads_shown_keep_the_contract():
    """The request and the answers on the page are such as the schema allows."""
    (request,) = re.findall(r"```json\n(\{\"id\".*?)```", TEXT, re.DOTALL)
    answers = re.findall(r"```json\n(\{\"v\".*?)```", TEXT, re.DOTALL)
    assert problems("a/g/_cmd/write", request.encode()) == []
    parts = "".join(answers).replace("\n ", "").strip().splitlines()
    assert len(parts) == 4
    for part in parts:
        name = json.loads(part)["id"]
        assert problems(f"a/g/_cmd/write/reply/{name}", part.encode()) == []


def test_the_settings_shown_are_accepted():
    """The sections of the page, in a file with the tags that they name."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    device = ('{type: modbus, connect: "tcp://h:502", unit: 1, addressing: zero_based, tags: '
              "{setpoint: {reg: 0}, start: {reg: 1, bit: 0}, command: {reg: 2}}}")  # fmt: skip
    head = (f"version: 1\ngateway: {{id: g}}\ndevices:\n  pump1: {device}\n  drive1: {device}\n"
            'sinks: {plant: {type: mqtt_json, connect: "mqtt://b:1883"}}\n')  # fmt: skip
    settings = loads(head + shown, "shown.yaml", installed())
    assert settings.writes is not None
    assert len(settings.writes.tags) == 3


def test_every_word_and_code_is_explained():
    """What may be answered stands on the page; its code stands in operations.md."""
    code = "\n".join(p.read_text("utf-8") for p in SOURCES)
    words = set(re.findall(r'Declined\(\s*"([a-z_]+)"', code))
    words |= set(re.findall(r'(?:"result": |Unencodable\()"([a-z_]+)"', code)) - {
        "accepted",
        "dropped",
    }
    assert len(words) > 15
    assert {w for w in words if f"`{w}`" not in TEXT} == set()
    codes = set(re.findall(r'"(E(?:23|28|35|36|79)\d)"', code))
    listed = set(re.findall(r"\bE\d\d\d\b", (ROOT / "docs" / "operations.md").read_text("utf-8")))
    assert codes <= listed
