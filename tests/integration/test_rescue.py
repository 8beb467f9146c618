"""Neither the file nor a last good one can be used: the page comes up and says why."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing

import httpx
import pytest

from agent.app.rescue import section_of
from agent.config.web import DEFAULT
from agent.storage.configs import Configs
from simulators.agent_process import AgentEnded, AgentProcess
from tests.agents import Manager, configure, told
from tests.integration.test_page import enter
from tests.tools import until

SOUND = {"gateway": {"id": "gw"}, "web": {"listen": "127.0.0.1:0"}}


def broken(folder, **last):
    """A file with a mistake; *last* is the `web:` of a last good one that is refused by now."""
    config = configure(folder, **SOUND)
    sound = config.read_text()
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "last-good.yaml").write_text(f"version: 1\n{last.get('web', '')}\n")
    config.write_text(sound.replace('"gateway"', '"gatewai"'))
    return config, sound


@asynccontextmanager
async def rescued(config, **env):
    async with AgentProcess(config, env=env) as agent:
        await until(lambda: "web.listening" in agent.tail(100_000))
        port = re.findall(r'"port": (\d+)', agent.tail(100_000))[-1]
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            yield agent, client


async def command(config, *words):
    return await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "agent", *words, "-c", str(config)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


async def test_the_page_says_what_is_wrong_and_a_sound_file_runs(tmp_path):
    """Line and caret on the page, in `status` and to systemd; health 503; a draft is checked; a
    reload of a file that is still broken is refused, of a sound one the agent runs in the same
    process, and the journal was not touched meanwhile.
    """
    config, sound = broken(tmp_path, web='web: {listen: "127.0.0.1:0"}')
    with Manager(tmp_path) as manager:
        async with rescued(config, **manager.environment(10)) as (agent, client):
            status = (await client.get("/api/status")).json()
            assert status["state"] == "rescue"
            shown = status["config"]["refused"]
            assert "error[E104]: `gatewai`" in shown
            assert '"gatewai": {' in shown
            assert " ^^^^^^^" in shown
            health = await client.get("/healthz")
            assert (health.status_code, health.json()["state"]) == (503, "rescue")
            metrics = (await client.get("/metrics")).text
            assert "edge_agent_config_refused 1.0" in metrics
            assert "edge_agent_degraded 1.0" in metrics
            plan = await client.post("/api/config.plan", json={"text": config.read_text()})
            assert "did you mean `gateway`?" in plan.json()["refused"]
            plan = await client.post("/api/config.plan", json={"text": sound})
            assert plan.json()["breaks"] == []
            told_ = await command(config, "status")
            assert (told_.returncode, "error[E104]" in told_.stdout) == (1, True)
            refused = await command(config, "reload")
            assert (refused.returncode, "error[E104]" in refused.stderr) == (78, True)
            os.kill(agent.pid, signal.SIGHUP)
            await until(lambda: "config.refused" in agent.tail(100_000))
            assert not (tmp_path / "data" / "journal.db").exists()
            token = await enter(agent, client, "admin")
            config.write_text(sound)
            done = await client.post("/api/reload", json={}, headers=token)
            assert done.status_code == 200, done.text
            status = await told(agent, lambda s: s["state"] == "running")
            assert (status["gateway"], status["config"]["refused"]) == ("gw", "")
            assert (await command(config, "reload")).stdout == "nothing changed\n"
            assert await agent.terminate() == 0
        said = manager.lines()
        states = [x for x in said if x in {"READY=1", "RELOADING=1", "STOPPING=1"}]
        assert states[:3] == ["READY=1", "RELOADING=1", "READY=1"]
        assert any(x.startswith("STATUS=RESCUE: ") and "edge.yaml" in x for x in said)
    with closing(sqlite3.connect(tmp_path / "data" / "journal.db")) as db:
        trail = db.execute("SELECT kind, actor, facts FROM audit").fetchall()
    assert {("web.login", "web:admin"), ("web", "web:admin")} <= {t[:2] for t in trail}
    assert any('"during": "rescue"' in facts for *_, facts in trail)


async def test_it_ends_when_told_to(tmp_path):
    """SIGTERM in the rescue: exit code 0, and no socket or mark is left behind."""
    config, _ = broken(tmp_path, web='web: {listen: "127.0.0.1:0"}')
    async with rescued(config) as (agent, _):
        assert (tmp_path / "data" / "rescue").exists()
        assert await agent.terminate() == 0
    assert {p.name for p in (tmp_path / "data").iterdir()} == {"last-good.yaml"}


@pytest.mark.parametrize("web", ["", 'web: {listen: "192.0.2.1:8080", cert: c, key: k}'])
async def test_without_a_page_it_does_not_run(tmp_path, web):
    """The page was off, or its address cannot be had: exit code 78 with every problem."""
    config, _ = broken(tmp_path, web=web)
    with pytest.raises(AgentEnded, match=r"(?s)code 78.*error\[E104\]"):
        async with AgentProcess(config):
            pass


def test_where_the_page_of_the_rescue_listens(tmp_path):
    """As it last did; nothing ever ran: for this machine only; it was off, or is unsound: nowhere.
    Nobody believes the broken file.
    """
    for good, listen in (
        (None, DEFAULT),
        ('web: {listen: "10.0.0.5:8443", cert: c, key: k}\nalso: wrong\n', "10.0.0.5:8443"),
        ("web: {}\n", DEFAULT),
        ("version: 1\n", None),
        ('web: {listen: "10.0.0.5:80"}\n', None),
        ("a: [\n", None),
    ):
        if good is not None:
            (tmp_path / "last-good.yaml").write_text(good)
        section = section_of(Configs(tmp_path))
        assert (section and section.listen) == listen, good
