"""The scripted sessions: a life of the edge node in half a minute, recorded."""

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from agent.config.crosscheck import streams
from agent.config.load import ConfigProblems, loads
from agent.config.nodes import twins
from agent.plugins import installed
from simulators.broker import Broker
from simulators.mqtt_relay import Packet, Relay
from tests import sparkplug_proto as proto
from tests.sparkplug.scene import (
    EDGE,
    GROUP,
    HOST,
    NODE,
    Host,
    Scene,
    command,
    now_ms,
    rebirth,
    topic,
)
from tests.tools import until


@dataclass
class Recording:
    """What passed, what came of it, and where in it something began.

    Attributes:
        packets: Of all clients, in order; `Packet.connection` is unique.
        facts: What the wire alone does not show.
        marks: Name -> number of packets before it.
    """

    packets: list[Packet]
    facts: dict[str, bool] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)


async def record(folder):
    """Run every session; the recording."""
    async with Scene(folder) as scene:
        play = Play(scene)
        await play.first_life()
        await play.second_life()
        await play.old_broker()
        await play.two_brokers()
        return Recording(play.packets, play.facts | names(), play.marks)


class Play:
    """The acts, in their order."""

    def __init__(self, scene):
        self.scene, self.facts, self.marks = scene, {}, {}
        self.spare = []

    @property
    def packets(self):
        """Both relays by time; connections of the second one have numbers of their own."""
        more = [replace(p, connection=p.connection + 1000) for p in self.spare]
        return sorted([*self.scene.packets, *more], key=lambda p: p.at_ms)

    def mark(self, name):
        self.marks[name] = len(self.scene.packets)
        return self.marks[name]

    @asynccontextmanager
    async def agent(self, **sections):
        async with self.scene.agent(**sections) as agent:
            self.running = agent
            yield agent

    async def logged(self, *words, within_s=10.0):
        """Return when one line of the agent's log has all these words."""
        log = self.running.log
        await until(
            lambda: any(all(w in line for w in words) for line in log.read_text().splitlines()),
            within_s, lambda: f"{words} not in\n{self.running.tail()}",
        )  # fmt: skip

    async def first_life(self):
        scene = self.scene
        scene.pump.holding[0:2] = 50, 1
        scene.pump.holding[20:24] = [0x4C37, 0x2D41, 0x3132, 0x3334]
        async with self.agent() as agent:
            await self.waits_for_its_host()
            await self.data_and_alarms()
            await self.commands()
            await self.rebirths()
            await self.a_device_dies()
            await self.the_host_goes()
            await self.the_link_is_cut()
            await self.reload(agent)
            self.mark("killed")
            await agent.kill()
            await self.host_hears("NDEATH", self.marks["killed"])

    async def waits_for_its_host(self):
        scene = self.scene
        state = f"spBv1.0/STATE/{HOST}"
        await until(lambda: any(p.kind == "SUBSCRIBE" and p.client == EDGE and
                                p.filters[0][0] == state for p in scene.packets), 15)  # fmt: skip
        scene.host.say("spBv1.0/STATE/another", b'{"online":true,"timestamp":1}', qos=1)
        await self.owes(20)
        self.mark("online")
        self.since_ms = now_ms()
        scene.host.state(online=True, at_ms=self.since_ms)
        await scene.hear("DBIRTH", "pump")
        await scene.hear("DBIRTH", "fan")
        await scene.hear("DDATA", "pump", more=historical)
        await scene.hear("DBIRTH", "agent")

    async def owes(self, rows):
        async def behind():
            return (await self.running.ask("outbox"))[0]["owed"] >= rows

        await until(behind, 15)

    async def data_and_alarms(self):
        scene = self.scene
        for value in (7, 8, 9):
            at = self.mark("data")
            scene.pump.holding[1] = value
            await scene.hear("DDATA", "pump", at, more=lambda p, v=value: v in told(p))
        at = self.mark("alarm")
        scene.pump.holding[0] = 85
        await scene.hear("NDATA", since=at, more=lambda p: True in told(p))
        at = self.mark("alarm over")
        scene.pump.holding[0] = 50
        await scene.hear("NDATA", since=at, more=lambda p: False in told(p))

    async def commands(self):
        """One is done; the same again, a retained, a wrong, an unknown and a broken one are not."""
        scene, pump = self.scene, self.scene.pump
        self.mark("commands")
        good = command("level", 6.0, kind="double_value")
        scene.host.say(topic("DCMD", "pump"), good)
        await until(lambda: pump.holding[0] == 60, 10)
        self.facts["a write was done"] = True
        pump.holding[0] = 40
        scene.host.say(topic("DCMD", "pump"), good)
        await self.logged("command.refused", "repeated")
        scene.host.say(topic("DCMD", "pump"), command("level", 7.0, kind="double_value"),
                       retain=True)  # fmt: skip
        await self.logged("command.refused", "retained")
        scene.host.say(topic("DCMD", "pump"), b"", retain=True)
        scene.host.say(topic("DCMD", "pump"), command("level", "7", kind="string_value"))
        await self.logged("command.refused", "malformed")
        self.facts["a wrong value was refused"] = True
        scene.host.say(topic("DCMD", "pump"), command("speed", 7.0, kind="double_value"))
        await self.logged("sparkplug.no_command", "speed")
        self.facts["an unknown metric was ignored, DCMD"] = True
        scene.host.say(topic("NCMD"), command("Properties/version", True))
        await self.logged("sparkplug.no_command", "Properties/version")
        self.facts["an unknown metric was ignored, NCMD"] = True
        scene.host.say(topic("NCMD"), b"\xff\xff")
        await self.logged("sparkplug.no_command", "NCMD")
        birth = proto.Payload.FromString(scene.said("DBIRTH", "pump")[-1].payload)
        alias = next(m.alias for m in birth.metrics if m.name == "on")
        scene.host.say(topic("DCMD", "pump"), command(None, True, alias=alias, timed=False))
        await until(lambda: pump.coils[0], 10)
        self.facts["a write without its own time was done"] = True
        self.facts["nothing else was done"] = bool(pump.holding[0] == 40)
        at = self.mark("written")
        await scene.hear("DDATA", "pump", at - 50, more=lambda p: True in told(p))

    async def rebirths(self):
        at = self.mark("rebirth")
        self.scene.host.say(topic("NCMD"), rebirth(), qos=1)
        await self.scene.hear("NBIRTH", since=at)
        await self.scene.hear("DBIRTH", "fan", at)

    async def a_device_dies(self):
        at = self.mark("device dies")
        await self.scene.fan_server.__aexit__()
        await self.scene.hear("DDEATH", "fan", at)
        at = self.mark("device is back")
        await self.scene.fan_server.__aenter__()
        await self.scene.hear("DBIRTH", "fan", at)

    async def the_host_goes(self):
        scene = self.scene
        scene.host.state(online=False, at_ms=self.since_ms - 1000)
        await self.logged("sparkplug.old_state")
        at = self.mark("old offline")
        scene.pump.holding[1] = 20
        await scene.hear("DDATA", "pump", at, more=lambda p: 20 in told(p))
        at = self.mark("offline")
        scene.host.state(online=False)
        await scene.hear("NDEATH", since=at)
        await until(lambda: any(p.kind == "SUBACK" and p.client == EDGE
                                for p in scene.packets[at:]), 15)  # fmt: skip
        scene.pump.holding[1] = 21
        await self.owes(20)
        at = self.mark("online again")
        scene.host.state(online=True)
        await scene.hear("DDATA", "pump", at, more=lambda p: historical(p) and 21 in told(p))

    async def the_link_is_cut(self):
        scene, relay = self.scene, self.scene.relay
        at = self.mark("frozen")
        relay.swallow.add(EDGE)
        scene.pump.holding[1] = 31
        await scene.hear("DDATA", "pump", at, more=lambda p: p.swallowed and 31 in told(p))
        scene.pump.holding[1] = 32
        relay.cut(EDGE)
        relay.swallow.clear()
        at = self.mark("cut")
        await scene.hear("DDATA", "pump", at, more=lambda p: historical(p) and 31 in told(p))

    async def reload(self, agent):
        at = self.mark("reload")
        config = self.scene.config()
        changed = config.read_text().replace('"unit": "m"', '"unit": "cm"')
        config.write_text(changed)
        await agent.ask("reload", breaking=True)
        await self.scene.hear("DBIRTH", "pump", at, more=lambda p: b"cm" in p.payload)
        at = self.mark("a device less")
        self.scene.config(devices={"pump": json.loads(changed)["devices"]["pump"]})
        await agent.ask("reload", breaking=True)
        await self.scene.hear("DDEATH", "fan", at)

    async def host_hears(self, kind, since):
        await until(lambda: any(p.client == HOST and not p.up and p.topic == topic(kind)
                                for p in self.scene.packets[since:]), 15)  # fmt: skip

    async def second_life(self):
        at = self.mark("second life")
        async with self.agent() as agent:
            await self.scene.hear("NBIRTH", since=at)
            await self.scene.hear("DBIRTH", "fan", at)
            await self.scene.hear("NDATA", since=at, more=lambda p: "power_off" in told(p))
            at = self.mark("stop")
            await agent.terminate()
            await self.host_hears("NDEATH", at)

    async def old_broker(self):
        at = self.mark("mqtt 3.1.1")
        self.scene.relay.old = True
        async with self.agent() as agent:
            await self.scene.hear("DBIRTH", "fan", at)
            await agent.terminate()
        self.scene.relay.old = False

    async def two_brokers(self):
        """The host is at the second broker, then at the first."""
        scene, at = self.scene, self.mark("two brokers")
        scene.host.state(online=False)
        with Broker() as broker:
            async with Relay(broker.port) as spare, Host(spare.port) as host:
                self.spare = spare.packets
                host.state(online=True)
                ports = scene.relay.port, spare.port
                sink = {"type": "sparkplug", "group": GROUP, "primary_host": HOST,
                        "connect": [f"mqtt://127.0.0.1:{p}" for p in ports]}  # fmt: skip
                async with self.agent(sinks={"scada": sink}):
                    await until(lambda: any("DBIRTH" in p.topic for p in spare.packets), 15)
                    self.facts["walked on"] = not scene.said("NBIRTH", since=at)
                    host.state(online=False)
                    scene.host.state(online=True)
                    await scene.hear("DBIRTH", "fan", at)


def told(packet):
    """Every value of a message."""
    return [proto.value(m) for m in proto.Payload.FromString(packet.payload).metrics]


def historical(packet):
    return any(m.is_historical for m in proto.Payload.FromString(packet.payload).metrics)


def names():
    """What the configuration says to names that Sparkplug does not want."""
    return {
        "group with + refused": refused(group="a+b"),
        "group with / refused": refused(group="a/b"),
        "group with # refused": refused(group="a#b"),
        "node with + refused": refused(node="a+b"),
        "node with / refused": refused(node="a/b"),
        "node with # refused": refused(node="a#b"),
        "device with + refused": refused(devices=("a+b",)),
        "device with / refused": refused(devices=("a/b",)),
        "device with # refused": refused(devices=("a#b",)),
        "two devices of one name refused": refused(devices=("p", "p")),
        "two nodes of one name refused": refused(sinks=2),
        "names were plain": not refused(),
        "two nodes with one device": not refused(sinks=2, nodes=2),
        "told ids apart by case": bool(advice(devices=("pump", "Pump"))),
        "told metrics apart by case": bool(advice(tags=("flow", "Flow"))),
        "nothing to tell": not advice(),
    }


def written(group=GROUP, node=NODE, devices=("pump",), sinks=1, nodes=1, tags=("flow",)):
    lines = ["version: 1", "gateway: {id: gw}", "devices:"]
    some = ", ".join(f"{t}: {{reg: {i}}}" for i, t in enumerate(tags))
    device = 'type: modbus, connect: "tcp://h:502", unit: 1, addressing: zero_based, poll: 1s'
    lines += [f'  "{d}": {{{device}, tags: {{{some}}}}}' for d in devices]
    lines.append("sinks:")
    for i in range(sinks):
        name = f"{node}{i}" if nodes > 1 else node
        lines.append(f'  s{i}: {{type: sparkplug, connect: "mqtt://h:1", group: "{group}", '
                     f'node: "{name}"}}')  # fmt: skip
    return "\n".join(lines) + "\n"


def refused(**how):
    try:
        loads(written(**how), "names.yaml", installed())
    except ConfigProblems:
        return True
    return False


def advice(**how):
    settings = loads(written(**how), "names.yaml", installed())
    return twins(settings, streams(settings))
