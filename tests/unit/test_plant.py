"""The plant and the replay: what the simulators promise to those who rely on them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from pymodbus.client import AsyncModbusTcpClient

from simulators.modbus_server import ModbusServer, RegisterImage
from simulators.plant import KINDS, SENSORS, Event, Kind, Plant, Timeline, registers
from simulators.replay import RecordingError, Replay, read_csv

COLUMN = {name: i for i, (name, _unit, _lo, _hi) in enumerate(SENSORS)}


def float32(image: RegisterImage, register: int) -> float:
    """What a Modbus master reads there, high word first."""
    return float(image.holding[register : register + 2].astype(">u2").view(">f4")[0])


def mean(*events: Event, seconds: float = 300.0) -> np.ndarray:
    """Mean of each quantity of pump 1 over the last minute."""
    return Plant(1, timeline=Timeline(events)).record(seconds)[-60:, 0].mean(axis=0)


def test_a_healthy_plant_stays_within_its_ranges() -> None:
    """Every value of a healthy hour lies in the range that the register list states."""
    hour = Plant(3).record(3600.0)
    for name, register, _unit, lo, hi in registers():
        values = hour[:, :, register // 2]
        assert values.min() >= lo, name
        assert values.max() <= hi, name


def test_the_same_seed_gives_the_same_plant() -> None:
    """A failure seen once can be seen again."""
    assert np.array_equal(Plant(2, seed=7).record(20.0), Plant(2, seed=7).record(20.0))
    assert not np.array_equal(Plant(2, seed=7).record(20.0), Plant(2, seed=8).record(20.0))


@pytest.mark.parametrize(
    ("kind", "name", "sign"),
    [
        ("bearing", "vibration", +1),
        ("bearing", "bearing_temp", +1),
        ("cavitation", "vibration", +1),
        ("cavitation", "flow", -1),
        ("leak", "flow", -1),
        ("leak", "pressure_out", -1),
        ("blocked_filter", "pressure_in", -1),
        ("blocked_filter", "flow", -1),
        ("sensor_drift", "flow", +1),
    ],
)
def test_each_fault_shows_where_it_would(kind: Kind, name: str, sign: int) -> None:
    """A fault moves the quantities that a technician would look at, in the right direction."""
    change = mean(Event(0.0, 0, kind)) - mean()
    span = Plant(1).record(600.0)[:, 0].std(axis=0)
    assert sign * change[COLUMN[name]] > 2 * span[COLUMN[name]]


def test_every_kind_of_fault_changes_something() -> None:
    """No kind on the list is without effect."""
    healthy = mean(seconds=90.0)
    for kind in KINDS:
        assert not np.allclose(mean(Event(0.0, 0, kind), seconds=90.0), healthy), kind


def test_a_stuck_sensor_holds_its_value_until_repaired() -> None:
    """Stuck means one value, from the beginning of the fault to its end."""
    plant = Plant(1, timeline=Timeline([Event(10.0, 0, "sensor_stuck", until_s=20.0)]))
    flow = plant.record(30.0)[:, 0, COLUMN["flow"]]
    assert len(set(flow[9:19])) == 1
    assert len(set(flow[19:])) == 11


def test_heat_follows_slowly() -> None:
    """A temperature has inertia: it needs minutes for what vibration shows at once."""
    plant = Plant(1, timeline=Timeline([Event(60.0, 0, "bearing")]))
    run = plant.record(660.0)[:, 0]
    rise = run[:, COLUMN["bearing_temp"]] - run[:60, COLUMN["bearing_temp"]].mean()
    assert rise[62] < 0.1 * rise[-60:].mean()
    assert run[62, COLUMN["vibration"]] > 2 * run[:60, COLUMN["vibration"]].mean()


def test_a_fault_grows_over_its_ramp() -> None:
    """Severity goes linearly from 0 to its end over the ramp, on its own pump only."""
    line = Timeline([Event(100.0, 1, "leak", severity=0.8, ramp_s=50.0)])
    assert line.levels("leak", 2, 99.0).tolist() == [0.0, 0.0]
    assert line.levels("leak", 2, 125.0).tolist() == [0.0, pytest.approx(0.4)]
    assert line.levels("leak", 2, 500.0).tolist() == [0.0, 0.8]


def test_registers_hold_the_values() -> None:
    """What `values` says stands in holding and input registers as float32 of each unit."""
    plant = Plant(2)
    plant.advance(3.0)
    for unit, image in plant.images.items():
        for name, register, _unit, _lo, _hi in registers():
            shown = plant.values[unit - 1, COLUMN[name]]
            assert float32(image, register) == pytest.approx(shown, rel=1e-6)
        assert np.array_equal(image.holding, image.input)
        assert image.coils[0]


async def test_a_modbus_master_reads_the_plant() -> None:
    """The register list is true on the wire: what a master decodes is what the plant measures."""
    plant = Plant(2)
    async with (
        ModbusServer(plant.images) as server,
        AsyncModbusTcpClient("127.0.0.1", port=server.port) as client,
    ):
        answer = await client.read_holding_registers(0, count=2 * len(SENSORS), device_id=2)
        words = np.array(answer.registers, ">u2")
    assert words.view(">f4") == pytest.approx(plant.values[1], rel=1e-6)


def test_an_unknown_fault_is_refused() -> None:
    """A typing error in a timeline is no healthy plant."""
    with pytest.raises(ValueError, match="no such fault"):
        Event(0.0, 0, "bearings")  # type: ignore[arg-type]


ROWS = "datetime;a;b;anomaly\n" + "".join(f"2020-01-01 00:00:0{i};{i}.5;{-i};1\n" for i in range(4))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "0.csv"
    path.write_text(ROWS)
    return path


def test_lock_step_shows_each_row_until_it_was_read(recording: Path) -> None:
    """The next row appears only after the whole block was read; the last one stays."""
    replay = Replay(read_csv(recording), first=1)
    replay.arm()
    read, image = replay.image.on_read, replay.image
    assert read is not None
    for row in (1, 2, 3):
        read(3, 0, 2)  # a part of the block only
        assert int(image.holding[1]) == row
        assert float32(image, 2) == row + 0.5
        assert float32(image, 4) == -row
        assert not replay.finished
        read(3, 0, replay.size)
    assert replay.finished
    assert int(image.holding[1]) == 3


def test_a_bound_holds_the_replay(recording: Path) -> None:
    """Rows beyond the bound are not shown, however often the block is read."""
    replay = Replay(read_csv(recording))
    replay.arm()
    replay.bound = 2
    assert replay.image.on_read is not None
    for _ in range(9):
        replay.image.on_read(3, 0, replay.size)
    assert replay.row == 2
    assert not replay.finished


async def test_a_replay_by_the_clock_ends(recording: Path) -> None:
    """Played at a rate, every row comes, and the last one ends it."""
    replay = Replay(read_csv(recording))
    await replay.run(rows_per_s=1000.0)
    assert replay.row == 3
    assert replay.finished


@pytest.mark.parametrize("separator", [";", ",", "\t"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    """Any usual separator is understood, packed or not, and labels are no measurement."""
    path = tmp_path / "0.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(ROWS.replace(";", separator))
    read = read_csv(path)
    assert read.columns == ("a", "b")
    assert read.labelled
    assert read.values.tolist() == [[i + 0.5, -i] for i in range(4)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        ("datetime;a\n", "no rows"),
        ("datetime;anomaly\n2020;1\n", "no measured column"),
        ("datetime;a\n2020;1\n2020;x\n", "0.csv:3"),
        ("datetime;a;b\n2020;1\n", "0.csv:2"),
    ],
)
def test_an_unreadable_recording_says_where(tmp_path: Path, text: str, says: str) -> None:
    """The message names the file, and the line where there is one."""
    path = tmp_path / "0.csv"
    path.write_text(text)
    with pytest.raises(RecordingError, match=says):
        read_csv(path)


def test_a_broken_archive_is_a_clear_error(tmp_path: Path) -> None:
    """A damaged .gz is refused like any other unreadable file."""
    path = tmp_path / "0.csv.gz"
    path.write_bytes(gzip.compress(ROWS.encode())[:-12])
    with pytest.raises(RecordingError, match="cannot be read"):
        read_csv(path)
