"""The pump house of the demo, and the configuration of the agent that watches it."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from simulators.demo_loop import Loop
from simulators.plant import SENSORS, Plant, registers

ROOT: Final = "demo/pump-house"
PUMPS: Final = ("pump1", "pump2", "pump3")
FAULTY: Final = 1
MODEL: Final = "pump-health"
INPUTS: Final = tuple(name for name, *_ in SENSORS if name not in ("valve", "motor_temp"))
POLL_S: Final = 0.1
SPEED: Final = 50.0
"""Plant seconds in a second: a row is 5 s of the plant."""

BEGIN_S: Final = 5 * 3600.0
"""Plant time at the beginning: the sun moves little then."""


def warm_plant(run: int) -> Plant:
    """The demo's machines, running long enough to be warm."""
    plant = Plant(len(PUMPS), noise_seed=run, now_s=BEGIN_S)
    plant.advance(600.0)
    return plant


def training(seconds: float, run: int) -> list[NDArray[np.float64]]:
    """What healthy pumps measure: for each of them float64 (rows, columns of `INPUTS`)."""
    columns = [i for i, (name, *_) in enumerate(SENSORS) if name in INPUTS]
    plant = warm_plant(run)
    return list(plant.record(seconds, POLL_S * SPEED)[:, :, columns].transpose(1, 0, 2))


def config(
    data_dir: Path, modbus: str, mqtt: str, registry: str, page: str, loop: Loop | None
) -> str:
    """The configuration of the demo's agent; pump 1 has a model of its own in the second story."""
    served = PUMPS if loop is None else PUMPS[1:]
    tags = {
        name: {"reg": register, "as": "float32", "order": "ABCD", "unit": unit, "range": [lo, hi]}
        for name, register, unit, lo, hi in registers()
    }
    document: dict[str, Any] = {
        "version": 1,
        "gateway": {"id": ROOT.split("/")[1], "prefix": ROOT.split("/")[0]},
        "data_dir": str(data_dir),
        "profiles": {"pump": {"addressing": "zero_based", "tags": tags}},
        "devices": {
            pump: {
                "type": "modbus",
                "connect": modbus,
                "unit": unit,
                "profile": "pump",
                "poll": f"{POLL_S:g}s",
            }
            for unit, pump in enumerate(PUMPS, 1)
        },
        "models": {
            MODEL: {
                "registry": "main",
                "channel": "stable",
                "poll": "2s",
                "window": {"kind": "count", "rows": 5},
                "decide": {"output": "score", "above": 1.0, "off": 0.8},
                "instances": {p: {"inputs": [f"{p}/{i}" for i in INPUTS]} for p in served},
            }
        },
        "journal": {"commit": "1s"},
        "sinks": {"plant": {"type": "mqtt_json", "connect": mqtt, "report": "all"}},
        "registries": {"main": {"type": "http", "url": registry, "unsigned": "accept"}},
        "web": {"listen": page},
    }
    if loop is not None:
        document = loop.config(document)
    return json.dumps(document, indent=1)  # JSON is YAML
