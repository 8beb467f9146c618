"""The local page over HTTP: who may see and change what, and the numbers for Prometheus."""

import asyncio
import json
import re
import sqlite3
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, closing

import httpx
import pytest

from agent.web.metrics import named
from simulators.agent_process import AgentProcess
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, configure, device, told
from tests.tools import until

GOOD = "correct horse"


@asynccontextmanager
async def page(folder, listen="127.0.0.1:0", **web):
    """An agent with a device, an alarm and a page, and a client of the page."""
    image = Counting()
    async with ModbusServer({1: image}) as server:
        config = configure(
            folder,
            devices={"d": device(server.url)},
            alarms={"many": {"tag": "d/n", "high": 2}},
            web={"listen": listen} | web,
        )
        async with reached(config, web.get("cert")) as (agent, client):
            await told(agent, lambda s: s["alarms"])
            yield agent, client


@asynccontextmanager
async def reached(config, cert=None):
    """The agent of *config*, and a client that knows the address of its page."""
    async with AgentProcess(config) as agent:
        await until(lambda: "web.listening" in agent.tail(100_000))
        port = re.findall(r'"port": (\d+)', agent.tail(100_000))[-1]
        trust = ssl.create_default_context(cafile=cert) if cert else True
        base = f"{'https' if cert else 'http'}://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, verify=trust, trust_env=False) as client:
            yield agent, client


def code_of(config, role):
    done = subprocess.run(
        [sys.executable, "-m", "agent", "web", "code", "--role", role, "-c", str(config)],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout.split()[-1]


async def enter(agent, client, role):
    """Make an account of *role* with a code, and log in; the token for changes."""
    code = await asyncio.to_thread(code_of, agent.config, role)
    body = {"code": code, "user": role, "password": GOOD}
    answer = await client.post("/api/enrol", json=body)
    assert answer.status_code == 200, answer.text
    me = (await client.get("/api/me")).json()
    assert (me["user"], me["role"]) == (role, role)
    return {"x-csrf": me["csrf"]}


async def test_on_loopback_everybody_may_look_and_nobody_change(tmp_path):
    """Status, verbs that look, events; a change needs a login, whatever the way."""
    async with page(tmp_path) as (_, client):
        assert (await client.get("/")).status_code == 200
        status = (await client.get("/api/status")).json()
        assert "d/n" in status["tags"]
        assert (await client.get("/api/me")).json()["role"] == "viewer"
        for verb in ("alarms.ack", "reload", "read", "models.rollback"):
            for way in ("GET", "POST"):
                assert (await client.request(way, f"/api/{verb}")).status_code == 401, verb
        assert (await client.get("/api/nonsense")).status_code == 404
        async with client.stream("GET", "/events") as stream:
            events = []
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line[6:]))
                if len(events) == 3:
                    break
        assert events[0]["state"]["gateway"] == "gw"
        assert "d/n" in events[2]["tags"]
        assert (await client.get("/healthz")).status_code == 200


async def test_a_role_may_do_what_it_may(tmp_path):
    """A technician acknowledges and reads; only an admin reloads; every change is in the trail."""
    async with page(tmp_path) as (agent, client):
        token = await enter(agent, client, "technician")
        ack = {"name": "many", "by": "kim"}
        assert (await client.post("/api/alarms.ack", json=ack)).status_code == 403
        done = await client.post("/api/alarms.ack", json=ack, headers=token)
        assert done.status_code == 200, done.text
        assert (await client.get("/api/status")).json()["alarms"][0]["acked"]
        read = await client.post("/api/read", json={"tag": "d/temp"}, headers=token)
        assert read.json()["q"] == "good"
        assert (await client.post("/api/reload", json={}, headers=token)).status_code == 403
        assert (await client.post("/api/logout", headers=token)).status_code == 200
        assert (await client.post("/api/read", json={}, headers=token)).status_code == 401

        token = await enter(agent, client, "admin")
        assert (await client.post("/api/reload", json={}, headers=token)).json()["changed"] == []
        wrong = await client.post("/api/nothing", json={}, headers=token)
        assert wrong.status_code == 404
        assert await agent.terminate() == 0
    with closing(sqlite3.connect(tmp_path / "data" / "journal.db")) as db:
        trail = db.execute("SELECT kind, actor FROM audit").fetchall()
    assert ("web", "web:technician") in trail
    assert ("web.login", "web:admin") in trail


async def test_a_code_is_good_once_and_guessing_has_to_wait(tmp_path):
    """Five wrong tries from an address, and then not even the right password for a while; every
    refusal is in the trail.
    """
    async with page(tmp_path) as (agent, client):
        code = await asyncio.to_thread(code_of, agent.config, "admin")
        body = {"code": code, "user": "kim", "password": GOOD}
        assert (await client.post("/api/enrol", json=body)).status_code == 200
        client.cookies.clear()
        again = await client.post("/api/enrol", json=body | {"user": "mallory"})
        assert (again.status_code, again.json()["error"]["code"]) == (401, "E761")
        for _ in range(4):
            tried = {"user": "kim", "password": "guess guess"}
            assert (await client.post("/api/login", json=tried)).status_code == 401
        right = await client.post("/api/login", json={"user": "kim", "password": GOOD})
        assert (right.status_code, right.json()["error"]["code"]) == (429, "E763")
        assert await agent.terminate() == 0
    with closing(sqlite3.connect(tmp_path / "data" / "journal.db")) as db:
        refused = db.execute("SELECT actor FROM audit WHERE kind = 'web.refused'").fetchall()
    assert [actor for (actor,) in refused] == ["web:mallory", *["web:kim"] * 5]


async def test_off_loopback_nothing_without_a_login(tmp_path):
    """TLS, and a one-time code in the log of the first start; the headers of a careful page."""
    subprocess.run(
        [sys.executable, "-m", "agent", "web", "enable", "--listen", "0.0.0.0:0", "-c",
         str(configure(tmp_path))],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    made = tmp_path / "data" / "web"
    (tmp_path / "conf.d" / "web.yaml").unlink()
    files = {"cert": str(made / "cert.pem"), "key": str(made / "key.pem")}
    async with page(tmp_path, "0.0.0.0:0", **files) as (agent, client):
        for path in ("/api/status", "/events", "/metrics", "/api/alarms.list"):
            assert (await client.get(path)).status_code == 401, path
        answer = await client.get("/")
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        code = re.findall(r'"code": "([0-9a-f-]+)"', agent.tail(100_000))[-1]
        body = {"code": code, "user": "kim", "password": GOOD}
        entered = await client.post("/api/enrol", json=body)
        cookie = entered.headers["set-cookie"]
        assert all(w in cookie for w in ("HttpOnly", "SameSite=strict", "Secure"))
        assert (await client.get("/api/status")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        client.cookies.clear()
        for password, status in ((GOOD, 200), ("wrong wrong", 401)):
            answer = await client.get("/metrics", auth=("kim", password))
            assert answer.status_code == status
        assert (await client.get("/api/status", auth=("kim", GOOD))).status_code == 401


async def test_a_page_whose_port_is_taken_is_a_trouble_that_status_names(tmp_path):
    """Collection goes on; the reason has the code, the address and the cure."""
    async with ModbusServer({1: Counting()}) as server:
        taken = f"127.0.0.1:{server.port}"
        config = configure(tmp_path, devices={"d": device(server.url)}, web={"listen": taken})
        async with AgentProcess(config) as agent:
            found = await told(agent, lambda s: s["tags"] and s["state"] == "degraded")
            (reason,) = found["reasons"]
            assert reason.startswith(f"web: [E768] web: the page cannot listen on {taken}")
            assert "Choose a free port" in reason
            assert found["devices"]["d"]["connected"]


async def test_a_name_that_is_not_ours_is_refused(tmp_path):
    """A page of the internet whose name was bound to this address gets nothing."""
    async with page(tmp_path) as (_, client):
        for host, code in (("evil.example", 421), ("localhost", 200), ("127.0.0.1:9", 200)):
            answer = await client.get("/api/status", headers={"host": host})
            assert answer.status_code == code, host


@pytest.mark.needs("promtool")
async def test_the_numbers_keep_the_conventions_of_prometheus(tmp_path):
    """``promtool check metrics`` finds nothing; counters count, states are 0 or 1."""
    async with page(tmp_path) as (_, client):
        answer = await client.get("/metrics")
        found = await asyncio.to_thread(
            subprocess.run,
            ["promtool", "check", "metrics"],
            input=answer.text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (found.returncode, found.stdout + found.stderr) == (0, "")
        assert 'edge_agent_device_up{device="d"} 1.0' in answer.text
        assert re.search(
            r'edge_agent_source_received_samples_total\{source="d"\} [1-9]', answer.text
        )
        assert re.search(
            r'edge_agent_source_scan_seconds\{quantile="0.99",source="d"\} 0\.', answer.text
        )
        assert re.search(r'edge_agent_alarm_active\{alarm="many",priority="\d"\} 1.0', answer.text)


@pytest.mark.parametrize(
    ("name", "metric", "labels", "factor"),
    [
        ("sink/plant.oldest_age_s", "edge_agent_sink_oldest_age_seconds", {"sink": "plant"}, 1.0),
        ("modbus/a.b.overruns", "edge_agent_source_overruns", {"source": "a.b"}, 1.0),
        ("loop.lateness_ms", "edge_agent_loop_lateness_seconds", {}, 1e-3),
        ("cpu_percent", "edge_agent_cpu_ratio", {}, 1e-2),
        ("journal.wear_bytes_per_day", "edge_agent_journal_wear_bytes_per_day", {}, 1.0),
        ("sink/x.certificate_days", "edge_agent_sink_certificate_seconds", {"sink": "x"}, 86400.0),
    ],
)
def test_names_of_numbers(name, metric, labels, factor):
    """Who it is about is a label; units are base units."""
    assert named(name) == (metric, labels, factor)
