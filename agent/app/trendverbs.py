"""The verb about the past of one tag."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from agent.core.errors import PermanentError
from agent.core.requests import Caller, Verb

if TYPE_CHECKING:
    from agent.app.daemon import Daemon

Args = Mapping[str, Any]

DAY_NS: Final = 86_400 * 10**9
POINTS: Final = 500


class TrendVerbs:
    """Asks the historian, on its own thread: the loop does not wait for a disk."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    def table(self) -> dict[str, Verb]:
        """The verbs by name."""
        return {"trend": Verb(self.trend)}

    async def trend(self, args: Args, _caller: Caller) -> dict[str, Any]:
        """``args["tag"]`` from ``from_ns`` (a day ago) to ``to_ns`` (now) by ``points`` spans:
        times, samples, min, max and mean as lists. Spans without a usable sample are left out.
        """
        end_ns = _whole(args, "to_ns", self._daemon.clock.wall_ns())
        begin_ns = _whole(args, "from_ns", end_ns - DAY_NS)
        points = _whole(args, "points", POINTS)
        tag = f"{args.get('tag')!s:.200}"
        trend = await self._daemon.historian.trend(tag, begin_ns, end_ns, points)
        return {"tag": tag, "from_ns": begin_ns, "to_ns": end_ns} | trend.facts()


def _whole(args: Args, name: str, otherwise: int) -> int:
    value = args.get(name, otherwise)
    if type(value) is not int:
        raise PermanentError(f"{name} is {value!r:.40}", fix="Give a whole number.", code="E780")
    return value
