"""Commands of docs/operations.md and docs/security.md, as they stand, beside a running agent."""

import asyncio
import os
import re
import shlex
import sys
from pathlib import Path

from simulators.agent_process import AgentProcess
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, configure, device, told

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("operations.md", "security.md")
USUAL = "/etc/edge-agent/edge-agent.yaml"

PRELUDE = r"""
edge-agent() {
    local given=()
    [ "$1" = check ] || given=(-c "$CONFIG")
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
    assert [out for code, out in ran if code] == []
    assert (tmp_path / "box.tar.gz").stat().st_size > 1000


async def run(folder, config, lines):
    script = PRELUDE + "\n".join(lines).replace(USUAL, shlex.quote(str(config)))
    env = os.environ | {"CONFIG": str(config), "CHECKOUT": str(ROOT), "PYTHON": sys.executable}
    process = await asyncio.create_subprocess_exec(
        "bash", "-uc", script, cwd=folder, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, f"{lines}: {out.decode()}"
