"""The pump house publishing over MQTT: JSON per pump, or Sparkplug B. Also a program of its own."""

import argparse
import json
import struct
import time
from collections.abc import Sequence
from typing import Final, Literal, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.codecs.protobuf import blob, varint
from simulators.plant import SENSORS, Plant

GROUP: Final = "plant"
NODE: Final = "edge1"
_DOUBLE: Final = 10
_UINT64: Final = 8


def metric(value: float, *, name: str = "", alias: int, ms: int) -> bytes:
    """A double; *name* (and so the type) only in births."""
    head = blob(1, name.encode()) if name else b""
    kind = b"\x20" + varint(_DOUBLE) if name else b""
    return blob(
        2,
        head + b"\x10" + varint(alias) + b"\x18" + varint(ms) + kind
        + b"\x69" + struct.pack("<d", value),
    )  # fmt: skip


def session(number: int) -> bytes:
    """The metric ``bdSeq``: which connection of the node a birth or a death belongs to."""
    return blob(2, blob(1, b"bdSeq") + b"\x20" + varint(_UINT64) + b"\x58" + varint(number))


def message(ms: int, seq: int | None, *metrics: bytes) -> bytes:
    """A payload."""
    tail = b"" if seq is None else b"\x18" + varint(seq)
    return b"\x08" + varint(ms) + b"".join(metrics) + tail


class MqttDevices:
    """Publishes what the sensors of a plant show, at QoS 1 (JSON) or 0 (Sparkplug).

    JSON goes to ``{GROUP}/pump1/telemetry``: ``{"ts": ms, "sensors": {name: value}}``. In
    Sparkplug the pumps are devices of the node `NODE`.
    """

    def __init__(
        self, plant: Plant, url: str, form: Literal["json", "sparkplug"] = "json", bdseq: int = 0
    ) -> None:
        host, port = url.removeprefix("mqtt://").split(":")
        self._at, self._plant, self._form, self._bdseq = (host, int(port)), plant, form, bdseq
        self._seq = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2)

    def __enter__(self) -> Self:
        if self._form == "sparkplug":
            death = message(_now_ms(), None, session(self._bdseq))
            self._client.will_set(f"spBv1.0/{GROUP}/NDEATH/{NODE}", death, 1)
        self._client.connect(*self._at)
        self._client.loop_start()
        if self._form == "sparkplug":
            self.birth()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._form == "sparkplug":
            death = message(_now_ms(), None, session(self._bdseq))
            self._client.publish(f"spBv1.0/{GROUP}/NDEATH/{NODE}", death, 1).wait_for_publish(5)
        self._client.disconnect()
        self._client.loop_stop()

    def birth(self) -> None:
        """Tell the names of all metrics."""
        ms = _now_ms()
        self._seq = 0
        self._sparkplug("NBIRTH", "", ms, session(self._bdseq))
        for pump in range(self._plant.n):
            self._device("DBIRTH", pump, ms, named=True)

    def publish(self) -> None:
        """One message of each pump."""
        ms = _now_ms()
        for pump in range(self._plant.n):
            if self._form == "sparkplug":
                self._device("DDATA", pump, ms, named=False)
                continue
            shown = self._plant.values[pump].tolist()
            sensors = {s[0]: v for s, v in zip(SENSORS, shown, strict=True)}
            body = json.dumps({"ts": ms, "sensors": sensors})
            self._client.publish(f"{GROUP}/pump{pump + 1}/telemetry", body, 1)

    def _device(self, kind: str, pump: int, ms: int, *, named: bool) -> None:
        told = [
            metric(v, name=f"Sensors/{s[0]}" if named else "", alias=pump * len(SENSORS) + i, ms=ms)
            for i, (s, v) in enumerate(
                zip(SENSORS, self._plant.values[pump].tolist(), strict=True), 1
            )
        ]
        self._sparkplug(kind, f"/pump{pump + 1}", ms, *told)

    def _sparkplug(self, kind: str, device: str, ms: int, *metrics: bytes) -> None:
        payload = message(ms, self._seq, *metrics)
        self._client.publish(f"spBv1.0/{GROUP}/{kind}/{NODE}{device}", payload, 0)
        self._seq = (self._seq + 1) % 256


def _now_ms() -> int:
    return time.time_ns() // 10**6


def main(argv: Sequence[str] | None = None) -> int:
    """Publish until interrupted."""
    parser = argparse.ArgumentParser(description="a pump house that publishes over MQTT")
    parser.add_argument("url", help="mqtt://HOST:PORT")
    parser.add_argument("--form", choices=("json", "sparkplug"), default="json")
    parser.add_argument("--period", type=float, default=1.0, metavar="SECONDS")
    args = parser.parse_args(argv)
    plant = Plant()
    with MqttDevices(plant, args.url, args.form) as devices:
        while True:
            plant.advance(args.period)
            devices.publish()
            time.sleep(args.period)


if __name__ == "__main__":
    raise SystemExit(main())
