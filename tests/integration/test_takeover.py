"""A changed configuration on probation: kept when nothing is worse, else taken back."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import pytest

from agent.storage.configs import Configs
from simulators import models
from simulators.agent_process import AgentProcess
from simulators.broker import Broker
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, command, configure, device, sink, told


@asynccontextmanager
async def site(folder):
    """A device that counts, and a configuration that reads it."""
    image = Counting()
    async with ModbusServer({1: image}) as server:

        def write(**more):
            return configure(folder, devices={"d": device(server.url, **more)})

        async with AgentProcess(write()) as agent:
            await told(agent, lambda s: s["tags"].get("d/n", {}).get("q") == "good")
            yield agent, write, image


def nobody():
    """An address of this machine where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{s.getsockname()[1]}"


async def test_what_does_no_harm_is_kept(tmp_path):
    """`apply --wait` ends with 0 after the probation; until then the old one is the last good."""
    async with site(tmp_path) as (agent, write, _):
        good = (tmp_path / "data" / "last-good.yaml").read_text()
        config = write(poll="70ms")
        applied = asyncio.create_task(command(config, "apply", "--wait", "--for", "3s", "--json"))
        on = await told(agent, lambda s: s["config"]["probation"])
        assert on["config"]["probation"]["by"].startswith("uid:")
        assert (tmp_path / "data" / "last-good.yaml").read_text() == good
        done = await applied

        assert done.returncode == 0, done
        answer = json.loads(done.stdout)
        assert (answer["changed"], answer["taken_back"]) == (["source/d"], None)
        assert answer["reasons"] == []
        assert '"70ms"' in (tmp_path / "data" / "last-good.yaml").read_text()
        assert (await agent.ask("status"))["config"]["probation"] is None


@pytest.mark.parametrize("how", ["nobody answers", "a register that is not there"])
async def test_what_does_harm_is_taken_back(tmp_path, how):
    """Exit 1 and the reason; the old one runs, also after a restart, until the file changes."""
    async with site(tmp_path) as (agent, write, image):
        before = (await agent.ask("status"))["config"]["digest"]
        if how == "nobody answers":
            config, missed = write(connect=nobody()), "device d; "
        else:
            image.hole = range(400, 600)
            tags = {"n": {"reg": 500, "as": "uint16"}, "temp": {"reg": 2, "as": "float32"}}
            config, missed = write(tags=tags), "tag d/n; the device refuses"
        done = await command(config, "apply", "--wait", "--for", "3s")

        assert (done.returncode, missed in done.stderr) == (1, True), done
        status = await told(agent, lambda s: s["tags"].get("d/n", {}).get("q") == "good")
        assert (status["state"], status["config"]["last_good"]) == ("degraded", True)
        assert (status["config"]["digest"], missed in status["reasons"][0]) == (before, True)
        assert await agent.terminate() == 0
        async with AgentProcess(config) as again:
            await told(
                again, lambda s: s["config"]["last_good"] and s["config"]["digest"] == before
            )
            config = write(poll="80ms")
            assert (await command(config, "reload")).returncode == 0
            await told(again, lambda s: not s["config"]["last_good"] and s["state"] == "running")


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("worse", ["sink plant; [E401] broker", "model pump; [E6"])
async def test_an_uplink_or_a_model_that_fares_worse_takes_the_file_back(tmp_path, worse):
    """A broker that is not there, inputs that do not fit the model: each with what it said."""
    file = tmp_path / "m.onnx"
    file.write_bytes(models.fixed(1))

    async with ModbusServer({1: Counting()}) as server:
        with Broker() as broker:

            def write(url, *inputs):
                window = {"kind": "count", "rows": 5}
                bound = {"pump": {"inputs": ["d/n", "d/temp", *inputs]}}
                return configure(
                    tmp_path,
                    devices={"d": device(server.url)},
                    sinks={"plant": sink(url)},
                    models={"m": {"file": str(file), "window": window, "instances": bound}},
                )

            def well(status):
                return status["sinks"]["plant"]["connected"] and status["models"]["pump"].get(
                    "runs"
                )

            async with AgentProcess(write(broker.url, "d/n")) as agent:
                await told(agent, well)
                if worse.startswith("sink"):
                    config = write("mqtt://127.0.0.1:9", "d/n")
                else:
                    config = write(broker.url)
                done = await command(config, "apply", "--wait", "--for", "4s", "--breaking")
                assert (done.returncode, f"worse than before: {worse}" in done.stderr) == (
                    1,
                    True,
                ), done.stderr
                await told(agent, well)


async def test_a_probation_outlives_the_agent(tmp_path):
    """Killed during it, the new one starts on probation; what needs three starts goes back."""
    async with site(tmp_path) as (agent, write, image):
        before = (await agent.ask("status"))["config"]["digest"]
        config = write(poll="70ms")
        assert (await command(config, "apply", "--for", "10min")).returncode == 0
        await agent.kill()
        for _ in range(2):
            async with AgentProcess(config) as again:
                status = await told(again, lambda s: s["config"]["probation"])
                assert status["config"]["digest"] != before
                await image.read(2)
                await again.kill()
        async with AgentProcess(config) as again:
            status = await told(again, lambda s: s["config"]["digest"] == before)
            assert "had to start 3 times" in status["reasons"][0]


async def test_a_start_that_somebody_asked_for_is_nothing_against_a_file(tmp_path):
    """Restarted by hand as often as one likes, or by a version of the agent that cannot start,
    and is on trial itself: the probation goes on.
    """
    async with site(tmp_path) as (agent, write, _):
        before = (await agent.ask("status"))["config"]["digest"]
        config = write(poll="70ms")
        assert (await command(config, "apply", "--for", "10min")).returncode == 0
        await agent.terminate()
        for _ in range(3):
            async with AgentProcess(config) as again:
                await told(again, lambda s: s["config"]["probation"])
                await again.terminate()
        configs = Configs(tmp_path / "data")
        mark = configs.mark("probation")
        configs.set_mark("probation", mark | {"version": "another", "starts": 2})
        async with AgentProcess(config) as again:
            status = await told(again, lambda s: s["config"]["probation"])
            assert status["config"]["digest"] != before


async def test_a_change_during_a_probation(tmp_path):
    """What would come back is still what was good before the first of them."""
    async with site(tmp_path) as (agent, write, _):
        before = (await agent.ask("status"))["config"]["digest"]
        assert (await command(write(poll="70ms"), "apply", "--for", "10min")).returncode == 0
        config = write(connect=nobody())
        done = await command(config, "apply", "--wait", "--for", "2s")
        assert done.returncode == 1
        await told(agent, lambda s: s["config"]["digest"] == before)


async def test_back_by_hand_and_what_ran_here(tmp_path):
    """`config history` lists and compares; `config rollback` goes back and says so in `status`."""
    async with site(tmp_path) as (agent, write, _):
        config = write(poll="70ms")
        assert (
            await command(config, "apply", "--for", "1s", "--by", "Kim", "--wait")
        ).returncode == 0
        history = json.loads((await command(config, "config", "history", "--json")).stdout)
        assert [(one["n"], one["verdict"]) for one in history] == [(1, "good"), (2, "good")]
        assert history[1]["by"].endswith(" Kim")
        patch = (await command(config, "config", "history", "2")).stdout
        assert '-   "poll": "50ms",' in patch
        assert '+   "poll": "70ms",' in patch

        done = await command(config, "config", "rollback")
        assert (done.returncode, done.stdout) == (0, "changed  source/d\n"), done
        status = await told(agent, lambda s: s["config"]["digest"] == history[0]["digest"])
        assert "rolled back by uid:" in status["reasons"][0]
        assert await agent.terminate() == 0
        kept = json.loads((await command(config, "config", "history", "--json")).stdout)
        assert [one["verdict"] for one in kept] == ["good", "taken_back", "good"]
        none = await command(config, "plan")
        assert (none.returncode, "poll 50ms -> 70ms" in none.stdout) == (0, True), none


async def test_a_plan_is_told_and_nothing_happens(tmp_path):
    """`plan` of the file and of a draft: 0, 1 when consumers would miss some, 78 if refused."""
    async with site(tmp_path) as (agent, write, _):
        before = (await agent.ask("status"))["config"]["digest"]
        config = write(poll="70ms")
        told_ = await command(config, "plan")
        assert (told_.returncode, told_.stdout) == (
            0,
            "changed  device d\n           poll 50ms -> 70ms\n",
        )
        draft = tmp_path / "draft.yaml"
        draft.write_text(config.read_text().replace('"n":', '"m":'))
        told_ = await command(config, "plan", str(draft), "--json")
        assert (told_.returncode, json.loads(told_.stdout)["breaks"]) == (1, ["tag d/n vanishes"])
        draft.write_text("version: 2\n")
        assert (await command(config, "plan", str(draft))).returncode == 78
        assert (await agent.ask("status"))["config"]["digest"] == before


async def test_a_tag_with_another_name_goes_on_with_its_history(tmp_path):
    """`was:`: trend and export read the past under the new name, also when the line is gone."""
    async with site(tmp_path) as (agent, write, image):
        await image.read(20)
        for was in ({"was": "n"}, {}):
            tags = {"count": {"reg": 0, "as": "uint32", **was}, "temp": {"reg": 2, "as": "float32"}}
            config = write(tags=tags)
            done = await command(config, "reload", "--breaking")
            assert done.returncode == 0, done
            await told(agent, lambda s: "d/count" in s["tags"])
            await image.read(5)
        assert await agent.terminate() == 0
        done = await command(config, "export", "--tags", "d/count", "--from", "1h")
        values = [float(line.split(",")[2]) for line in done.stdout.splitlines()[1:]]
        assert values == sorted(values)
        assert len(values) > 25
        assert values[0] < 5
