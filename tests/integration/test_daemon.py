"""The whole agent as its operator meets it: start, reload, refusal, last good file, stop."""

import json
import os
import re
import signal
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulators.agent_process import AgentEnded, AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.agents import Counting, FarEnd, Manager, command, configure, device, sink, told
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")
HOT = {"hot": {"tag": "quiet/temp", "high": 80, "deadband": 2, "text": "too hot"}}


@dataclass
class Site:
    """A device whose values change with each scan, one that is quiet, a broker, a consumer."""

    folder: Path
    counting: str
    quiet: str
    image: RegisterImage
    broker: Broker
    collector: Collector
    far: FarEnd

    def configure(self, **more):
        """Both devices and the broker, and whatever a test has besides."""
        devices = {"count": device(self.counting), "quiet": device(self.quiet)}
        sections = {"devices": devices, "sinks": {"plant": sink(self.broker.url)}, "alarms": HOT}
        return configure(self.folder, **(sections | more))

    def last(self, topic):
        """The newest message on *topic*."""
        return self.collector.json(f"edge/gw/{topic}")[-1]


@asynccontextmanager
async def site(folder):
    counting, quiet = Counting(), RegisterImage()
    quiet.set_float32(2, 20.0)
    with Broker() as broker, Collector(broker.url, "edge/#") as collector:
        async with ModbusServer({1: counting}) as a, ModbusServer({1: quiet}) as b:
            yield Site(folder, a.url, b.url, quiet, broker, collector, FarEnd(collector))


def journal(folder, sql):
    """What the journal in *folder* answers, also while the agent runs."""
    with closing(sqlite3.connect(f"file:{folder}/data/journal.db?mode=ro", uri=True)) as db:
        return db.execute(sql).fetchall()


async def test_what_a_consumer_needs_is_retained_and_comes_first(tmp_path):
    """Status with a will, birth before data, the list of alarms; every message keeps the schema."""
    async with site(tmp_path) as here, AgentProcess(here.configure()) as agent:
        await until(lambda: len(here.far.values("count")) > 5, 15)
        await until(lambda: here.collector.json("edge/gw/_metrics"), 15)
        topics = [m.topic for m in here.collector.messages]
        for stream in ("count", "quiet"):
            assert topics.index(f"edge/gw/_birth/{stream}") < topics.index(f"edge/gw/data/{stream}")
        assert topics.index("edge/gw/_birth/agent") < topics.index("edge/gw/_metrics")
        assert here.last("_alarms") == {"v": 1, "active": [], "cleared": []}
        assert here.last("_status")["online"]
        with Collector(here.broker.url, "edge/#") as late:

            def kept():
                return {m.topic.removeprefix("edge/gw/") for m in late.messages if m.retain}

            wanted = {"_status", "_alarms", "_birth/count", "_birth/quiet", "_birth/agent"}
            await until(lambda: wanted <= kept())
        assert kept() == wanted
        assert await agent.terminate() == 0
        await until(lambda: not here.last("_status")["online"])
        here.far.sound()


async def test_a_reload_touches_only_what_changed(tmp_path):
    """A changed period restarts one device; the other, the uplink and the numbering go on."""
    async with site(tmp_path) as here:
        config = here.configure()
        async with AgentProcess(config) as agent:
            await told(agent, lambda s: len(s["tags"]) > 3)
            before = await agent.ask("status")
            slow = {"count": device(here.counting), "quiet": device(here.quiet, poll="70ms")}
            here.configure(devices=slow)
            done = await command(config, "reload")
            assert (done.returncode, done.stdout) == (0, "changed  source/quiet\n")
            after = await told(agent, lambda s: s["devices"]["quiet"]["connected"])
            assert after["devices"]["count"]["since_s"] > before["devices"]["count"]["since_s"]
            assert after["config"]["digest"] != before["config"]["digest"]
            done = await command(config, "reload")
            assert (done.returncode, done.stdout) == (0, "nothing changed\n")
            assert agent.tail(100_000).count("uplink.connected") == 1
            assert await agent.terminate() == 0
        here.far.sound()
        trail = journal(tmp_path, "SELECT kind, actor FROM audit ORDER BY n")
        asked = ("control", f"uid:{os.geteuid()}")
        assert trail == [asked, ("config.applied", asked[1])] * 2


async def test_devices_sinks_and_alarms_come_and_go(tmp_path):
    """What a reload adds runs, what it removes is gone, from status and from the broker."""
    async with site(tmp_path) as here:
        devices = {"count": device(here.counting)}
        config = here.configure(devices=devices, alarms={})
        async with AgentProcess(config) as agent:
            await told(agent, lambda s: "count/n" in s["tags"])
            here.image.set_float32(2, 90.0)
            here.configure()
            assert (await command(config, "reload")).returncode == 0
            await until(lambda: here.far.alarms("hot") == [True], 15)
            await until(lambda: [a["alarm"] for a in here.last("_alarms")["active"]] == ["hot"])
            here.configure(devices=devices, alarms={}, sinks={})
            refused = await command(config, "reload")
            assert (refused.returncode, "tag quiet/n vanishes" in refused.stderr) == (78, True)
            assert (await command(config, "reload", "--breaking")).returncode == 0
            status = await told(agent, lambda s: "quiet/n" not in s["tags"])
            assert (list(status["devices"]), status["sinks"]) == (["count"], {})
            assert status["alarms"] == []
            assert not here.last("_status")["online"]


async def test_limits_of_the_journal_follow_a_reload(tmp_path):
    """``commit`` is a setting like any other: no restart for it."""
    async with site(tmp_path) as here:
        config = here.configure(journal={"commit": "1h"})
        async with AgentProcess(config) as agent:
            await told(agent, lambda s: "count/n" in s["tags"])
            here.configure(journal={"commit": "50ms"})
            done = await command(config, "reload")
            assert done.stdout == "changed  journal\n"

            def rows():
                return journal(tmp_path, "SELECT count(*) FROM blocks")[0][0]

            seen = rows()
            await until(lambda: rows() > seen + 3, 10)


async def test_a_refused_file_changes_nothing(tmp_path):
    """Every problem is told, by the command and by SIGHUP; all goes on; exit code 78."""
    async with site(tmp_path) as here:
        config = here.configure()
        with Manager(tmp_path) as manager:
            async with AgentProcess(config, env=manager.environment(10)) as agent:
                await told(agent, lambda s: "count/n" in s["tags"])
                before = await agent.ask("status")
                broken = config.read_text(encoding="utf-8").replace('"unit"', '"unti"')
                config.write_text(broken, encoding="utf-8")
                done = await command(config, "reload")
                assert (done.returncode, done.stdout) == (78, "")
                assert done.stderr.count("error[E104]: `unti`") == 2
                assert "the running configuration stays as it is" in done.stderr
                os.kill(agent.pid, signal.SIGHUP)
                await until(lambda: "config.refused" in agent.tail(100_000))
                here.configure(data_dir=str(tmp_path / "elsewhere"))
                done = await command(config, "reload", "--socket", str(agent.socket))
                assert done.returncode == 78
                assert "E109" in done.stderr
                after = await agent.ask("status")
                assert after["config"] == before["config"]
                assert all(d["restarts"] == 0 for d in after["devices"].values())
                said = manager.lines()
                assert said.count("RELOADING=1") == 3
                assert said.count("READY=1") == 4


async def test_the_last_good_file_runs_when_the_file_is_broken(tmp_path):
    """Loudly: degraded, with the reason; the repaired file is taken over by a reload."""
    async with site(tmp_path) as here:
        config = here.configure()
        good = config.read_text(encoding="utf-8")
        async with AgentProcess(config) as agent:
            await told(agent, lambda s: "count/n" in s["tags"])
            digest = (await agent.ask("status"))["config"]["digest"]
        config.write_text(good.replace('"high"', '"hihg"'), encoding="utf-8")
        async with AgentProcess(config) as agent:
            status = await told(agent, lambda s: "count/n" in s["tags"])
            assert status["config"] | {"digest": digest, "last_good": True} == status["config"]
            assert re.search(r"last good configuration: \[E\d+\] .*:\d+: ", status["reasons"][0])
            assert status["config"]["changed_on_disk"]
            await until(lambda: here.last("_status").get("changed_on_disk"), 15)
            assert here.last("_status")["config"] == digest
            assert "config.last_good" in agent.tail(100_000)
            done = await command(config, "status")
            assert (done.returncode, "last good one" in done.stdout) == (1, True)
            assert "not the one that runs" in done.stdout
            config.write_text(good, encoding="utf-8")
            assert (await command(config, "reload")).returncode == 0
            await told(agent, lambda s: s["state"] == "running" and not s["config"]["last_good"])


async def test_a_broken_file_without_a_good_one_and_a_page_does_not_run(tmp_path):
    """Exit code 78 with every problem, so that systemd does not try again."""
    config = configure(tmp_path, devices={"d": {"type": "modbsu"}}, alarms={"a": {"tag": 5}})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "last-good.yaml").write_text("version: 1\n")
    with pytest.raises(AgentEnded, match="ended with code 78") as ended:
        async with AgentProcess(config):
            pass
    assert "error[E103]" in str(ended.value)
    assert "error[E101]" in str(ended.value) or "error[E105]" in str(ended.value)
    assert "Traceback" not in str(ended.value)


async def test_an_alarm_stands_over_restart_reload_and_silence(tmp_path):
    """Raised once, kept over a stop, a kill, a reload and a device that is gone; cleared once."""
    async with site(tmp_path) as here:
        own = {"memory": {"tag": "agent/rss_bytes", "high": 1000, "text": "more than a kilobyte"}}
        config = here.configure(alarms=HOT | own)
        async with AgentProcess(config) as agent:
            await told(agent, lambda s: "quiet/n" in s["tags"])
            here.image.set_float32(2, 90.0)
            await until(lambda: here.far.alarms("hot") == [True], 15)
            await until(lambda: here.far.alarms("memory") == [True], 15)
            assert (await command(config, "reload")).stdout == "nothing changed\n"
        async with AgentProcess(config) as agent:
            await told(agent, lambda s: "agent/rss_bytes" in s["tags"] and "quiet/n" in s["tags"])
            await agent.kill()
        gone = {"quiet": device("tcp://127.0.0.1:9")}
        here.configure(alarms=HOT | own, devices=gone, bad_after="1s")
        async with AgentProcess(config) as agent:
            status = await told(agent, lambda s: len(s["alarms"]) == 3)
            names = {"hot", "memory", "quiet.comm"}
            assert {a["alarm"] for a in status["alarms"]} == names
            assert status["tags"]["quiet/temp"]["q"].startswith("bad")
            here.image.set_float32(2, 70.0)
            here.configure(alarms=HOT | own, bad_after="1s")
            assert (await command(config, "reload")).returncode == 0
            await told(agent, lambda s: [a["alarm"] for a in s["alarms"]] == ["memory"])
            await until(lambda: here.far.alarms("hot") == [True, False], 15)
            assert here.far.alarms("memory") == [True]
            await until(lambda: here.far.alarms("quiet.comm") == [True, False], 15)
        here.far.sound()


async def test_report_by_exception_sends_what_changed_and_covers_the_rest(tmp_path):
    """A quiet device costs one message; its rows are all in the journal, none is a gap, and the
    agent ends at once although rows were held back.
    """
    async with site(tmp_path) as here:
        config = here.configure(sinks={"plant": sink(here.broker.url, report="change")})
        async with AgentProcess(config) as agent:
            await until(lambda: len(here.far.values("count")) > 40, 15)
            quiet = here.collector.json("edge/gw/data/quiet")
            assert len(quiet) <= 2
            here.image.set_float32(2, 21.0)
            await until(lambda: here.last("data/quiet")["values"]["temp"] == 21.0, 15)
            changed = here.last("data/quiet")
            assert changed["seq"] - changed["from"] > 20
            started = time.monotonic()
            assert await agent.terminate() == 0
            assert time.monotonic() - started < 5
            await until(lambda: not here.last("_status")["online"])
        covered = [(m["from"], m["seq"]) for m in here.collector.json("edge/gw/data/quiet")]
        assert [a for a, _ in covered] == [1, *(b + 1 for _, b in covered[:-1])]
        assert here.collector.json("edge/gw/history/quiet") == []
        assert here.far.broken == []
        sql = "SELECT max(last) FROM blocks JOIN names ON names.id = stream WHERE text = 'quiet'"
        assert journal(tmp_path, sql) == [(covered[-1][1],)]


async def test_status_is_true_and_quick(tmp_path):
    """Every value on the page is what the device has; a dead device and broker are named."""
    async with site(tmp_path) as here:
        config = here.configure()
        async with AgentProcess(config) as agent:
            await told(agent, lambda s: s["state"] == "running" and "quiet/temp" in s["tags"])
            done = await command(config, "status")
            assert done.returncode == 0, done.stdout
            (line,) = [x for x in done.stdout.splitlines() if x.startswith("quiet/temp")]
            assert line.split()[1:3] == ["20", "good"]
            took = []
            for _ in range(5):
                began = time.monotonic()
                assert (await command(config, "status", "--json")).returncode == 0
                took.append(time.monotonic() - began)
            assert min(took) < 0.5, "0.2 s on an idle machine"
            here.broker.kill()
            await told(agent, lambda s: not s["sinks"]["plant"]["connected"])
            done = await command(config, "status")
            assert done.returncode == 1
            assert "sink plant:" in done.stdout
            done = await command(config, "outbox", "--json")
            (row,) = json.loads(done.stdout)
            assert row["sink"] == "plant"
            assert not row["connected"]
        done = await command(config, "status")
        assert done.returncode == 3


async def test_the_log_is_json_and_says_changes_only(tmp_path):
    """One JSON object a line with time, level and event; a dead device is no line per scan."""
    async with site(tmp_path) as here:
        devices = {"count": device(here.counting), "dead": device("tcp://127.0.0.1:9")}
        async with AgentProcess(here.configure(devices=devices, alarms={})) as agent:
            await until(lambda: len(here.far.values("count")) > 60, 20)
        lines = [json.loads(x) for x in agent.tail(1_000_000).splitlines()]
        assert all({"time", "level", "event"} <= set(x) for x in lines)
        assert len(lines) < 25, [x["event"] for x in lines]
        assert sum("dead" in json.dumps(x) for x in lines) in range(1, 6)
