"""A certificate that is about to be over is an alarm, while there is time to get another."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.links.certificates import days_left
from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from tests.agents import configure, sink
from tests.certificates import Authority
from tests.tools import until

NAME = "agent.certificate.source.meter"


def test_the_first_of_a_chain_and_the_last_of_the_authorities_counts(tmp_path):
    """Own files: whatever is over first breaks the chain; authorities: a successor is enough."""
    authority, old = Authority(tmp_path / "new"), Authority(tmp_path / "old")
    short, _ = old.issue("gateway", days=5)
    bundle, chain = tmp_path / "bundle.pem", tmp_path / "chain.pem"
    bundle.write_bytes(Path(short).read_bytes() + Path(authority.ca).read_bytes())
    chain.write_bytes(Path(short).read_bytes() + Path(old.ca).read_bytes())
    now = datetime.now(UTC)

    assert round(days_left(None, str(bundle), now)) == 90
    assert round(days_left(str(chain), str(bundle), now)) == 5
    assert round(days_left(str(chain), None, now + timedelta(days=7))) == -2
    assert math.isnan(days_left(str(tmp_path / "none"), None, now))
    assert math.isnan(days_left(__file__, None, now))


@pytest.mark.needs("mosquitto")
async def test_told_and_over_with_the_new_one(tmp_path):
    """Two days left: an alarm upstream with its code. A new file and a reload: it clears."""
    authority = Authority(tmp_path / "ca")
    with Broker() as broker, Collector(broker.url, "edge/gw/_alarm/#") as seen:

        def configured(name, days):
            cert, key = authority.issue(name, days)
            device = {"type": "modbus", "connect": "tls://127.0.0.1:9", "unit": 1,
                      "addressing": "zero_based", "tags": {"power": {"reg": 0}},
                      "ca": authority.ca, "cert": cert, "key": key}  # fmt: skip
            return configure(tmp_path, devices={"meter": device}, self={"period": "100ms"},
                             sinks={"plant": sink(broker.url)})  # fmt: skip

        def told():
            events = [m.json() for m in seen.messages]
            return [(e["active"], e["code"]) for e in events if e["alarm"] == NAME]

        async with AgentProcess(configured("short", 2)) as agent:
            await until(lambda: told() == [(True, "A120")])
            configured("long", 60)
            await agent.ask("reload")
            await until(lambda: told() == [(True, "A120"), (False, "A120")])
