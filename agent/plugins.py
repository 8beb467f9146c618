"""Entry points: the one door through which sources, sinks and registries come in."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final

GROUPS: Final = ("edge_agent.sources", "edge_agent.sinks", "edge_agent.registries")


@dataclass(frozen=True, slots=True)
class Catalog:
    """Which config classes this installation knows, by group and ``type``.

    The class that validates a section is the class that builds its adapter. Classes are
    imported when asked for, so that a command pays only for what it uses.
    """

    names: dict[str, dict[str, Any]]

    def types(self, group: str) -> list[str]:
        """Known ``type`` words of a group, sorted."""
        return sorted(self.names[group])

    def config_class(self, group: str, kind: str) -> type[Any]:
        """The config class of ``type: kind``; KeyError when there is none."""
        loaded: type[Any] = self.names[group][kind].load()
        return loaded


@cache
def installed() -> Catalog:
    """The catalog of this installation: built-ins and third parties through the same door."""
    return Catalog({g: {e.name: e for e in entry_points(group=g)} for g in GROUPS})
