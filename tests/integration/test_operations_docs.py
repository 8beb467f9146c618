"""Commands of the documents, beside a running agent: blocks of a shell as they stand, and what a
sentence or a table tells an operator to type, with names of this test filled in.
"""

import asyncio
import os
import re
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from agent.cli.main import command_line
from simulators.agent_process import AgentProcess
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, committed, configure, device, told
from tests.tools import until
from tests.unit.test_docs_commands import PAGES as ALL_PAGES
from tests.unit.test_docs_commands import shown

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("operations.md", "security.md")
USUAL = "/etc/edge-agent/edge-agent.yaml"

PRELUDE = r"""
edge-agent() {
    local given=(-c "$CONFIG")
    case "$*" in
        check | dry-run) given=("$CONFIG") ;;
        check\ * | dry-run\ * | config\ migrate* | config\ reference | config\ schema) given=() ;;
    esac
    PYTHONPATH="$CHECKOUT" "$PYTHON" -m agent "$@" "${given[@]}"
    local code=$?
    [ $code -le 1 ] || exit $code
}
"""
"""The command of this checkout, asking the agent of this test. 1 says that something was found."""


def scripts():
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        yield from re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


async def test_what_an_operator_is_told_to_type_works(tmp_path):
    """Each block marked as a shell's runs to its end; nothing ends as a defect or is refused."""
    async with ModbusServer({1: Counting()}) as server:
        path = configure(tmp_path, devices={"d": device(server.url)})
        async with AgentProcess(path) as agent:
            await told(agent, lambda s: s["tags"])
            lines = [x for block in scripts() for x in block.splitlines() if x.strip()]
            assert len(lines) >= 12
            ran = await asyncio.gather(*(run(tmp_path, path, [x]) for x in lines))
    assert not any(code for code, _ in ran), "\n".join(out for code, out in ran if code)
    assert (tmp_path / "box.tar.gz").stat().st_size > 1000


FILLED = {
    "TAG": "d/n", "pump1/flow": "d/n", "model/pump1~batch/score": "d/n", "DEVICE": "d",
    "CODE": "E101", "EVENT": "agent.ready", "FILE": USUAL, "VALUE": "1", "N": "1",
    "TIME": "1s", "SECONDS": "1", "ROLE": "viewer",
}  # fmt: skip
ELSEWHERE = {
    "apply": "integration/test_takeover.py", "backup": "contract/test_backup.py",
    "bundle": "integration/test_bundle.py", "config rollback": "integration/test_takeover.py",
    "demo": "integration/test_demo.py", "doctor": "integration/test_doctor.py",
    "fleet": "integration/test_fleet_cli.py", "models": "integration/test_models_cli.py",
    "plan": "integration/test_takeover.py", "probe": "integration/test_commissioning.py",
    "record": "integration/test_recording.py", "reload": "integration/test_takeover.py",
    "replay": "integration/test_recording.py", "restore": "contract/test_backup.py",
    "run": "integration/test_start.py", "scan": "integration/test_commissioning.py",
    "simulate": "integration/test_simulate.py", "tags": "integration/test_cli_tags.py",
    "tail": "integration/test_overrides.py", "web enable": "integration/test_page.py",
    "write": "integration/test_commanded_agent.py",
}  # fmt: skip
"""What needs a scene of its own, changes this one, or never ends -> the test that runs it."""


def typed():
    """What the pages tell an operator to type, without what may be left out, once each."""
    for page in ALL_PAGES:
        for command in shown(page.read_text(encoding="utf-8")):
            plain = re.sub(r"\[[^]]*\]|\s#.*|…", "", command).replace("\\|", "|")
            words = [FILLED.get(w, w.split("|")[0]) for w in shlex.split(plain)[1:]]
            if words[0] in ELSEWHERE or " ".join(words[:2]) in ELSEWHERE or "--help" in words:
                continue
            if not re.match(r"explain [EW](?!101)", " ".join(words)) and whole(words):
                yield shlex.join(["edge-agent", *words])


def whole(words):
    """Does it say all that the command must be given, or is it a mention?"""
    with suppress(SystemExit), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        command_line(words).parse_args(words)
        return True
    return False


async def test_what_a_sentence_tells_an_operator_to_type_works(tmp_path):
    """Nothing ends as wrong use, as a defect, or refused."""
    async with ModbusServer({1: Counting()}) as server:
        path = configure(tmp_path, devices={"d": device(server.url)})
        async with AgentProcess(path) as agent:
            await told(agent, lambda s: s["tags"])
            await until(lambda: any("agent" in row for row in committed(tmp_path / "data")), 10)
            blocks = " ".join(scripts())
            lines = sorted(x for x in set(typed()) if f"{x} " not in blocks)
            ran = await asyncio.gather(*(run(tmp_path, path, [x]) for x in lines))
    assert len(lines) >= 15
    assert not any(code for code, _ in ran), "\n".join(out for code, out in ran if code)


def test_what_is_run_elsewhere_is_run_there():
    """The test that is named for a command has it in it."""
    for command, file in ELSEWHERE.items():
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f'"{command.split()[-1]}"' in text, f"{command}: {file}"


async def run(folder, config, lines):
    script = PRELUDE + "\n".join(lines).replace(USUAL, shlex.quote(str(config)))
    env = os.environ | {"CONFIG": str(config), "CHECKOUT": str(ROOT), "PYTHON": sys.executable}
    process = await asyncio.create_subprocess_exec(
        "bash", "-uc", script, cwd=folder, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, f"{lines}: {out.decode()}"
