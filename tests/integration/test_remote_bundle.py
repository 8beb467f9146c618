"""The verb `bundle`: the archive in pieces over real brokers, put together and opened."""

import asyncio
import base64
import hashlib
import io
import json
import secrets
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from simulators.agent_process import AgentProcess, Refused
from simulators.asker import Asker
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.agents import configure, device, sink, told
from tests.contracts import problems
from tests.integration.test_bundle import PARTS
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")

CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = "edge/gw"
ALLOWED = {"verbs": ["bundle"], "without_clock": "accept"}


def texts(archive):
    """Name -> text of each part."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {Path(m.name).name: tar.extractfile(m).read().decode() for m in tar.getmembers()}


def swell(path):
    """Make the configuration one that does not pack: the archive has some 60 kB."""
    noise = "".join(f"# {secrets.token_hex(40)}\n" for _ in range(700))
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{noise}", encoding="utf-8")


async def connected(agent, *sinks):
    await told(agent, lambda s: all(s["sinks"][name]["connected"] for name in sinks))


async def test_the_example_fetches_an_archive_without_secrets(tmp_path):
    """docs/fetch_bundle.py, as the page says to run it: the archive is whole, and no secret in it.

    Live values come all the while, and whatever was published keeps the contract.
    """
    secret = tmp_path / "password"
    secret.write_text("Planted-1-in-a-file\n", encoding="utf-8")
    with Broker() as broker, Collector(broker.url, f"{ROOT}/#") as far:
        async with ModbusServer({1: RegisterImage()}) as server:
            plant = sink(broker.url) | {"user": "u", "password": {"file": str(secret)}}
            path = configure(tmp_path, devices={"d": device(server.url)}, sinks={"plant": plant},
                             commands={"sinks": ["plant"], **ALLOWED})  # fmt: skip
            swell(path)
            async with AgentProcess(path) as agent:
                await connected(agent, "plant")
                why = "the password is Planted-1-in-a-file"
                await agent.ask("maintenance", device="d", for_s=0.1, why=why)
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "docs/fetch_bundle.py", broker.url.removeprefix("mqtt://"),
                    ROOT, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=CHECKOUT,
                )  # fmt: skip
                out, _ = await asyncio.wait_for(process.communicate(), 60)
                with pytest.raises(Refused, match="E281"):  # there the command makes it
                    await agent.ask("bundle")
        assert process.returncode == 0
        parts = texts(Path(out.decode().strip()).read_bytes())
        assert set(parts) == PARTS
        assert "the password is ***" in parts["audit.json"]
        assert '"clock"' in parts["status.json"]
        assert [name for name, text in parts.items() if "Planted" in text] == []
        assert [p for m in far.messages for p in problems(m.topic, m.payload)] == []
        kinds = [m.topic.split("/")[2] for m in far.messages]
        asked, last = kinds.index("_cmd"), len(kinds) - 1 - kinds[::-1].index("_cmd")
        assert kinds[asked:last].count("data") > 20


async def test_small_messages_one_at_a_time_and_within_the_budget(tmp_path):
    """A broker of small packets gets small pieces; a second request is told to wait; a line whose
    data budget has no room, and a verb that is not on the list, are refused by name.
    """
    with ExitStack() as stack:
        small, narrow = (
            stack.enter_context(Broker([f"max_packet_size {n}"])) for n in (6000, 9000)
        )
        asker, other = (stack.enter_context(Asker(b.url, ROOT, v5=True)) for b in (small, narrow))
        sinks = {"small": sink(small.url), "narrow": sink(narrow.url, data_budget="100kB")}
        path = configure(tmp_path, sinks=sinks, commands={"sinks": list(sinks), **ALLOWED})
        swell(path)
        async with AgentProcess(path) as agent:
            await connected(agent, *sinks)
            other.ask("bundle", "narrow-1")
            refused = await asyncio.to_thread(other.answer, "narrow-1", 60)
            assert (refused["result"], refused["error"]["code"]) == ("budget", "E283")
            assert refused["error"]["where"] == "sink narrow"
            asker.ask("bundle", "small-1")
            asker.ask("bundle", "small-2")
            asker.ask("log-level", "small-3", {"level": "debug"})
            for name, word in (("small-2", "busy"), ("small-3", "not_allowed")):
                assert (await asyncio.to_thread(asker.answer, name))["result"] == word
            await until(lambda: asker.answers[-1][1]["result"] == "done", 60)
            mine = [(answer, c) for _, answer, c in asker.answers if answer["id"] == "small-1"]
            assert {correlation for _, correlation in mine} == {b'{"id": "small-1"'}
            *pieces, last = (answer for answer, _ in mine)
            data = {p["data"]["piece"]: p["data"]["base64"] for p in pieces}
            archive = b"".join(base64.b64decode(data[n + 1]) for n in range(len(data)))
            assert len(data) == last["data"]["pieces"] > 10
            assert last["data"]["size"] == len(archive)
            assert last["data"]["sha256"] == hashlib.sha256(archive).hexdigest()
            assert 5000 < max(len(json.dumps(p)) for p in pieces) < 6000  # the room is used
            assert set(texts(archive)) == PARTS
            asker.ask("bundle", "small-4", {"piece": 1})
            assert (await asyncio.to_thread(asker.answer, "small-4"))["error"]["code"] == "E281"
