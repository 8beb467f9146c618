"""The SKAB run: real rows through the real agent give what the model gives by itself."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from simulators import skab
from simulators.models import t2q_model
from simulators.replay import read_csv

pytestmark = pytest.mark.needs("mosquitto")

COLUMNS = 4


def write_csv(path: Path, rows: int, seed: int) -> np.ndarray:
    """A labelled recording in SKAB's form; its measurements."""
    rng = np.random.default_rng(seed)
    values = rng.normal(10.0, 1.0, (rows, COLUMNS))
    values[420:] += 4.0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["datetime", *"abcd", "anomaly", "changepoint"])
        for i, row in enumerate(values):
            time = f"2020-03-09 {10 + i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}"
            table.writerow([time, *row, float(i >= 420), 0.0])
    return values


def offline(model: Path, recording: Path) -> dict[int, float]:
    """Row -> score, the windows cut here and run at once."""
    values = read_csv(recording).values
    ends = range(skab.FIRST + skab.WINDOW - 1, len(values))
    x = np.stack([values[e - skab.WINDOW + 1 : e + 1] for e in ends])
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return dict(zip(ends, session.run(["score"], {name: x})[0].reshape(-1), strict=True))


def predictions(path: Path) -> dict[str, dict[int, tuple[float, int]]]:
    """File -> row -> score and flag."""
    found: dict[str, dict[int, tuple[float, int]]] = {}
    with path.open() as file:
        for line in csv.DictReader(file):
            row = found.setdefault(line["file"], {})
            row[int(line["row"])] = float(line["score"]), int(line["flag"])
    return found


def test_every_row_is_scored_as_by_the_model_alone(tmp_path: Path) -> None:
    """Through Modbus, ring, worker, journal and broker no score changes, and none is missing."""
    data, models = tmp_path / "data", tmp_path / "models"
    models.mkdir()
    for key, rows in (("valve1/0", 520), ("valve1/1", 470), ("b/other/7", 430)):
        path = data / f"{key}.csv"
        train = write_csv(path, rows, seed=rows)[: skab.FIRST]
        (models / f"{key.replace('/', '_')}.onnx").write_bytes(t2q_model(train))
    out = tmp_path / "pred.csv"
    args = ["--data", str(data), "--models", str(models), "--out", str(out)]
    assert skab.main(args) == skab.EXIT_OK
    scored = predictions(out)
    assert sorted(scored) == ["b/other/7", "valve1/0", "valve1/1"]
    for key, rows in scored.items():
        truth = offline(models / f"{key.replace('/', '_')}.onnx", data / f"{key}.csv")
        assert rows.keys() == truth.keys()
        assert np.allclose([s for s, _ in rows.values()], list(truth.values()), rtol=1e-6)
        assert [f for _, f in rows.values()] == [int(s > 1.0) for s in truth.values()]
        assert {f for _, f in rows.values()} == {0, 1}


def test_what_cannot_be_scored_is_named_and_the_rest_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing model, an empty file, a broken one and one of the wrong width harm no other."""
    data, models = tmp_path / "data", tmp_path / "models"
    models.mkdir()
    train = write_csv(data / "good.csv", 430, seed=1)[: skab.FIRST]
    (models / "good.onnx").write_bytes(t2q_model(train))
    write_csv(data / "orphan.csv", 430, seed=2)
    write_csv(data / "short.csv", 402, seed=3)
    (data / "empty.csv").write_text("")
    (data / "broken.csv").write_text("datetime;a;anomaly\n2020;x;0\n")
    write_csv(data / "wide.csv", 430, seed=4)
    (models / "wide.onnx").write_bytes(t2q_model(train[:, :3]))
    for name in ("short", "empty", "broken"):
        (models / f"{name}.onnx").write_bytes(t2q_model(train))
    out = tmp_path / "pred.csv"
    args = ["--data", str(data), "--models", str(models), "--out", str(out), "--jobs", "1"]
    assert skab.main(args) == skab.EXIT_PROBLEMS
    said = capsys.readouterr().err
    for name in ("orphan", "short", "empty", "broken", "wide"):
        assert name in said
    assert {k: len(v) for k, v in predictions(out).items()} == {"good": 430 - 404}


def test_a_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    """A path that does not exist is told at once."""
    args = ["--data", str(tmp_path / "no"), "--models", str(tmp_path), "--out", "x.csv"]
    assert skab.main(args) == skab.EXIT_USAGE


@pytest.mark.data
def test_real_rows_give_the_reference_confusion(tmp_path: Path, real_data: Path) -> None:
    """One real file gives exactly the reference's true and false alarms."""
    (tmp_path / "valve2").mkdir()
    shutil.copy(real_data / "data/skab/valve2/0.csv.gz", tmp_path / "valve2")
    out = tmp_path / "pred.csv"
    models = real_data / "models" / "skab_t2q"
    assert skab.main(["--data", str(tmp_path), "--models", str(models), "--out", str(out)]) == 0
    reference = json.loads((real_data / "data/reference/t2q_confusion.json").read_text())
    checked = subprocess.run(
        [
            sys.executable,
            str(real_data / "data" / "eval_skab.py"),
            *("--labels", str(tmp_path), "--pred", str(out), "--json", str(tmp_path / "got.json")),
        ],
        check=True,
        capture_output=True,
    )
    assert b'"files": 1' in checked.stdout
    got = json.loads((tmp_path / "got.json").read_text())["per_file"]
    assert got["valve2/0"] == list(reference["valve2/0"])
