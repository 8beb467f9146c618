"""One agent, two devices, a broker, a host application, and the relay that hears all of them."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from simulators.agent_process import AgentProcess
from simulators.broker import Broker
from simulators.modbus_server import ModbusServer, RegisterImage
from simulators.mqtt_relay import Relay
from tests import sparkplug_proto as proto
from tests.agents import configure
from tests.tools import until

GROUP, NODE, HOST = "plant", "gw", "scada"
EDGE = "gw-scada"
"""Client id of the edge node."""


def topic(kind, device=""):
    """A topic of our edge node."""
    return f"spBv1.0/{GROUP}/{kind}/{NODE}" + (f"/{device}" if device else "")


def now_ms():
    return time.time_ns() // 1_000_000


def command(
    name="", value=None, *, kind="boolean_value", alias=None, at_ms=None, timed=True, **more
):
    """A command as a host sends it: time, one metric by name or by alias, no seq."""
    metric = {kind: value} | ({"timestamp": at_ms or now_ms()} if timed else {})
    metric |= {"alias": alias} if alias is not None else {"name": name}
    return proto.Payload(timestamp=at_ms or now_ms(), metrics=[metric | more]).SerializeToString()


def rebirth():
    return command("Node Control/Rebirth", True, datatype=11)


class Host:
    """A host application: a client of its own that hears everything and says what it is told."""

    def __init__(self, port):
        self._port = port

    async def __aenter__(self):
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=HOST,
                                   protocol=paho.MQTTv5)  # fmt: skip
        self._client.on_connect = lambda c, *_: c.subscribe("spBv1.0/#", 1)
        self._client.on_subscribe = lambda *_: loop.call_soon_threadsafe(ready.set)
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        await asyncio.wait_for(ready.wait(), 10)
        return self

    async def __aexit__(self, *exc):
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, where, payload, *, qos=0, retain=False):
        self._client.publish(where, payload, qos, retain)

    def state(self, *, online, at_ms=None):
        said = json.dumps({"online": online, "timestamp": at_ms or now_ms()})
        self.say(f"spBv1.0/STATE/{HOST}", said, qos=1, retain=True)


class Scene:
    """Everything, and what may be done to it."""

    def __init__(self, folder):
        self.folder, self.stack = folder, AsyncExitStack()
        self.pump, self.fan = RegisterImage(100), RegisterImage(100)

    async def __aenter__(self):
        enter = self.stack.enter_async_context
        self.broker = self.stack.enter_context(Broker())
        self.relay = await enter(Relay(self.broker.port))
        self.pump_server = await enter(ModbusServer({1: self.pump}))
        self.fan_server = ModbusServer({1: self.fan})
        await self.fan_server.__aenter__()
        self.host = await enter(Host(self.relay.port))
        return self

    async def __aexit__(self, *exc):
        await self.fan_server.__aexit__(*exc)
        await self.stack.aclose()

    @property
    def packets(self):
        return self.relay.packets

    def said(self, kind, device="", since=0):
        """What the edge node has published of a kind."""
        return [
            p for p in self.packets[since:]
            if p.up and p.client == EDGE and p.kind == "PUBLISH" and p.topic == topic(kind, device)
        ]  # fmt: skip

    async def hear(self, kind, device="", since=0, more=None, within_s=15.0):
        """Return when the edge node has said something new."""
        await until(
            lambda: any(more is None or more(p) for p in self.said(kind, device, since)), within_s,
            lambda: f"no {kind} {device}: {[p.topic or p.kind for p in self.packets[-20:]]}",
        )  # fmt: skip

    def config(self, **sections):
        tags = {
            "level": {"reg": 0, "scale": 0.1, "unit": "m", "range": [0, 9]},
            "fill": {"reg": 1}, "on": {"reg": 0, "table": "coil"},
            "serial": {"reg": 20, "as": "text", "length": 8},
        }  # fmt: skip
        device = {"type": "modbus", "unit": 1, "addressing": "zero_based", "poll": "50ms",
                  "timeout": "300ms"}  # fmt: skip
        devices = {
            "pump": device | {"connect": self.pump_server.url, "tags": tags},
            "fan": device | {"connect": self.fan_server.url, "tags": {"rpm": {"reg": 0}}},
        }
        sink = {"type": "sparkplug", "connect": f"mqtt://127.0.0.1:{self.relay.port}",
                "group": GROUP, "primary_host": HOST, "keepalive": "5s"}  # fmt: skip
        parts = {
            "devices": devices, "sinks": {"scada": sink}, "bad_after": "1s",
            "alarms": {"high": {"tag": "pump/level", "high": 8, "priority": 1}},
            "commands": {"sinks": ["scada"], "verbs": ["write"], "without_clock": "accept"},
            "writes": {"read_only": False, "tags": {
                "pump/level": {"min": 0, "max": 9, "every": "0s"}, "pump/on": {"every": "0s"}}},
        }  # fmt: skip
        return configure(self.folder, **(parts | sections))

    def agent(self, **sections):
        return AgentProcess(self.config(**sections))
