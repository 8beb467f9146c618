"""Somebody at the broker who asks the agent for something, as a control system would."""

import json
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_WITHIN_S: Final = 10.0


class Asker:
    """Publishes requests below ``{root}/_cmd`` and keeps the answers.

    On MQTT 5 it names a response topic and sends correlation data, on 3.1.1 it listens to the
    topic that the contract promises.

    Attributes:
        answers: (topic, payload as data, correlation data), in order of arrival.
        here: The response topic (MQTT 5).
    """

    def __init__(self, url: str, root: str, *, v5: bool) -> None:
        host, port = url.removeprefix("mqtt://").split(":")
        self._at, self._root, self._v5 = (host, int(port)), root, v5
        name = f"asker-{os.getpid()}-{id(self):x}"
        self.here = f"askers/{name}"
        self.answers: list[tuple[str, Any, bytes | None]] = []
        self._ready = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
        )

    def __enter__(self) -> Self:
        client = self._client
        client.on_connect = self._connected
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = self._arrived
        client.connect(*self._at)
        client.loop_start()
        if not self._ready.wait(_WITHIN_S):
            raise RuntimeError(f"no subscription at {self._at} within {_WITHIN_S} s")
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def ask(
        self,
        verb: str,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        for_s: float = 60.0,
        **more: Any,
    ) -> None:
        """Send a request that expires in *for_s* seconds; *more* goes to `send`."""
        expires = (datetime.now(UTC) + timedelta(seconds=for_s)).isoformat()
        request = {"id": name, "expires": expires, "args": dict(args or {})}
        self.send(verb, json.dumps(request).encode(), **more)

    def send(
        self, verb: str, payload: bytes, *, retain: bool = False, here: str | None = None
    ) -> None:
        """Send any bytes; *here* is another response topic, empty for none."""
        properties = None
        here = self.here if here is None else here
        if self._v5 and here:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = here
            properties.CorrelationData = payload[:16]
        sent = self._client.publish(f"{self._root}/_cmd/{verb}", payload, 1, retain, properties)
        sent.wait_for_publish(_WITHIN_S)

    def answer(self, name: str, within_s: float = _WITHIN_S) -> Any:
        """The answer to the request *name*."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for _, payload, _ in list(self.answers):
                if payload["id"] == name:
                    return payload
            time.sleep(0.005)
        raise AssertionError(f"no answer to {name} within {within_s} s: {self.answers}")

    def _connected(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(self.here, 1), (f"{self._root}/_cmd/+/reply/+", 1)])

    def _arrived(self, _client: object, _userdata: object, m: paho.MQTTMessage) -> None:
        correlation = getattr(m.properties, "CorrelationData", None) if m.properties else None
        self.answers.append((m.topic, json.loads(m.payload), correlation))
