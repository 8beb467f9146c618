"""`edge-agent fleet models` against a broker at which a thousand gateways have told their state."""

import asyncio
import json

import pytest

from agent.app.modelstate import VERSIONS
from agent.cli.main import main
from agent.core.ring import place
from agent.links.mqtt import MqttLink
from agent.links.mqtt_peer import Peer
from agent.links.names import Lookup
from agent.runtime.clock import SystemClock
from simulators.broker import Broker
from tests.contracts import problems

pytestmark = pytest.mark.needs("mosquitto")

TS = "2026-11-23T10:00:00.000000Z"


def document(stage, release=2):
    """The document of a gateway on which the newest release is at *stage*."""
    stages = [(1, "active" if stage != "active" else "retired"), (release, stage)]
    versions = [
        {"version": f"1.{n}", "release": n, "digest": f"{n:064x}", "stage": s, "since": TS}
        for n, s in stages
    ]
    assert len(versions) <= VERSIONS
    return {
        "v": 1, "ts": TS, "model": "bearing", "instance": "pump1", "serving": None,
        "candidate": None, "previous": None, "versions": versions, "pinned": False, "held": False,
        "drift": None, "error": "two crashes" if stage == "rolled_back" else "",
    }  # fmt: skip


async def told(broker, stages):
    """Gateway -> stage, published as the gateways do."""
    peer = Peer("127.0.0.1", broker.port, "gateways", window=1000)
    link = MqttLink(peer, None, Lookup(peer.host), SystemClock(), v5=True)
    async with link, asyncio.TaskGroup() as tg:
        for gateway, stage in stages.items():
            topic = f"plant/{gateway}/_model/pump1/state"
            payload = json.dumps(document(stage)).encode()
            assert problems(topic, payload) == []
            tg.create_task(link.publish(topic, payload, retain=True))


def fleet(broker, *words):
    """Exit code of one command."""
    about = ["--broker", broker.url, "--prefix", "plant", "--wait", "0.3"]
    return main(["fleet", "models", *about, *words])


def test_a_thousand_gateways_tell_whether_a_ring_may_grow(capsys):
    """A table for people, JSON for programs, and 1 as soon as more have failed than may."""
    ring = [f"g{i}" for i in range(1000) if place(f"g{i}", "bearing", 2) < 1000]
    stages = {f"g{i}": "active" for i in range(1000)} | dict.fromkeys(ring[:4], "rolled_back")
    with Broker() as broker:
        asyncio.run(told(broker, stages))
        assert fleet(broker, "--json") == 0
        (model,) = json.loads(capsys.readouterr().out)["models"]
        assert (model["release"], model["gateways"], model["failed"]) == (2, 1000, 4)
        assert (model["stages"], model["stop"]) == ({"active": 996, "rolled_back": 4}, False)
        assert fleet(broker, "--ring", "10", "--percent", "3") == 1
        out, err = capsys.readouterr()
        assert f"4 of {len(ring)} gateways" in err
        assert out.split("\n")[0].split()[:3] == ["MODEL", "VERSION", "RELEASE"]
        assert f"bearing 1.2 on {ring[0]}: rolled_back since {TS} (two crashes)" in out


def test_a_release_that_nobody_has_says_nothing(capsys):
    """75, so that a pipeline waits; without any document, or broker, 69."""
    with Broker() as broker:
        assert fleet(broker) == 69
        assert "E667" in capsys.readouterr().err
        asyncio.run(told(broker, {"g1": "active", "g2": "shadow"}))
        assert fleet(broker, "--release", "7") == 75
    assert fleet(broker) == 69
    assert main(["fleet", "models", "--broker", "nowhere"]) == 2


def test_a_broker_that_holds_back_is_found_out(tmp_path, capsys):
    """More documents than it queues for a client: none is better than some, and with the names
    of the gateways all of them come. Who says nothing is named.
    """
    with Broker(["max_queued_messages 50"]) as broker:
        asyncio.run(told(broker, {f"g{i}": "active" for i in range(3000)}))
        assert fleet(broker) == 69
        assert "E666" in capsys.readouterr().err
        names = tmp_path / "gateways"
        names.write_text("".join(f"g{i}\n" for i in range(0, 3000, 30)) + "g9999\n")
        assert fleet(broker, "--gateways", str(names), "--json") == 0
        told_of = json.loads(capsys.readouterr().out)
        assert (told_of["silent"], told_of["models"][0]["gateways"]) == (["g9999"], 100)
