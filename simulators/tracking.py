"""Experiment tracking on an MLflow server by plain REST: no mlflow on the machine that trains."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

_API: Final = "/api/2.0/mlflow"
_MISSING: Final = 404
_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Tracking:
    """One experiment of the server at *base* (``http://host:port``)."""

    base: str
    experiment: str = "edge-agent retraining"

    def log(
        self,
        name: str,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> str:
        """One finished run; its id. Raises `httpx.HTTPError`."""
        with httpx.Client(base_url=self.base + _API, trust_env=False, timeout=_WITHIN_S) as client:
            begun = {
                "experiment_id": self._experiment(client),
                "run_name": name,
                "start_time": _ms(),
            }
            made = _post(client, "/runs/create", begun)
            run: str = made["run"]["info"]["run_id"]
            batch = {
                "run_id": run,
                "params": [{"key": k, "value": str(v)} for k, v in parameters.items()],
                "metrics": [
                    {"key": k, "value": v, "timestamp": _ms(), "step": 0}
                    for k, v in metrics.items()
                ],
                "tags": [{"key": k, "value": v} for k, v in tags.items()],
            }
            _post(client, "/runs/log-batch", batch)
            ended = {"run_id": run, "status": "FINISHED", "end_time": _ms()}
            _post(client, "/runs/update", ended)
        return run

    def _experiment(self, client: httpx.Client) -> str:
        found = client.get("/experiments/get-by-name", params={"experiment_name": self.experiment})
        if found.status_code == _MISSING:
            made: str = _post(client, "/experiments/create", {"name": self.experiment})[
                "experiment_id"
            ]
            return made
        found.raise_for_status()
        known: str = found.json()["experiment"]["experiment_id"]
        return known


def _post(client: httpx.Client, path: str, facts: Mapping[str, Any]) -> Any:
    answer = client.post(path, json=dict(facts))
    answer.raise_for_status()
    return answer.json()


def _ms() -> int:
    return time.time_ns() // 10**6
