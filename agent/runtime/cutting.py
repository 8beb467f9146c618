"""Windows cut as rows arrive: every one once, whoever scores it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from agent.core.batch import Batch
from agent.core.history import History
from agent.core.quality import Quality
from agent.core.window import (
    CountWindow,
    Cut,
    GridWindow,
    due,
    last_rows,
    sample_and_hold,
    stood,
)
from agent.runtime.lane import Lane

CATCH_UP: Final = 16
"""Grid windows that are cut at once when rows come late; older ones are skipped and counted."""


class Cutting:
    """Cuts the windows of all lanes.

    Args:
        history: The ring of a stream; None when it has none.
        take: Is given every window, marked where its machine stood.
        skipped: Is told of windows that are never cut.
    """

    def __init__(
        self,
        history: Callable[[str], History | None],
        take: Callable[[Lane, Cut], None],
        skipped: Callable[[Lane, int], None],
    ) -> None:
        self._history, self._take, self._skipped = history, take, skipped
        self._by_stream: dict[str, list[Lane]] = {}

    def feed(self, lanes: Iterable[Lane]) -> None:
        """These lanes, and no others, are fed from now on."""
        self._by_stream = {}
        for lane in lanes:
            for stream in dict.fromkeys(stream for stream, _ in lane.plan.parts):
                self._by_stream.setdefault(stream, []).append(lane)

    def arrived(self, batch: Batch, history: History) -> Sequence[Lane]:
        """Cut the windows that new rows complete; the lanes that they may have been cut for."""
        lanes = self._by_stream.get(batch.stream, ())
        for lane in lanes:
            window = lane.plan.window
            if isinstance(window, CountWindow):
                rows = min(len(batch), history.capacity - window.rows + 1)
                self._skipped(lane, len(batch) - rows)
                for back in range(rows - 1, -1, -1):
                    self._give(lane, last_rows(history, lane.columns[0], window, back))
            else:
                self._grid(lane, window)
        return lanes

    def _grid(self, lane: Lane, window: GridWindow) -> None:
        """Cut every grid window that is due: all its streams are there, or too late to wait for."""
        found = [self._history(stream) for stream, _ in lane.plan.parts]
        histories = [h for h in found if h is not None and len(h)]
        if len(histories) < len(found):
            return
        due_ns = due(histories, window)
        first = due_ns // window.stride_ns * window.stride_ns
        end_ns = first
        if lane.next_end_ns:
            end_ns = max(lane.next_end_ns, first - CATCH_UP * window.stride_ns)
            self._skipped(lane, (end_ns - lane.next_end_ns) // window.stride_ns)
        while end_ns <= due_ns:
            parts = list(zip(histories, lane.columns, strict=True))
            self._give(lane, sample_and_hold(parts, window, end_ns))
            end_ns += window.stride_ns
        lane.next_end_ns = end_ns

    def _give(self, lane: Lane, cut: Cut | None) -> None:
        if cut is not None:
            self._take(lane, self._gated(lane, cut))

    def _gated(self, lane: Lane, cut: Cut) -> Cut:
        """A window that holds a moment outside `when:` is not scored; its result says why."""
        if lane.plan.when is None:
            return cut
        stream, column = lane.plan.when
        states = self._history(stream)
        if states is None or not stood(states, column, cut):
            return cut
        return replace(cut, quality=int(Quality.NOT_APPLICABLE))
