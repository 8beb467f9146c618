"""The whole agent, asked over its broker and over its socket."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from agent.storage.audit import read_trail, verify
from simulators.agent_process import AgentProcess, Refused
from simulators.asker import Asker
from simulators.broker import Broker
from simulators.modbus_server import ModbusServer, RegisterImage
from simulators.proxy import OldBroker
from tests.agents import configure, sink, told
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")

CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = "edge/gw"
TAGS = {
    "level": {"reg": 0, "scale": 0.1, "unit": "m", "range": [0, 9]},
    "fill": {"reg": 1},
    "on": {"reg": 0, "table": "coil"},
}
RULES = {"p/level": {"min": 0, "max": 9.5, "every": "0s"}, "p/on": {"every": "0s"}}


class Recording(RegisterImage):
    """A device that notes the function codes of every request it gets."""

    def __init__(self):
        super().__init__(100)
        self.functions = set()

    def table(self, fc):
        self.functions.add(fc)
        return super().table(fc)


def config(folder, url, broker, **more):
    device = {"type": "modbus", "connect": url, "unit": 1, "addressing": "zero_based",
              "poll": "50ms", "tags": TAGS}  # fmt: skip
    sections = {"devices": {"p": device}, "sinks": {"plant": sink(broker.url)}}
    return configure(folder, **sections, **more)


def allowed(*verbs, **more):
    # without_clock: the machine that runs the tests may have no NTP
    return {"sinks": ["plant"], "verbs": [*verbs], "without_clock": "accept"} | more


async def said(asker, name):
    return await asyncio.to_thread(asker.answer, name)


async def connected(agent):
    await told(agent, lambda s: s["sinks"]["plant"]["connected"] and s["devices"]["p"]["connected"])


async def edge_agent(agent, *words):
    return await run_edge_agent(*words, "--socket", agent.socket)


async def run_edge_agent(*words):
    """Exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", *map(str, words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=CHECKOUT,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, out.decode(), err.decode()


async def test_written_over_the_broker_and_by_hand_and_in_the_trail(tmp_path):
    """A value asked for over MQTT and on the command line is in the device, and in the trail."""
    image = Recording()
    with Broker() as broker, Asker(broker.url, ROOT, v5=True) as asker:
        async with ModbusServer({1: image}) as server:
            path = config(tmp_path, server.url, broker, commands=allowed("read", "write"),
                          writes={"read_only": False, "tags": RULES})  # fmt: skip
            async with AgentProcess(path) as agent:
                await connected(agent)
                asker.ask("write", "w-1", {"tag": "p/level", "value": 7.5})
                answer = await said(asker, "w-1")
                assert (answer["ok"], answer["result"]) == (True, "written")
                assert answer["data"] == {"tag": "p/level", "old": 0.0, "new": 7.5, "found": 7.5,
                                          "result": "written", "echo": True}  # fmt: skip
                assert image.holding[0] == 75
                asker.ask("read", "r-1", {"tag": "p/level"})
                data = (await said(asker, "r-1"))["data"]
                assert (data["value"], data["unit"], data["q"]) == (7.5, "m", "good")
                assert await edge_agent(agent, "write", "p/on", "on") == (
                    0, "written: p/on = 1 (was 0)\n", "",
                )  # fmt: skip
                assert bool(image.coils[0]) is True
                assert (await edge_agent(agent, "read", "p/level"))[1] == "p/level  7.5  m  good\n"
                code, _, err = await edge_agent(agent, "write", "p/fill", "5")
                assert (code, "E357" in err) == (77, True)
                code, _, err = await edge_agent(agent, "write", "p/level", "9.7")
                assert (code, "outside the limits" in err) == (2, True)
                assert image.holding[1] == 0
            rows = read_trail(agent.data_dir)
            assert verify(rows) == ""
            writes = [(r["actor"].split(":")[0], r["facts"]["tag"], r["facts"]["result"])
                      for r in rows if r["kind"] == "write"]  # fmt: skip
            assert writes == [("mqtt", "p/level", "written"), ("uid", "p/on", "written"),
                              ("uid", "p/fill", "not_listed"),
                              ("uid", "p/level", "out_of_range")]  # fmt: skip


async def test_an_id_is_refused_after_a_restart_of_the_agent(tmp_path):
    """Killed after it was done: the same request is refused by the next start."""
    image = Recording()
    with Broker() as broker, Asker(broker.url, ROOT, v5=False) as asker:
        async with ModbusServer({1: image}) as server:
            path = config(tmp_path, server.url, broker, commands=allowed("write"),
                          writes={"read_only": False, "tags": RULES})  # fmt: skip
            async with AgentProcess(path) as agent:
                await connected(agent)
                asker.ask("write", "once", {"tag": "p/level", "value": 1})
                assert (await said(asker, "once"))["result"] == "written"
                await agent.kill()
            image.holding[0] = 0
            asker.answers.clear()
            async with AgentProcess(path) as agent:
                await connected(agent)
                asker.ask("write", "once", {"tag": "p/level", "value": 1})
                assert (await said(asker, "once"))["result"] == "repeated"
                assert image.holding[0] == 0


@pytest.mark.parametrize("v5", [True, False], ids=["5", "3.1.1"])
async def test_asked_over_either_version_of_mqtt(tmp_path, v5):
    """Done and answered once; repeated, retained and not listed ones do nothing, and each stands in
    the trail with its word. Both ends speak the same version. (What has expired is in
    test_commands.py: it needs a clock that is known to be right.)
    """
    image = Recording()
    with Broker() as broker, Asker(broker.url, ROOT, v5=v5) as asker:
        asker.ask("write", "kept", {"tag": "p/level", "value": 9}, retain=True)
        async with ModbusServer({1: image}) as server, OldBroker(broker.port) as old:
            path = config(tmp_path, server.url, broker, commands=allowed("write"),
                          writes={"read_only": False, "tags": RULES})  # fmt: skip
            if not v5:
                text = path.read_text(encoding="utf-8")
                path.write_text(text.replace(f":{broker.port}", f":{old.port}"), encoding="utf-8")
            async with AgentProcess(path) as agent:
                await connected(agent)
                level = {"tag": "p/level", "value": 1.5}
                assert (await said(asker, "kept"))["result"] == "retained"
                asker.ask("write", "one", level)
                assert (await said(asker, "one"))["result"] == "written"
                topic = asker.answers[-1][0]
                assert topic == (asker.here if v5 else f"{ROOT}/_cmd/write/reply/one")
                assert image.holding[0] == 15
                asker.answers.clear()
                asker.ask("write", "one", {"tag": "p/level", "value": 2})
                assert (await said(asker, "one"))["result"] == "repeated"
                asker.ask("write", "fill", {"tag": "p/fill", "value": 3})
                assert (await said(asker, "fill"))["error"]["code"] == "E357"
                asker.ask("reload", "more")
                assert (await said(asker, "more"))["result"] == "not_allowed"
                assert (image.holding[0], image.holding[1]) == (15, 0)
            assert set(old.versions) == (set() if v5 else {5, 4})
        facts = [r["facts"] for r in read_trail(agent.data_dir) if r["kind"] == "command"]
        assert [(f["id"], f["result"]) for f in facts] == [
            ("kept", "retained"), ("one", "accepted"), ("one", "repeated"), ("fill", "accepted"),
            ("more", "not_allowed"),
        ]  # fmt: skip


async def test_the_read_only_switch_wins_over_everything(tmp_path):
    """Whatever the lists allow: nothing is written, also after a reload that throws the switch."""
    image = Recording()
    with Broker() as broker, Asker(broker.url, ROOT, v5=True) as asker:
        async with ModbusServer({1: image}) as server:

            def configured(*, read_only):
                return config(tmp_path, server.url, broker, commands=allowed("write"),
                              writes={"read_only": read_only, "tags": RULES})  # fmt: skip

            async with AgentProcess(configured(read_only=True)) as agent:
                await connected(agent)
                asker.ask("write", "a", {"tag": "p/level", "value": 1})
                answer = await said(asker, "a")
                assert (answer["result"], answer["error"]["code"]) == ("read_only", "E356")
                assert (await edge_agent(agent, "write", "p/level", "1"))[0] == 77
                configured(read_only=False)
                await agent.ask("reload")
                asker.ask("write", "b", {"tag": "p/level", "value": 1})
                assert (await said(asker, "b"))["result"] == "written"
                configured(read_only=True)
                await agent.ask("reload")
                asker.ask("write", "c", {"tag": "p/level", "value": 2})
                assert (await said(asker, "c"))["result"] == "read_only"
                assert image.holding[0] == 10


TELL = """\
import atexit, os, sys
atexit.register(lambda: open(os.environ["MODULES_TO"], "w").write("\\n".join(sys.modules)))
"""
"""A `sitecustomize` for the agent's process: at its end it says which modules it holds."""


async def modules_after(path, folder, do):
    """The modules in the process of an agent at its end, after *do* with it."""
    told = folder / "modules"
    told.unlink(missing_ok=True)
    (folder / "sitecustomize.py").write_text(TELL, encoding="utf-8")
    env = {"PYTHONPATH": str(folder), "MODULES_TO": str(told)}
    async with AgentProcess(path, env=env) as agent:
        await connected(agent)
        await do(agent)
    return set(told.read_text(encoding="utf-8").split())


async def test_a_default_install_holds_no_code_that_writes(tmp_path):
    """Without `writes:`, or with the switch on read-only, no module that writes is in the process,
    even after somebody asked for it; with `writes:` the same look finds them.
    """
    image = Recording()

    async def refused(agent):
        assert (await agent.ask("read", tag="p/level"))["value"] == 0.0
        with pytest.raises(Refused, match="E356"):
            await agent.ask("write", tag="p/level", value=1)

    async def written(agent):
        await agent.ask("write", tag="p/level", value=1)

    with Broker() as broker:
        async with ModbusServer({1: image}) as server:
            for off in ({}, {"writes": {"read_only": True, "tags": RULES}}):
                path = config(tmp_path, server.url, broker, **off)
                found = await modules_after(path, tmp_path, refused)
                assert {"agent.app.daemon", "agent.links.modbus", "agent.sources.modbus"} <= found
                assert found.isdisjoint(WRITERS)
                ours = {m for m in found if m.split(".")[0] == "agent" and m != "agent.__main__"}
                assert [m for m in ours if writing_code(m)] == []
            assert image.functions == {1, 3}
            path = config(tmp_path, server.url, broker, writes={"read_only": False, "tags": RULES})
            assert await modules_after(path, tmp_path, written) >= WRITERS
            assert image.functions == {1, 3, 6}
    assert writing_code("agent.links.modbus_write")


WRITERS = {
    "agent.runtime.writes", "agent.sources.modbus_write", "agent.links.modbus_write",
    "agent.codecs.modbus_encode",
}  # fmt: skip


def writing_code(module):
    """Does the source of *module* build, or have pymodbus build, a write request?"""
    path = CHECKOUT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    return re.findall(
        r"write_registers?\(|write_coils?\(|WriteSingle|WriteMultiple|MaskWrite|_head\((?:5|6|15|16|22)",
        text,
    )


async def test_without_the_section_nobody_listens(tmp_path):
    """No `commands:`: a request is not even received, and a reload switches it on and off."""
    with Broker() as broker, Asker(broker.url, ROOT, v5=True) as asker:
        async with ModbusServer({1: Recording()}) as server:
            path = config(tmp_path, server.url, broker)
            async with AgentProcess(path) as agent:
                await connected(agent)
                asker.ask("read", "a", {"tag": "p/level"})
                config(tmp_path, server.url, broker, commands=allowed("read"))
                await agent.ask("reload")
                await connected(agent)
                asker.ask("read", "b", {"tag": "p/level"})
                assert (await said(asker, "b"))["ok"]
                asker.ask("reload", "c")
                assert (await said(asker, "c"))["result"] == "not_allowed"
                assert [a["id"] for _, a, _ in asker.answers] == ["b", "c"]
                config(tmp_path, server.url, broker)
                await agent.ask("reload")
                await connected(agent)
                asker.ask("read", "d", {"tag": "p/level"})
                await until(lambda: "units.applied" in agent.tail())
                assert len(asker.answers) == 2


async def test_a_tag_that_cannot_be_read_says_why(tmp_path):
    """`read` of nothing, of what is derived, of a device that is gone: a word and an exit code."""
    with Broker() as broker:
        server = ModbusServer({1: Recording()})
        async with server:
            derived = {"p/twice": {"scale": "p/level", "factor": 2}}
            path = config(tmp_path, server.url, broker, derived=derived)
        async with AgentProcess(path) as agent:
            for tag in ("p/nothing", "p/twice"):
                with pytest.raises(Refused, match="E359"):
                    await agent.ask("read", tag=tag)
            code, out, _ = await edge_agent(agent, "read", "p/level", "--json")
            answer = json.loads(out)
            assert (code, answer["value"], answer["q"]) == (1, None, "bad_not_connected")
            assert answer["why"]
