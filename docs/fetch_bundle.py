"""Fetch the diagnostic archive of a gateway over its broker (docs/commands.md, "The archive").

python docs/fetch_bundle.py BROKER:PORT PREFIX/GATEWAY [FOLDER]
"""

import base64
import hashlib
import json
import queue
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

SILENT_S = 120.0
"""The archive is made within a minute or so; an uplink that broke meanwhile says nothing more."""


def answers(at: str, root: str) -> Iterator[Any]:
    """Ask for the archive; each answer as it comes."""
    host, _, port = at.partition(":")
    name, come = f"bundle-{uuid.uuid4().hex[:12]}", queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _userdata, message: come.put(json.loads(message.payload))
    expires = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    request = json.dumps({"id": name, "expires": expires})
    client.on_subscribe = lambda *_: client.publish(f"{root}/_cmd/bundle", request, qos=1)
    client.on_connect = lambda *_: client.subscribe(f"{root}/_cmd/bundle/reply/{name}", qos=1)
    client.connect(host, int(port or 1883))
    client.loop_start()
    try:
        while True:
            yield come.get(timeout=SILENT_S)
    finally:
        client.disconnect()
        client.loop_stop()


def fetch(at: str, root: str, folder: Path) -> Path:
    """Put the pieces together; nothing is written unless the archive is whole."""
    pieces: dict[int, bytes] = {}
    for answer in answers(at, root):
        if not answer["ok"]:
            raise SystemExit(f"{answer['result']}: {answer['error']}")
        data = answer["data"]
        if answer["result"] == "piece":
            pieces[data["piece"]] = base64.b64decode(data["base64"])  # one that comes twice is one
            continue
        archive = b"".join(pieces[n] for n in range(1, data["pieces"] + 1))
        if hashlib.sha256(archive).hexdigest() != data["sha256"]:
            raise SystemExit("the archive is not whole: ask again")
        path = folder / data["name"]
        path.write_bytes(archive)
        return path
    raise SystemExit("no answer")


if __name__ == "__main__":
    sys.stdout.write(f"{fetch(sys.argv[1], sys.argv[2], Path(*sys.argv[3:]))}\n")
