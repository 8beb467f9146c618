"""What tests of the MQTT source share: a publisher, and a device fed without a broker."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.config.base import Context
from agent.core.stats import Stats
from agent.links.mqtt_peer import Incoming
from agent.sources.mqtt import MqttConfig
from agent.sources.mqtt_feed import Feed
from agent.sources.mqtt_sparkplug import SparkplugFeed
from tests.tools import ManualClock


def feed(folder: Path, **section: Any) -> Feed:
    """The feed of device ``d``, as its section of the file says."""
    document = {"type": "mqtt", "connect": "mqtt://127.0.0.1:1883"} | section
    config = MqttConfig.model_validate(document)
    ctx = Context(ManualClock(), Stats(), "gw", "edge/gw", folder)
    return (SparkplugFeed if config.format == "sparkplug" else Feed)("d", config, ctx)


def take(feeding: Feed, topic: str, payload: object, *, retained: bool = False) -> list[Any]:
    """Batches out of one message; an object goes as JSON."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return feeding.take(Incoming(topic, data, retained))


def one(feeding: Feed, topic: str, payload: object, **how: Any) -> dict[str, tuple[Any, int]]:
    """The only row of a message: short name -> (value, quality)."""
    (batch,) = take(feeding, topic, payload, **how)
    assert len(batch) == 1
    return {n: (batch.v[0, i], int(batch.q[0, i])) for i, n in enumerate(batch.tags.short)}


@contextmanager
def publisher(url: str) -> Iterator[paho.Client]:
    """A device that publishes."""
    host, port = url.removeprefix("mqtt://").split(":")
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1000)
    client.connect(host, int(port))
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()
