"""Brokers that refuse, forget or change their mind: nothing acknowledged by them is owed twice,
and nothing else is lost.
"""

import asyncio
import shutil
from contextlib import suppress

import pytest

from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector, Message
from simulators.modbus_server import ModbusServer
from tests.agents import Counting, FarEnd, committed, configure, device, sink, told
from tests.certificates import Authority
from tests.tools import until

KEPT = {"edge/gw/_status", "edge/gw/_birth/d", "edge/gw/_alarms"}
TAKEN, QUOTA = b"", b"\x97\x00"
"""What stands behind the packet id of a PUBACK (MQTT 5.0, 3.4.2.1): taken, and quota exceeded."""


class Scripted:
    """A broker of MQTT 5 that answers each PUBLISH as it is told, and keeps what it took.

    Attributes:
        answer: Behind the packet id of each PUBACK; None: no answer.
        messages: What it took, in order.
        refused: How many it did not take.
    """

    def __init__(self):
        self.answer, self.messages, self.refused = TAKEN, [], 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readexactly(1))[0]
                body = await reader.readexactly(await _length(reader))
                writer.write(self._said(head, body))
        writer.close()

    def _said(self, head, body):
        kind = head >> 4
        if kind != 3:
            return {1: b"\x20\x03\0\0\0", 12: b"\xd0\0"}.get(kind, b"")
        end = 2 + int.from_bytes(body[:2], "big")
        topic, mid = body[2:end].decode(), body[end : end + 2]
        payload = body[end + 3 + body[end + 2] :]  # properties of less than 128 bytes
        if self.answer is TAKEN:
            self.messages.append(Message(topic, payload, bool(head & 1), ""))
        else:
            self.refused += 1
        if self.answer is None:
            return b""
        return b"\x40" + bytes([2 + len(self.answer)]) + mid + self.answer


async def _length(reader):
    total = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        total |= (byte & 127) << shift
        if byte < 128:
            return total
        shift += 7


@pytest.mark.parametrize("answer", [QUOTA, None], ids=["quota", "silence"])
async def test_a_broker_that_takes_nothing_for_a_while(tmp_path, answer):
    """Quota exceeded is no refusal for ever, and no answer is none: every row comes when the broker
    takes messages again, in order, once.
    """
    image = Counting()
    async with Scripted() as broker, ModbusServer({1: image}) as server:
        config = configure(
            tmp_path, devices={"d": device(server.url)}, sinks={"plant": sink(broker.url)}
        )
        far = FarEnd(broker)
        async with AgentProcess(config) as agent:
            await until(lambda: len(far.values("d")) > 5)
            broker.answer = answer
            await until(lambda: broker.refused > 3)
            await image.read(20)
            broker.answer = TAKEN
            await told(agent, lambda s: s["sinks"]["plant"]["connected"], 60)
            await told(agent, lambda s: s["sinks"]["plant"]["depth"] < 5, 60)
            assert await agent.terminate() == 0
        await far.complete(committed(config.parent / "data"))
        far.sound()
        assert "record.rejected" not in agent.tail()


@pytest.mark.needs("mosquitto")
async def test_a_broker_that_forgets_everything(tmp_path):
    """Killed and back without its retained messages: births, status and alarms are there again for
    whoever comes then, before any row.
    """
    image = Counting()
    image.set_float32(2, 90.0)
    with Broker() as broker:
        async with ModbusServer({1: image}) as server:
            config = configure(
                tmp_path,
                devices={"d": device(server.url)},
                alarms={"hot": {"tag": "d/temp", "high": 80}},
                sinks={"plant": sink(broker.url)},
            )
            async with AgentProcess(config) as agent:
                await told(agent, lambda s: s["alarms"])
                await told(agent, lambda s: s["sinks"]["plant"]["connected"])
                broker.kill()
                broker.restart()
                await told(agent, lambda s: s["sinks"]["plant"]["connected"], 60)
                with Collector(broker.url, "edge/gw/#") as first:
                    await until(lambda: first.json("edge/gw/data/d"), 20)
                with Collector(broker.url, "edge/gw/#") as late:
                    await until(lambda: {m.topic for m in late.messages if m.retain} >= KEPT, 20)
                    (alarms, *_) = late.json("edge/gw/_alarms")
    topics = [m.topic for m in first.messages]
    assert topics.index("edge/gw/_birth/d") < topics.index("edge/gw/data/d")
    assert [a["alarm"] for a in alarms["active"]] == ["hot"]


@pytest.mark.needs("mosquitto", "openssl")
async def test_certificates_change_while_the_agent_runs(tmp_path):
    """New files under the old names, and a broker that knows only their authority: the next
    connection uses them, without restart and without reload.
    """
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    mine = tmp_path / "mine"
    mine.mkdir()

    def hand_out(authority):
        """Our certificate and the authority, and the broker's; all from *authority*."""
        files = (*authority.issue("gateway"), authority.ca, *authority.issue("broker"))
        names = ("gateway.crt", "gateway.key", "ca.crt", "broker.crt", "broker.key")
        for source, name in zip(files, names, strict=True):
            shutil.copyfile(source, mine / name)
            (mine / name).chmod(0o644)

    for folder in (tmp_path, *tmp_path.parents):
        with suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o011)
    hand_out(old)
    lines = [f"cafile {mine}/ca.crt", f"certfile {mine}/broker.crt", f"keyfile {mine}/broker.key",
             "require_certificate true"]  # fmt: skip
    with Broker(lines) as broker:
        async with ModbusServer({1: Counting()}) as server:
            plant = sink(broker.url.replace("mqtt:", "mqtts:")) | {
                "ca": f"{mine}/ca.crt", "cert": f"{mine}/gateway.crt", "key": f"{mine}/gateway.key",
            }  # fmt: skip
            config = configure(tmp_path, devices={"d": device(server.url)}, sinks={"plant": plant})
            async with AgentProcess(config) as agent:
                await told(agent, lambda s: s["sinks"]["plant"]["connected"])
                hand_out(new)
                broker.kill()
                await told(agent, lambda s: not s["sinks"]["plant"]["connected"])
                broker.restart()
                await told(agent, lambda s: s["sinks"]["plant"]["connected"], 60)
