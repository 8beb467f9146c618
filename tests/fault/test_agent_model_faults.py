"""Models that die, hang, eat memory or answer NaN, and registries that lie: beside a good one."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulators import models
from simulators.agent_process import AgentProcess
from simulators.broker import Broker, Collector
from simulators.modbus_server import ModbusServer
from simulators.registry_server import RegistryServer
from tests.agents import Counting, FarEnd, committed, configure, device, sink, told
from tests.tools import until

pytestmark = pytest.mark.needs("mosquitto")
MANY = pytest.mark.slow
X86 = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="integer division traps on x86 only"
)
INPUTS = ["d/n", "d/temp"]


def model(instance: str, **origin: Any) -> dict[str, Any]:
    """A model of two rows; its worker has half a second."""
    return {
        "window": {"kind": "count", "rows": 2},
        "deadline": "500ms",
        "allow_ops": ["Loop"],  # a hang must reach the worker, which must survive it
        "instances": {instance: {"inputs": INPUTS}},
    } | origin


@dataclass(frozen=True)
class Plant:
    """A device that counts, a registry, a running agent, the far end."""

    image: Counting
    registry: RegistryServer
    agent: AgentProcess
    far: FarEnd
    folder: Path

    async def scores(self, instance: str, more: int = 5) -> None:
        """Return when *instance* has given *more* good scores."""
        stream = f"model/{instance}"
        seen = len(self.far.values(stream, "score"))
        await until(lambda: len(self.far.values(stream, "score")) >= seen + more, 20)

    async def told_of(self, name: str) -> dict[str, Any]:
        """Its entry in ``models.list``."""
        listed = await self.agent.ask("models.list")
        return next(m for m in listed if m["name"] == name)

    def collected_whole(self) -> None:
        """Every scan is at the far end, and a result of the good model for each since its first:
        no fault of a model costs a row or another's window.
        """
        values = self.far.values("d")
        assert values == [values[0] + i for i in range(len(values))]
        scored = [a.ts for a in self.far.rows("model/good")]
        assert scored == [a.ts for a in self.far.rows("d") if a.ts >= scored[0]]
        self.far.sound()


@asynccontextmanager
async def plant(
    folder: Path, others: dict[str, Any], registry: RegistryServer
) -> AsyncIterator[Plant]:
    """The good model from a file, and *others* beside it."""
    image, good = Counting(), folder / "good.onnx"
    good.write_bytes(models.tiny())
    with Broker() as broker, Collector(broker.url, "edge/#") as collector:
        far = FarEnd(collector)
        async with ModbusServer({1: image}) as server:
            config = configure(
                folder,
                devices={"d": device(server.url)},
                sinks={"plant": sink(broker.url)},
                models={"good": model("good", file=str(good)), **others},
                registries={
                    "main": {
                        "type": "http",
                        "url": registry.url,
                        "timeout": "500ms",
                        "unsigned": "accept",
                    }
                },
            )
            async with AgentProcess(config) as agent:
                one = Plant(image, registry, agent, far, folder)
                yield one
                assert await agent.terminate() == 0, agent.tail()
        await far.complete(committed(folder / "data"))
        one.collected_whole()


@pytest.fixture
def registry():
    with RegistryServer() as server:
        yield server


LIMIT, SAFE = 1e6, 0.0
FAULTS = ["cut", "corrupt", "endless", "drip", "silent", "garbage", "error"]
BROKEN_FILES = {
    "garbage": (models.garbage, "E670"),
    "external": (models.external_data, "E671"),
    "huge": (models.out_of_memory, "the model refuses its input"),
    "nan": (lambda: models.nan(-1e6), "is not a number"),  # also for the noise of a first trial
    "endless": (models.endless, "no answer within"),
    "crash": (models.crash, "SIGFPE"),
    "segfault": (models.segfault, "SIGFPE"),
}
TRAPS = {"crash", "segfault"}


def files(folder: Path, made: dict[str, bytes]) -> dict[str, Any]:
    """A model of type ``file`` for each, serving an instance of its own name."""
    for name, data in made.items():
        (folder / f"{name}.onnx").write_bytes(data)
    return {name: model(name, file=str(folder / f"{name}.onnx")) for name in made}


def reported(status: dict[str, Any], name: str, text: str) -> bool:
    """Does the status say *text* about the model?"""
    return any(r.startswith(f"model {name}: ") and text in r for r in status["reasons"])


@pytest.mark.parametrize(
    "names", [["garbage", "huge", "nan", "segfault"], pytest.param([*BROKEN_FILES], marks=MANY)]
)
async def test_a_broken_file_never_serves(tmp_path, registry, names):
    """Each is refused in its trial, with its reason in the status; the good one scores on."""
    names = [n for n in names if n not in TRAPS or os.uname().machine == "x86_64"]
    others = files(tmp_path, {name: BROKEN_FILES[name][0]() for name in names})
    async with plant(tmp_path, others, registry) as here:
        for name in names:
            await told(
                here.agent, lambda s, n=name: reported(s, n, BROKEN_FILES[n][1]), within_s=60
            )
            await here.scores("good")
        await here.scores("good", 20)
        assert not any(here.far.rows(f"model/{name}") for name in names)


@X86
@pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=MANY)])
async def test_a_model_that_turns_bad_in_service(tmp_path, registry, rng, rounds):
    """Crash and hang: taken out after the second time. Memory and NaN: Bad results without a
    value, and good ones when it is over. The good model loses no window.
    """
    made = {
        "crash": models.crash(LIMIT),
        "endless": models.endless(LIMIT),
        "huge": models.out_of_memory(LIMIT),
        "nan": models.nan(LIMIT),
    }
    async with plant(tmp_path, files(tmp_path, made), registry) as here:
        for name in made:
            await here.scores(name)
        for _ in range(rounds):
            here.image.set_float32(2, 1e7)
            for name in ("crash", "endless"):
                await told(here.agent, lambda s, n=name: reported(s, n, "taken out"), 20)
            await told(here.agent, lambda s: reported(s, "huge", "E603"))
            for name in ("huge", "nan"):
                await until(lambda n=name: _newest(here, n) == (None, "bad_sensor"))
            await here.scores("good", rng.randrange(5, 60))
            here.image.set_float32(2, SAFE)
            await here.scores("huge")
            await here.scores("nan")
            status = await told(here.agent, lambda s: not reported(s, "huge", ""))
            assert status["devices"]["d"]["connected"]
        assert not any(status["models"][n]["state"] == "active" for n in ("crash", "endless"))


def _newest(here: Plant, name: str) -> tuple[float | None, str]:
    return here.far.rows(f"model/{name}")[-1].values["score"]


@pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=MANY)])
async def test_a_registry_that_lies_breaks_off_or_is_silent(tmp_path, registry, rng, rounds):
    """The version in service scores on, the reason is told; what is right is taken when it is."""
    versions = (str(n) for n in range(1, 10_000))
    registry.publish("m", version := next(versions), padded(version))
    others = {"m": model("m", registry="main", channel="stable", poll="1s")}
    async with plant(tmp_path, others, registry) as here:
        await here.scores("m")
        for fault in rng.sample(FAULTS, len(FAULTS)) * rounds:
            serving = version
            registry.fault = fault
            registry.publish("m", version := next(versions), padded(version))
            await _until_told(here, lambda m: m["last_error"])
            await here.scores("m")
            assert (await here.told_of("m"))["version"] == serving, fault
            assert reported(await here.agent.ask("status"), "m", "")
            registry.fault = "ok"
            registry.publish("m", version := next(versions), padded(version))
            assert (await here.agent.ask("models.pull", name="m"))["version"] == version
            await here.scores("m")
            assert not reported(await here.agent.ask("status"), "m", "")


def padded(version: str) -> bytes:
    """A good model, unlike any other version, of 20 kB."""
    return models.with_metadata(models.tiny(), version=version, note="x" * 20_000)


async def _until_told(here: Plant, wanted: Callable[[dict[str, Any]], object]) -> None:
    """Return when ``models.list`` says of the model m what is wanted."""

    async def look() -> object:
        return wanted(await here.told_of("m"))

    await until(look, 30, here.agent.tail)


HOSTILE_VERSIONS = {
    "segfault": models.segfault(),
    "garbage": models.garbage(),
    "crash": models.crash(LIMIT),
    "endless": models.endless(LIMIT),
}


@X86
@pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=MANY)])
async def test_a_hostile_version_from_a_registry(tmp_path, registry, rng, rounds):
    """Refused in its trial, or taken back when it turns bad in service: the version before scores
    again, and the guilty one is named.
    """
    registry.publish("m", "good", padded("good"))
    others = {"m": model("m", registry="main", channel="stable", poll="1s")}
    async with plant(tmp_path, others, registry) as here:
        await here.scores("m")
        for number in range(rounds):
            for name in rng.sample([*HOSTILE_VERSIONS], len(HOSTILE_VERSIONS)):
                version = f"{name}-{number}"
                hostile = HOSTILE_VERSIONS[name]
                if name != "garbage":
                    hostile = models.with_metadata(hostile, number=str(number))
                registry.publish("m", version, hostile)
                if name in {"crash", "endless"}:
                    await _until_told(here, lambda m, v=version: m["version"] == v)
                    await here.scores("m")
                    here.image.set_float32(2, 1e7)
                    await _until_told(here, lambda m: m["version"] == "good")
                    here.image.set_float32(2, SAFE)
                    await _until_told(here, lambda m: "taken out" in m["last_error"])
                else:
                    await _until_told(here, lambda m: m["last_error"])
                assert reported(await here.agent.ask("status"), "m", "")
                await here.scores("m")
                await here.scores("good")
                assert (await here.told_of("m"))["version"] == "good"
