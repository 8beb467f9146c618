"""`edge-agent models` against the agent, as a person or a script uses it."""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager

import yaml

from simulators import models
from simulators.agent_process import AgentProcess
from simulators.registry_server import RegistryServer
from tests.agents import told
from tests.models_bench import MODEL, document
from tests.tools import until


async def edge_agent(*words):
    """Exit code, stdout, stderr of one command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def running(tmp_path, server, **more):
    """An agent with the model m of *server*; gives a function that runs `models WORDS`."""
    path = tmp_path / "c.yaml"
    doc = document(tmp_path / "data", server.url, m=MODEL | {"poll": "1h"} | more)
    path.write_text(yaml.safe_dump(doc))

    async def run(*words):
        return await edge_agent("models", *words, "--config", str(path))

    async with AgentProcess(path) as agent:
        yield run, agent


async def test_a_version_is_listed_pulled_and_rolled_back(tmp_path):
    """The three verbs tell the same story, for people and with --json for programs; exit code 0."""
    with RegistryServer() as registry:
        registry.publish("m", "1", models.with_metadata(models.tiny(), v="1"))
        async with running(tmp_path, registry) as (run, _):
            code, out, _ = await run("pull", "m", "--json")
            assert (code, json.loads(out)["version"]) == (0, "1")
            # The agent looks by itself within 5 s of its start, then not for an hour.
            await until(lambda: len([p for p, _ in registry.requests if "index" in p]) >= 2, 15)
            registry.publish("m", "2", models.with_metadata(models.tiny(), v="2"))
            code, out, _ = await run("pull", "m")
            assert (code, "version: 2" in out, "result: activated" in out) == (0, True, True)
            code, out, _ = await run("pull", "m")
            assert (code, "result: current" in out) == (0, True)
            code, out, _ = await run("list")
            assert (code, out.split("\n")[0].startswith("NAME"), " 2 " in out) == (0, True, True)
            code, out, _ = await run("rollback", "m", "--json")
            entry = json.loads(out)
            assert (code, entry["version"], entry["stage"]) == (0, "1", "rolled_back")
            code, out, _ = await run("list", "--json")
            (entry,) = json.loads(out)
            assert (code, entry["serving"], entry["version"]) == (0, True, "1")
            code, out, _ = await run("hold", "m", "--why", "shutdown of line 2")
            assert (code, "result: held" in out) == (0, True)
            code, out, _ = await run("history", "m", "--json")
            moves = json.loads(out)
            assert [(m["version"], m["what"]) for m in moves[-3:]] == [
                ("2", "rolled_back"), ("1", "active"), (None, "held"),
            ]  # fmt: skip
            assert (moves[-1]["who"], moves[-1]["why"]) == (f"uid:{os.getuid()}",
                                                            "shutdown of line 2")  # fmt: skip


async def test_what_cannot_be_done_has_its_exit_code_and_says_why(tmp_path):
    """Nothing to go back to 1; unknown model, refused version, dead registry 69; no agent 3."""
    with RegistryServer() as registry:
        registry.publish("m", "1", models.tiny())
        async with running(tmp_path, registry) as (run, _):
            assert (await run("pull", "m"))[0] == 0
            code, out, err = await run("pull", "mm")
            assert (code, out, "E640" in err, "m" in err) == (69, "", True, True)
            code, _, err = await run("rollback", "m")
            assert (code, "E647" in err) == (1, True)
            registry.publish("m", "2", models.nan())
            code, _, err = await run("pull", "m")
            assert (code, "E642" in err, "= help:" in err) == (69, True, True)
            registry.fault = "error"
            code, _, err = await run("pull", "m")
            assert (code, "E621" in err) == (69, True)
            code, out, _ = await run("list", "--json")
            assert (code, json.loads(out)[0]["version"]) == (0, "1")
        assert (await run("list"))[0] == 3


async def test_a_pull_cures_a_model_that_did_not_start(tmp_path):
    """A broken local file parks the model; repaired and pulled it serves, without a reload."""
    file = tmp_path / "m.onnx"
    file.write_bytes(models.garbage())
    with RegistryServer() as registry:
        local = {"file": str(file), "registry": None, "channel": None}
        async with running(tmp_path, registry, **local) as (run, agent):
            await told(agent, lambda s: any("E670" in r for r in s["reasons"]))
            file.write_bytes(models.tiny())
            assert (await run("pull", "m"))[0] == 0
            status = await agent.ask("status")
            assert not any("model m" in r for r in status["reasons"])
            assert "unsigned: accept" in status["warnings"][0]  # for as long as it is so
            await agent.ask("reload")
            await told(agent, lambda s: s["models"]["pump1"]["state"] == "active")
