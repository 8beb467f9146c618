"""A private mosquitto, and a consumer that keeps what arrives."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

_READY_S: Final = 10.0


class Broker:
    """mosquitto on 127.0.0.1, on a port of the system's choice; its files vanish with it.

    Attributes:
        port: Stays the same over `kill` and `restart`.
    """

    def __init__(self, config_lines: Sequence[str] = (), *, persistence: bool = False) -> None:
        """Take note of what to serve.

        Args:
            config_lines: Added to the configuration; without a line about anonymous clients
                they are welcome.
            persistence: Keep sessions and retained messages over a SIGKILL.
        """
        self._lines, self._persistence = tuple(config_lines), persistence
        self.port = free_port()

    @property
    def url(self) -> str:
        """What a sink's ``connect`` takes."""
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="broker-"))
        self._folder.chmod(0o777)
        lines = [f"listener {self.port} 127.0.0.1", *self._lines]
        if not any(line.startswith("allow_anonymous") for line in lines):
            lines.append("allow_anonymous true")
        if self._persistence:
            lines += ["persistence true", f"persistence_location {self._folder}/"]
            lines += ["autosave_interval 1", "autosave_on_changes true"]
        if os.geteuid() == 0:
            lines.append("user root")
        (self._folder / "mosquitto.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.restart()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self) -> None:
        """Start it (again); returns when it takes connections."""
        program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise FileNotFoundError("mosquitto is not installed: apt-get install mosquitto")
        self._log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            [program, "-c", str(self._folder / "mosquitto.conf")],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + _READY_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError as e:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    text = (self._folder / "log").read_text(encoding="utf-8")
                    raise RuntimeError(f"mosquitto did not start:\n{text}") from e
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """SIGKILL: no goodbye, and what was not saved is gone."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._log.close()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Message:
    """What arrived."""

    topic: str
    payload: bytes
    retain: bool
    content_type: str

    def json(self) -> Any:
        """The payload as data; history is inflated."""
        packed = self.payload[:1] == b"x"
        return json.loads(zlib.decompress(self.payload) if packed else self.payload)


class Collector:
    """A consumer with a durable session: it misses nothing while the broker keeps sessions."""

    def __init__(
        self,
        url: str,
        topic_filter: str,
        on_message: Callable[[Message], None] | None = None,
        *,
        v5: bool = True,
    ) -> None:
        host, port = url.removeprefix("mqtt://").split(":")
        self._at, self._filter, self._on_message = (host, int(port)), topic_filter, on_message
        self._messages: list[Message] = []
        self._subscribed, self._v5 = threading.Event(), v5

    @property
    def messages(self) -> list[Message]:
        """Everything so far, in order of arrival."""
        return list(self._messages)

    def json(self, topic_filter: str = "#") -> list[Any]:
        """The payloads of the topics that match, as data."""
        matching = (m for m in self.messages if paho.topic_matches_sub(topic_filter, m.topic))
        return [m.json() for m in matching]

    def __enter__(self) -> Self:
        name = f"collector-{os.getpid()}-{id(self):x}"
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            clean_session=None if self._v5 else False,
        )
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._arrived
        self._client.reconnect_delay_set(1, 1)
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 3600
            properties.ReceiveMaximum = 1000
            self._client.connect(*self._at, clean_start=False, properties=properties)
        else:
            self._client.connect(*self._at)
        self._client.loop_start()
        if not self._subscribed.wait(_READY_S):
            raise RuntimeError(f"no subscription at {self._at} within {_READY_S} s")
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: paho.Client, *_: object) -> None:
        if self._v5:
            client.subscribe(self._filter, options=SubscribeOptions(qos=1))
        else:
            client.subscribe(self._filter, qos=1)

    def _arrived(self, _client: object, _userdata: object, m: paho.MQTTMessage) -> None:
        kind = getattr(m.properties, "ContentType", "") if m.properties else ""
        message = Message(m.topic, bytes(m.payload), m.retain, kind)
        self._messages.append(message)
        if self._on_message is not None:
            self._on_message(message)


def free_port() -> int:
    """A TCP port of loopback that nobody has now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
