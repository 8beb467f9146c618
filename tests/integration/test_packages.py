"""`edge-agent models pack | verify | sign | keygen` beyond the way of the book."""

import json
import logging

import numpy as np
import pytest
import structlog
import yaml

from agent.cli.main import main
from simulators import models

SPEC = {
    "name": "m",
    "version": "1",
    "release": 1,
    "channels": [{"name": "a"}, {"name": "b"}],
    "window": {"kind": "count", "rows": 5},
}

SIDES = [
    {"tensor": "window", "channels": ["a", "b"]},
    {"tensor": "static", "features": [{"take": "last", "of": ["b", "a"]}]},
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model of the mean and healthy rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(models.tiny())
    rows = np.random.default_rng(1).normal([1.0, 5.0], 1.0, (200, 2))
    lines = [f"{i},{a},{b}" for i, (a, b) in enumerate(rows)]
    (tmp_path / "rows.csv").write_text("time,a,b\n" + "\n".join(lines))
    handlers = logging.getLogger().handlers
    yield tmp_path
    structlog.reset_defaults()  # the commands have sent the log to a stderr that ends here
    logging.getLogger().handlers = handlers
    logging.captureWarnings(capture=False)


def pack(here, **changes):
    (here / "spec.yaml").write_text(yaml.safe_dump(SPEC | changes))
    return main(["models", "pack", "m.onnx", "spec.yaml", "rows.csv", "--json"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": {"kind": "grid", "rows": 4, "period": "1s", "stride": "3s", "max_age": "2s"}},
        {"window": {"kind": "count", "rows": 3, "reset_after": "2500ms"}},
        {"normalisation": "fit", "features": [{"take": "rms", "of": ["b"]}, {"take": "last"}]},
        {"decision": {"output": "score", "above": 3.2, "of": [2, 3]}},
        {"inputs": SIDES, "normalisation": "fit"},
    ],
    ids=["count", "grid", "reset", "features", "decision", "inputs"],
)
def test_every_kind_of_package_proves_itself(here, changes, capsys):
    """What is packed is verified from its own files, in another process of the worker."""
    if "inputs" in changes:
        (here / "m.onnx").write_bytes(models.two_sided())
    assert pack(here, **changes) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["golden"] >= 2
    assert main(["models", "verify", made["package"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["proven_windows"] >= 10


def test_a_changed_file_is_not_verified(here, capsys):
    """One flipped bit of a weight loads and runs: only the hash tells."""
    assert pack(here) == 0
    file = here / "m-1.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\x12")
    assert main(["models", "verify", "m-1.manifest"]) == 69
    assert "E685" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"window": {"kind": "count", "rows": 500}}, "E691"),
        ({"channels": [{"name": "a"}, {"name": "c"}]}, "E691"),
        ({"features": [{"take": "mood"}]}, "E682"),
        ({"window": {"kind": "count", "rows": 5, "reset_after": 3}}, "E682"),
        ({"decision": {"output": "verdict", "above": 1}}, "E651"),
        ({"release": 0}, "E682"),
        ({"inputs": SIDES}, "E641"),
        ({"inputs": [{"tensor": "window", "channels": ["a", "z"]}]}, "E682"),
        ({"inputs": [{"tensor": "window"}]}, "E682"),
        ({"inputs": SIDES, "features": [{"take": "last"}]}, "E682"),
    ],
)
def test_what_makes_no_package_says_why(here, changes, code, capsys):
    """Nothing is written then."""
    assert pack(here, **changes) == 69
    assert code in capsys.readouterr().err
    assert not list(here.glob("*.manifest"))


def test_a_hostile_file_is_neither_packed_nor_run(here, capsys):
    """The publisher's machine is protected as the gateway is."""
    (here / "m.onnx").write_bytes(models.external_data())
    assert pack(here) == 69
    assert "E671" in capsys.readouterr().err


def test_a_model_that_alarms_on_healthy_rows_is_told(here, capsys):
    """The publisher sees it before the plant does."""
    assert pack(here, decision={"output": "score", "above": -100}) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["healthy_alarm_share"], "warning" in made) == (1.0, True)


def test_a_key_is_private_and_never_overwritten(here, capsys):
    """Whoever loses a key by a second keygen loses a fleet."""
    assert main(["models", "keygen", "k"]) == 0
    assert (here / "k").stat().st_mode & 0o777 == 0o600
    seed = (here / "k").read_text()
    assert main(["models", "keygen", "k"]) == 69
    assert (here / "k").read_text() == seed
    assert "E692" in capsys.readouterr().err
    assert main(["models", "sign", "rows.csv", "k"]) == 69  # the wrong way round


def test_a_package_is_fitted_to_a_machine(here, capsys):
    """What it declares is set from that machine's rows; the rest stays; the parent is named."""
    changes = {
        "normalisation": {"mean": [0.0, 0.0], "scale": [1.0, 1.0]},
        "decision": {"output": "score", "above": 2.0, "off": 1.5},
        "fit": ["normalisation", "limit"],
    }
    assert pack(here, **changes) == 0
    shared = json.loads(capsys.readouterr().out)
    assert shared["healthy_alarm_share"] == 1.0  # the mean of this machine is 3
    words = ["models", "fit", "m-1.manifest", "rows.csv", "--name", "m-pump2", "--json"]
    assert main(words) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["healthy_alarm_share"] < 0.01
    assert main(["models", "verify", made["package"]]) == 0
    capsys.readouterr()
    assert main(["models", "inspect", made["package"], "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["version"], facts["fit"]) == ("m-pump2", "1+1", changes["fit"])
    assert np.allclose(facts["normalisation"]["mean"], [1.0, 5.0], atol=0.3)
    assert facts["decision"]["above"] - facts["decision"]["off"] == pytest.approx(0.5)
    assert facts["provenance"]["parent"] == "m 1, release 1"


def test_what_declares_nothing_is_not_fitted(here, capsys):
    """The author decides what may be changed."""
    assert pack(here) == 0
    assert main(["models", "fit", "m-1.manifest", "rows.csv", "--name", "x"]) == 69
    assert "E693" in capsys.readouterr().err
