"""Agent, broker and power gone at random instants: what was on the disk comes to the far end."""

import asyncio
import random

import pytest

from simulators.agent_process import AgentProcess
from tests.agents import committed, told
from tests.crash.mounts import make_image, mounted, own_mounts, sound
from tests.crash.shutdown import shut_down
from tests.fault.test_agent_broker_faults import Site, delivered, site

pytestmark = pytest.mark.needs("mosquitto")
MANY = pytest.mark.slow
Row = tuple[str, int, int]
"""(stream, epoch, seq)."""


async def turmoil(here: Site, rng: random.Random) -> None:
    """Some rows, with the broker killed and back at any instant."""
    for _ in range(rng.randrange(1, 4)):
        await here.image.read(rng.randrange(1, 25))
        await asyncio.sleep(rng.uniform(0.0, 0.1))  # the instant is the test
        here.broker.kill()
        if rng.random() < 0.5:
            await asyncio.to_thread(here.broker.restart)


async def settle(here: Site, kept: set[Row], epochs: list[int]) -> None:
    """In the end everything that was ever on the disk is at the far end, under names of its own,
    and the ledger that arrives there counts the same rows.
    """
    here.broker.kill()
    await asyncio.to_thread(here.broker.restart)
    async with AgentProcess(here.config) as agent:
        epochs.append(await epoch_of(agent))
        await here.image.read(20)
        await delivered(agent)
        assert await agent.terminate() == 0
    rows = committed(here.data_dir)
    await here.far.complete(kept | rows)
    assert epochs == sorted(set(epochs))
    assert here.far.broken == here.wire.broken == []
    assert here.far.disorder() == []
    assert {gap["reason"] for gap in here.far.facts("_gap")} <= {"power_off"}
    balanced(here, rows, epochs[-1])


def balanced(here: Site, rows: set[Row], last: int) -> None:
    """Each ledger adds up; the last one, made in the *last* run, knows every row before that."""
    ledgers = here.far.facts("_ledger")
    for account in (a for ledger in ledgers for a in ledger["streams"].values()):
        assert account["produced"] == account["delivered"] + account["buffered"]
        assert account["dropped"] == {}
    streams = next(x["streams"] for x in reversed(ledgers) if x["epoch"] == last)
    account = streams.get("d", {"produced": 0, "delivered": 0})  # an early cut left no row of it
    earlier = {r for r in rows if r[0] == "d" and r[1] < last}
    now = {r for r in rows if r[0] == "d" and r[1] == last}
    assert 0 <= account["produced"] - len(earlier) <= len(now)
    assert account["delivered"] <= len(here.far.rows("d"))


async def epoch_of(agent: AgentProcess) -> int:
    """The number of this run."""
    epoch: int = (await told(agent, lambda s: s["journal"]["epoch"]))["journal"]["epoch"]
    return epoch


@pytest.mark.parametrize("lives", [2, pytest.param(80, marks=MANY)])
async def test_agent_and_broker_killed_at_random_instants(tmp_path, rng, lives):
    """Whatever the journal held at each SIGKILL is there after it, and arrives in the end."""
    async with site(tmp_path) as here:
        kept: set[Row] = set()
        epochs: list[int] = []
        for _ in range(lives):
            async with AgentProcess(here.config) as agent:
                epochs.append(await epoch_of(agent))
                await turmoil(here, rng)
                await agent.kill()
            rows = committed(here.data_dir)
            assert kept <= rows
            kept = rows
        await settle(here, kept, epochs)


@pytest.mark.root
@pytest.mark.loop
@pytest.mark.needs("mkfs.ext4")
@pytest.mark.parametrize("lives", [1, pytest.param(30, marks=MANY)])
async def test_power_cut_under_the_agent(tmp_path, rng, lives):
    """The file system is shut down under it: what had been sent as history is still on the disk,
    no id is used twice, and the next start needs no help.
    """
    own_mounts()
    image, data = tmp_path / "disk.img", tmp_path / "data"
    make_image(image, 128 << 20)
    async with site(tmp_path) as here:
        kept: set[Row] = set()
        epochs: list[int] = []
        for _ in range(lives):
            with mounted(image, data):
                async with AgentProcess(here.config) as agent:
                    epochs.append(await epoch_of(agent))
                    await turmoil(here, rng)
                    kept |= of_the_disk(here)
                    shut_down(data, rng.choice(("logflush", "nologflush", "nologflush")))
                    await agent.kill()
            with mounted(image, data):
                rows = committed(data)
            assert sound(image) == []
            assert kept <= rows
            kept = rows
        with mounted(image, data):
            await settle(here, kept, epochs)


def of_the_disk(here: Site) -> set[Row]:
    """The rows that were sent as history: they were read from the journal."""
    return {(a.key[1], a.key[2], a.seq) for a in here.wire.arrivals() if a.lane == "history"}
