"""SunSpec: what the agent reads of a self-describing device is what SunSpec's own client reads."""

import asyncio
import json
from dataclasses import replace
from math import isclose
from pathlib import Path

import numpy as np
import pytest
import sunspec2
from pydantic import ValidationError
from sunspec2.file.client import FileClientDevice
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

from agent.config.base import Context
from agent.config.journal import JournalConfig
from agent.config.load import ConfigProblems, loads
from agent.core.quality import Quality
from agent.core.stats import Stats
from agent.plugins import installed
from agent.runtime.clock import SystemClock
from agent.sources.sunspec import SunSpecConfig
from agent.storage.db import open_store
from simulators.modbus_server import ModbusServer, RegisterImage
from tests.integration.test_commissioning import agent
from tests.polling import polling
from tests.tools import until

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # pysunspec2's

LIMITS = JournalConfig.model_validate({})
DEVICE = Path(sunspec2.__file__).parent / "tests" / "test_data" / "device_1547.json"


def image(base=40000):
    """The registers of the test device that comes with pysunspec2."""
    device = FileClientDevice(str(DEVICE))
    device.scan()
    words = np.frombuffer(b"SunS" + device.get_mb() + b"\xff\xff\0\0", ">u2")
    made = RegisterImage(65536)
    made.holding[base : base + len(words)] = words
    return made


def theirs(port):
    """Every point that SunSpec's own client reads, under our names."""
    device = SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr="127.0.0.1", ipport=port, timeout=5)
    device.scan()
    found = {}

    def walk(group, name):
        for key, point in group.points.items():
            if key not in {"ID", "L", "Pad"} and point.value is not None:
                found[f"{name}.{key}"] = point.cvalue
        for key, inner in group.groups.items():
            if isinstance(inner, list):
                for i, one in enumerate(inner, 1):
                    walk(one, f"{name}.{key}.{i}")
            else:
                walk(inner, f"{name}.{key}")

    for number, models in device.models.items():
        if isinstance(number, int):
            for model in models:
                walk(model, model.gname)
    device.disconnect()
    return found


@pytest.fixture
def ctx(tmp_path):
    return Context(SystemClock(), Stats(), "g", "edge/g", tmp_path)


async def test_every_point_is_what_sunspecs_own_client_reads(ctx, tmp_path):
    """Scale factors, codes, texts, groups in groups: the whole device, through a real profile."""
    async with ModbusServer({1: image()}) as server:
        want = await asyncio.to_thread(theirs, server.port)
        file = tmp_path / "der.yaml"
        code, _, err = await agent("tags", "sunspec", server.url, "-o", file)
        assert code == 0, err
        text = (
            "version: 1\ngateway: {id: g}\ndevices:\n"
            f'  d: {{profile: "{file}", connect: "{server.url}", unit: 1, poll: 200ms}}\n'
        )
        device = loads(text, str(tmp_path / "c.yaml"), installed()).devices["d"]
        async with polling(device.build("d", ctx)) as rows:
            await until(lambda: rows.good() and rows.good("d~plate"), within_s=20)
        got = {}
        for stream in ("d", "d~plate"):
            row = rows.good(stream)[0]
            for tag, v in zip(row.tags, row.v[0], strict=True):
                text_of = ctx.texts.text(tag.name, v) if tag.kind == "text" else None
                got[tag.name.removeprefix("d/")] = text_of if tag.kind == "text" else float(v)
    assert len(want) > 250
    assert got.keys() == want.keys()
    wrong = {n: (got[n], w) for n, w in want.items() if not same(got[n], w)}
    assert wrong == {}


def sunspec(url, **more):
    """A device that tells its tags itself."""
    raw = {"type": "sunspec", "connect": url, "unit": 1, "poll": "200ms"}
    return SunSpecConfig.model_validate(raw | more)


def values(rows, ctx):
    """The newest value of every tag, under the names of `theirs`."""
    found = {}
    for batch in rows:
        for tag, v, q in zip(batch.tags, batch.v[-1], batch.q[-1], strict=True):
            if q >= 64:
                of_text = ctx.texts.text(tag.name, v) if tag.kind == "text" else None
                found[tag.name.removeprefix("d/")] = of_text if tag.kind == "text" else float(v)
    return found


async def test_a_device_tells_its_tags_itself(ctx):
    """`type: sunspec`: no tag in the file; every point is what SunSpec's own client reads, with
    the units of the models.
    """
    async with ModbusServer({1: image()}) as server:
        want = await asyncio.to_thread(theirs, server.port)
        async with polling(sunspec(server.url).build("d", ctx)) as rows:
            await until(lambda: rows.good("d") and rows.good("d~plate"), within_s=20)
        got = values(rows, ctx)
        units = {t.name: t.unit for b in rows for t in b.tags}
    assert got.keys() == want.keys()
    assert {n: (got[n], w) for n, w in want.items() if not same(got[n], w)} == {}
    assert (units["d/DERMeasureAC.W"], units["d/DERMeasureAC.Hz"]) == ("W", "Hz")


async def test_points_that_the_file_lists_are_columns_that_it_knows(ctx):
    """`tags:` makes the columns known beforehand, in the order of the file, whatever the device
    has; what it lacks is Bad, the powers of ten stay inside.
    """
    listed = ["DERMeasureAC.Hz", "DERMeasureAC.W", "mppt.module.2.DCA", "DERMeasureAC.ThrotPct"]
    config = sunspec(url := "tcp://127.0.0.1:1", models=[701, 160], tags=listed)
    (known,) = config.tag_sets("d").values()
    assert [t.name for t in known] == [f"d/{t}" for t in listed]
    assert [t.unit for t in known] == ["Hz", "W", "A", "%"]
    assert config.periods("d") == {"d": 0.2}
    async with ModbusServer({1: image()}) as server:
        want = await asyncio.to_thread(theirs, server.port)
        config = sunspec(server.url, models=[701, 160], tags=listed)
        async with polling(config.build("d", ctx)) as rows:
            await until(lambda: len(rows) >= 2, within_s=20)
    assert {b.stream for b in rows} == {"d"}
    assert all(list(b.tags.column) == list(known.column) for b in rows)
    assert rows.last().q[0].tolist()[2] == Quality.BAD_CONFIG
    got = values(rows, ctx)
    assert "DERMeasureAC.W" in got
    assert {n: (got[n], want[n]) for n in got if not same(got[n], want[n])} == {}
    with pytest.raises(ValidationError, match="no model of 701 has a point"):
        sunspec(url, models=[701], tags=["DERMeasureAC.Watt"])


def test_alarms_and_models_name_listed_points():
    """What is listed can be named; what is not is refused with the cure."""
    text = """
version: 1
gateway: {id: g1}
devices:
  inv: {type: sunspec, connect: "tcp://10.0.0.5:502", unit: 1, models: [701], tags: [%s]}
alarms:
  slow: {tag: inv/DERMeasureAC.Hz, low: 49.5}
models:
  m: {file: m.onnx, window: {kind: count, rows: 5}, instances: {a: {inputs: [inv/DERMeasureAC.W]}}}
sinks: {}
"""
    loads(text % "DERMeasureAC.Hz, DERMeasureAC.W", "f", installed())
    with pytest.raises(ConfigProblems) as told:
        loads(text % "DERMeasureAC.A", "f", installed())
    assert told.value.render().count("List the ones that are named under its `tags:`") == 2


async def test_what_a_device_told_is_kept_and_looked_at_again(ctx, tmp_path):
    """After a restart it is known before the device answers; a device with other models in its
    place is read by its own, from the next connection on.
    """
    async with open_store(tmp_path, LIMITS, ctx.clock, ctx.stats, "m") as store:
        ctx = replace(ctx, state=store.state)
        server = ModbusServer({1: image()})
        async with server:
            config = sunspec(server.url, models=[701])
            async with polling(config.build("d", ctx)) as rows:
                await until(lambda: rows.good("d") and rows.good("d~plate"), within_s=20)
        told = rows.good("d")[0].v.tobytes()
        assert {t.name.split(".")[0] for b in rows for t in b.tags} == {
            "d/DERMeasureAC", "d/common"
        }  # fmt: skip
        async with polling(config.build("d", ctx)) as rows:  # nobody answers, the tags are known
            await until(lambda: rows.last_q("d") == Quality.BAD_NOT_CONNECTED, within_s=20)
            server.units = {1: image(50000)}
            async with server:
                await until(lambda: rows.good("d"), within_s=20)
            assert {b.v.tobytes() for b in rows.good("d")} == {told}
    kept = store.state.items("sunspec")
    assert [k["chain"][0][:2] for k in kept.values()] == [[1, 50002]]


def same(ours, other):
    """Texts without spaces at the end, numbers to the last digits that a float has."""
    if isinstance(other, str):
        return ours == other.rstrip("\0 ")
    return isclose(ours, other, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("base", [50000, 0])
async def test_the_marker_is_found_at_its_other_addresses(base):
    """40000 is usual, not certain."""
    async with ModbusServer({1: image(base)}) as server:
        code, out, err = await agent("tags", "sunspec", server.url)
    assert code == 0, err
    assert f"model 1 at wire {base + 2}: common" in err
    assert "DERMeasureAC.W" in out


async def test_all_points_or_those_with_a_value(tmp_path):
    """A sleeping inverter gives sentinels: --all keeps them."""
    few, many = tmp_path / "few.yaml", tmp_path / "many.yaml"
    async with ModbusServer({1: image()}) as server:
        assert (await agent("tags", "sunspec", server.url, "-o", few))[0] == 0
        assert (await agent("tags", "sunspec", server.url, "--all", "-o", many))[0] == 0
    assert len(few.read_text()) < len(many.read_text())


async def test_another_device_is_told_apart():
    """No marker: what was looked at, and what to check."""
    async with ModbusServer({1: RegisterImage()}) as server:
        code, _, err = await agent("tags", "sunspec", server.url)
    assert code == 69
    assert "error[E321]" in err
    assert "0: no marker" in err


def test_the_test_device_is_theirs():
    """The device that this is held against has the models of IEEE 1547."""
    models = json.loads(DEVICE.read_text())["models"]
    assert [m["ID"] for m in models][:3] == [1, 701, 702]
