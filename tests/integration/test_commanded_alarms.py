"""What people do with alarms, asked for over the broker: on the wire, and in the trail."""

import json
import sqlite3
from contextlib import closing

import pytest

from agent.storage.audit import read_trail, verify
from simulators.agent_process import AgentProcess
from simulators.asker import Asker
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.integration.test_commanded_agent import ROOT, allowed, config, connected, said
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")
VERBS = ["ack", "shelve", "unshelve", "confirm", "dismiss"]


@pytest.mark.parametrize("v5", [True, False], ids=["5", "3.1.1"])
async def test_acknowledged_shelved_and_labelled_over_the_broker(tmp_path, v5):
    """Each request is answered, changes what `_alarms` says, and stands in the trail with who
    asked, in whose name, and why; the rows around a labelled alarm are pinned.
    """
    image = RegisterImage(100)
    image.holding[0] = 70
    alarms = {"full": {"tag": "p/level", "high": 5, "priority": 2}}
    requests = [
        ("ack", {}),
        ("shelve", {"for_s": 3600}),
        ("unshelve", {}),
        ("confirm", {}),
        ("dismiss", {}),
    ]
    with (
        Broker() as broker,
        Asker(broker.url, ROOT, v5=v5) as asker,
        Collector(broker.url, f"{ROOT}/#") as seen,
    ):

        def listed():
            """`full` as the retained list has it now."""
            lists = [m.json() for m in seen.messages if m.topic == f"{ROOT}/_alarms"]
            entries = [e for one in lists[-1:] for e in one["active"]]
            return next((e for e in entries if e["alarm"] == "full"), {})

        async with ModbusServer({1: image}) as server:
            commands = allowed(*(f"alarms.{verb}" for verb in VERBS))
            path = config(tmp_path, server.url, broker, alarms=alarms, commands=commands)
            async with AgentProcess(path) as agent:
                await connected(agent)
                await until(lambda: listed().get("acked") is False)
                now = {
                    "ack": lambda: listed()["acked"] is True,
                    "shelve": lambda: bool(listed().get("shelved")),
                    "unshelve": lambda: not listed().get("shelved"),
                    "confirm": lambda: listed().get("label") == "confirmed",
                    "dismiss": lambda: listed().get("label") == "dismissed",
                }
                for verb, more in requests:
                    args = {"name": "full", "why": f"why {verb}", "by": "anna", **more}
                    asker.ask(f"alarms.{verb}", f"id-{verb}", args)
                    assert (await said(asker, f"id-{verb}"))["ok"]
                    await until(now[verb])
                asker.ask("alarms.ack", "id-none", {"name": "nothing"})
                refused = await said(asker, "id-none")
                assert (refused["ok"], refused["error"]["code"]) == (False, "E787")
            rows = read_trail(agent.data_dir)
            with closing(sqlite3.connect(agent.data_dir / "journal.db")) as db:
                found = db.execute("SELECT key, json FROM state WHERE ns = 'pin'").fetchall()
    ((name, span),) = found
    first, last = json.loads(span)
    assert name.split() == ["full", str(first + 600 * 10**9)]
    assert last - first >= 1200 * 10**9
    assert verify(rows) == ""
    asked = [
        (r["actor"].split(":")[0], r["facts"]["verb"], r["facts"]["args"].get("by"),
         r["facts"]["args"].get("why"))
        for r in rows if str(r["facts"].get("verb", "")).startswith("alarms.")
    ]  # fmt: skip
    assert asked[:5] == [("mqtt", f"alarms.{v}", "anna", f"why {v}") for v, _ in requests]
