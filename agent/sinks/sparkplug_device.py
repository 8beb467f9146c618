"""One device of an edge node: which streams it has, and what its birth said."""

from dataclasses import dataclass, field

from agent.codecs.sparkplug_encode import Slot
from agent.core.derive import SUFFIX
from agent.sinks.sparkplug_rows import Rows


def device_of(stream: str) -> str:
    """The device that the rows of a stream belong to: ``pump1~slow`` -> ``pump1``."""
    if stream.startswith("model/"):
        return f"model.{stream.removeprefix('model/').replace('~', '.')}"
    return stream.partition("~")[0]


@dataclass(slots=True)
class Device:
    """One device of the node.

    Attributes:
        tags: Metric name -> full name of the tag.
        born: A DBIRTH of this session stands, no DDEATH has followed.
    """

    slots: dict[str, Slot] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    born: bool = False

    @property
    def silent(self) -> bool:
        """No stream of it was reached for its last row."""
        measured = [r for stream, r in self.rows.items() if not stream.endswith(SUFFIX)]
        return bool(measured) and all(r.silent for r in measured)
