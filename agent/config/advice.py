"""What only the whole file shows and is no mistake, but probably not meant."""

from collections.abc import Iterator, Mapping

from agent.config.base import as_seconds
from agent.config.report import Problem
from agent.config.schema import Settings


def advice(settings: Settings, periods: Mapping[str, float]) -> list[Problem]:
    """W305 to W307; *periods*: stream -> seconds between two rows, where they are known."""
    found = [
        problem
        for name, device in settings.devices.items()
        if hasattr(device, "advice")
        for problem in device.advice(name)
    ]
    return [*found, *_windows(settings, periods)]


def _windows(settings: Settings, periods: Mapping[str, float]) -> Iterator[Problem]:
    """A window that is longer than what is stored: never a trial, never a back-test."""
    keep_s = settings.journal.keep_s
    for name, model in settings.models.items():
        for instance, bound in model.instances.items():
            device = bound.inputs[0].partition("/")[0]
            period_s = model.window.period_s or periods.get(device)
            if period_s is None or model.window.rows * period_s <= keep_s:
                continue
            span = as_seconds(model.window.rows * period_s)
            what = (
                f"model `{name}` looks back {span} on `{instance}`, but the journal keeps "
                f"{as_seconds(keep_s)}"
            )
            fix = "Raise `journal: keep`, or make the window shorter."
            yield Problem("W307", what, fix=fix, at=("models", name, "window", "rows"))
