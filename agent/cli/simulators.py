"""The simulators, which come with the source and not with the package."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import agent
from agent.core.errors import AgentError


def simulator(name: str) -> ModuleType:
    """The module ``simulators.NAME``; E778 where there is none."""
    sys.path.insert(0, str(Path(agent.__file__).parents[1]))  # the checkout, if this is one
    try:
        return importlib.import_module(f"simulators.{name}")
    except ModuleNotFoundError as e:
        if e.name not in ("simulators", f"simulators.{name}"):
            raise
        raise AgentError(
            "the simulators are not installed: they come with the source, not with the package",
            fix="Run it in a checkout of the source.",
            code="E778",
        ) from e
