"""Record and replay: the same batches from the file, to the last bit, whatever went wrong."""

import asyncio
import itertools
import json
import sys
from contextlib import AsyncExitStack

import pytest

from agent.config.base import Context
from agent.core.errors import AgentError
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.core.texts import Texts
from agent.links.player import PlayedEndpoint, Player
from agent.links.recorder import VERSION, Recorder, line_of
from agent.links.recording import RecordedClock, records
from agent.runtime.clock import SystemClock
from agent.storage.audit import read_trail
from simulators.agent_process import AgentProcess, Refused
from simulators.modbus_server import FaultyServer, ModbusServer, RegisterImage
from simulators.proxy import Proxy
from simulators.rtu_device import RtuDevice
from tests.agents import Counting, configure, device
from tests.agents import told as told_by
from tests.certificates import Authority
from tests.integration.test_sunspec import image
from tests.polling import Rows, modbus, polling
from tests.tools import until

TAGS = {
    "n": {"reg": 0, "as": "uint32"},
    "x": {"reg": 2, "as": "float32", "invalid": "0x7F800000", "scale": 0.1},
    "far": {"reg": 300, "as": "int16"},
    "lot": {"reg": 500, "as": "text", "length": 8, "class": "slow"},
    "gone": {"reg": 502, "class": "slow"},
}
FAULTS = ("ok", "never", "exception", "short", "unit", "late", "split", "function", "ok")
WIRE_FAULTS = (*FAULTS, "close", "garbage", "tid", "bytecount", "protocol", "ok")

MUST_SHOW = {0: Quality.BAD_SENSOR, 1: Quality.BAD_COMM, 2: Quality.BAD_DEVICE}
"""Step -> what is waited for, before the next one."""


class Plant:
    """Devices on every transport, whose registers and faults move with each read."""

    def __init__(self, folder):
        self._folder, self._stack = folder, AsyncExitStack()

    async def __aenter__(self):
        enter = self._stack.enter_async_context
        image, self._image = Counting(), Counting()
        image.hole = range(502, 503)
        self._tcp, self._hidden = await enter(FaultyServer()), await enter(FaultyServer())
        self._tcp.image = self._hidden.image = self._image
        holes = await enter(ModbusServer({1: image}))
        authority = Authority(self._folder / "ca")
        cert, key = authority.issue("gateway")
        tls = await enter(Proxy(self._hidden.port, authority.server()))
        units = {1: self._image, 2: self._image}
        self._rtu = await enter(RtuDevice(units))
        self._stream = await enter(RtuDevice(units, tcp=True))
        serial = {"parity": "none", "baud": 115200}
        more = {"timeout": "60ms", "classes": {"slow": "50ms"}}
        self.devices = {
            "tcp": modbus(self._tcp.url, TAGS, window=4, **more),
            "tcp2": modbus(self._tcp.url, TAGS, unit=2, once_per="n", **more),
            "tls": modbus(f"tls://127.0.0.1:{tls.port}", TAGS, ca=authority.ca, cert=cert,
                          key=key, **more),
            "rtu": modbus(self._rtu.url, TAGS, serial=serial, **more),
            "rtu2": modbus(self._rtu.url, TAGS, unit=2, serial=serial, **more),
            "stream": modbus(self._stream.url, TAGS, **more),
            "holes": modbus(holes.url, TAGS, **more),
            "nobody": modbus("tcp://127.0.0.1:9", TAGS, **more),
        }  # fmt: skip
        return self

    async def __aexit__(self, *exc):
        await self._stack.aclose()

    async def misbehave(self, rows):
        """Every fault once, on every line that can have it, for some rows each."""
        for step, (mode, wire) in enumerate(
            itertools.zip_longest(FAULTS, WIRE_FAULTS, fillvalue="ok")
        ):
            self._tcp.mode = self._hidden.mode = wire
            self._rtu.mode = self._stream.mode = mode
            self._image.set_uint32(0, step)
            self._image.set_float32(2, float("nan") if step == 0 else step / 7)
            self._image.holding[500:502] = 0x4100 + step, 0x4200
            wanted, seen = MUST_SHOW.get(step, Quality.GOOD), len(rows)
            await until(
                lambda seen=seen, wanted=wanted: (
                    len(rows) >= seen + 100 and any((b.q == wanted).any() for b in rows)
                ),
                within_s=15,
            )


def sources(devices, clock, recorder):
    """The sources of *devices*, all with one recorder."""
    ctx = Context(clock, Stats(), "g", "edge/g", None, Texts())
    ctx.shared("recorder", lambda: recorder)
    if isinstance(recorder, Player):
        for config in devices.values():
            ctx.shared(
                ("modbus", config.line),
                lambda c=config: PlayedEndpoint(c.dial(), recorder, clock),
            )
    return [config.build(name, ctx) for name, config in devices.items()]


async def played(path, devices):
    """The rows that *devices* give from the recording, and what the player says of them."""
    tape = records(path)
    clock = RecordedClock(next(tape))
    player, rows = Player(clock), Rows()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(s.run(rows)) for s in sources(devices, clock, player)]
        streams = [s for name, d in devices.items() for s in d.tag_sets(name)]
        async for _ in player.play((r for r in tape if r["r"] != "end"), streams):
            pass
        for task in tasks:
            task.cancel()
    return rows, player


async def curious(source):
    """Somebody who reads a tag now and then."""
    while True:
        await source.demand("n")
        await asyncio.sleep(0.02)


def bits(batch):
    """Everything of a batch that could differ."""
    return batch.stream, batch.t.tobytes(), batch.v.tobytes(), batch.q.tobytes()


async def test_every_fault_on_every_transport_comes_back_to_the_last_bit(tmp_path):
    """TCP, TLS, RTU and RTU over TCP, with every fault there is, and with people who read in the
    middle of scans: the batches from the file are those of the devices: order, times, values and
    qualities.
    """
    clock = SystemClock()
    recorder, path = Recorder(clock), tmp_path / "bus.rec"
    async with Plant(tmp_path) as plant:
        with path.open("wb") as file:
            recorder.start(file.write, {"texts": {}})
            running = sources(plant.devices, clock, recorder)
            async with polling(*running) as rows, asyncio.TaskGroup() as group:
                people = [group.create_task(curious(s)) for s in running]
                await plant.misbehave(rows)
                wanted = list(rows)
                recorder.stop("enough")
                for one in people:
                    one.cancel()
    stepped_back = {r["s"] for r in records(path) if "paused" in r}
    assert stepped_back & {"rtu", "rtu2", "stream"}
    again, player = await played(path, plant.devices)
    qualities = {int(q) for b in wanted for q in b.q.ravel()}
    assert qualities >= {
        Quality.GOOD, Quality.BAD_COMM, Quality.BAD_NOT_CONNECTED, Quality.BAD_CONFIG,
        Quality.BAD_DEVICE, Quality.BAD_SENSOR,
    }  # fmt: skip
    assert {b.stream for b in wanted} > {f"{d}~slow" for d in plant.devices}
    assert [bits(b) for b in again] == [bits(b) for b in wanted]
    assert sum(o.same for o in player.outcomes.values()) == len(wanted)
    assert not any(o.different for o in player.outcomes.values())


async def told(*words):
    """Exit code and everything that one command said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", *map(str, words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode, out.decode()


async def test_the_running_agent_is_recorded_and_the_whole_agent_run_from_it(tmp_path):
    """`record` on the running agent, `replay` of the file: every row the same. With another
    scaling the rows differ, with other registers it says so; nothing is written over; audited.
    """
    file, other = tmp_path / "bus.rec", tmp_path / "other.yaml"
    async with ModbusServer({1: Counting()}) as server:
        path = configure(tmp_path, devices={"d": device(server.url)})
        async with AgentProcess(path) as agent:
            code, out = await told("record", file, "--for", "2s", "--socket", agent.socket)
            assert code == 0, out
            assert "edge-agent replay" in out
            code, out = await told("record", file, "--for", "1s", "--socket", agent.socket)
            assert (code, "E333" in out) == (69, True), out
        asked = [r["facts"]["verb"] for r in read_trail(agent.data_dir) if r["kind"] == "control"]
        assert asked == ["record.start", "record.stop"]
        code, out = await told("record", tmp_path / "dry.rec", "--for", "1s", "--dry", "-c", path)
        assert code == 0, out
    for one in (file, tmp_path / "dry.rec"):
        code, out = await told("replay", one, "--json")
        assert code == 0, out
        result = json.loads(out[out.index("{\n") :])
        assert result["streams"]["d"]["same"] >= 10
        assert result["streams"]["d"]["different"] == 0
    document = json.loads(path.read_text())
    document["devices"]["d"]["tags"]["temp"]["offset"] = 1.0
    other.write_text(json.dumps(document))
    assert (await told("replay", file, "-c", other))[0] == 1
    document["devices"]["d"]["tags"]["temp"]["reg"] = 9
    other.write_text(json.dumps(document))
    code, out = await told("replay", file, "-c", other)
    assert (code, "E363" in out) == (69, True), out


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # pysunspec2's
async def test_other_kinds_of_devices_beside_modbus(tmp_path):
    """A SunSpec device is played with the models that it had told; an MQTT device says nothing,
    and alarms, derived tags and models that name its tags hold.
    """
    file = tmp_path / "bus.rec"
    async with ModbusServer({1: Counting()}) as server, ModbusServer({1: image()}) as solar:
        path = configure(
            tmp_path,
            devices={
                "d": device(server.url),
                "inv": {"type": "sunspec", "connect": solar.url, "unit": 1, "poll": "200ms",
                        "models": [701], "tags": ["DERMeasureAC.W", "DERMeasureAC.Hz"]},
                "press": {"type": "mqtt", "connect": "mqtt://127.0.0.1:9", "format": "plain",
                          "tags": {"force": {"topic": "press/force"}}},
            },
            alarms={
                "force": {"tag": "press/force", "high": 5},
                "frequency": {"tag": "inv/DERMeasureAC.Hz", "low": 1},
            },
            derived={"press/double": {"sum": ["press/force", "press/force"]}},
        )  # fmt: skip
        async with AgentProcess(path) as agent:
            await told_by(agent, lambda s: "inv/DERMeasureAC.W" in s.get("tags", ()))
            code, out = await told("record", file, "--for", "2s", "--socket", agent.socket)
            assert code == 0, out
    code, out = await told("replay", file, "--json")
    assert code == 0, out
    streams = json.loads(out[out.index("{\n") :])["streams"]
    assert streams.keys() == {"d", "inv"} | (streams.keys() & {"inv~plate"})
    assert all(s["same"] > 0 and not s["different"] for s in streams.values())
    assert streams["inv"]["same"] >= 5


async def test_a_second_recording_waits_for_the_first(tmp_path):
    """One recording at a time, and only its owner takes it."""
    async with ModbusServer({1: RegisterImage()}) as server:
        path = configure(tmp_path, devices={"d": device(server.url)})
        async with AgentProcess(path) as agent:
            token = (await agent.ask("record.start"))["token"]
            for verb, args in (("record.start", {}), ("record.take", {"token": "guessed"})):
                with pytest.raises(Refused, match="E364"):
                    await agent.ask(verb, **args)
            assert (await agent.ask("record.take", token=token))["text"].count("\n") >= 1
            await agent.ask("reload")
            await agent.ask("record.stop", token=token)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([b"version: 1\n"], "E361"),
        ([line_of({"r": "head", "v": 99})], "E361"),
        ([line_of({"r": "head", "v": VERSION}), b"00000000 {}\n"], "E362"),
    ],
)
def test_what_is_no_sound_recording_is_refused(tmp_path, lines, code):
    """Not a recording, one of a later version, one with a damaged record."""
    path = tmp_path / "x.rec"
    path.write_bytes(b"".join(lines))
    with pytest.raises(AgentError) as caught:
        list(records(path))
    assert caught.value.code == code


def test_a_recording_that_was_cut_off_is_read_up_to_there(tmp_path):
    """Whoever recorded may have been killed in the middle of a line."""
    path = tmp_path / "x.rec"
    path.write_bytes(line_of({"r": "head", "v": VERSION}) + line_of({"r": "end"})[:-5])
    assert [r["r"] for r in records(path)] == ["head"]
