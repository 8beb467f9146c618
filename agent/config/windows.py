"""The window of a file as the core knows it."""

from agent.config.models import WindowSection
from agent.core.window import CountWindow, GridWindow, Window


def window(section: WindowSection) -> Window:
    """What is cut."""
    if section.kind == "count":
        reset = section.reset_after_s
        return CountWindow(section.rows, None if reset is None else _ns(reset))
    period_s, max_age_s = section.period_s or 0.0, section.max_age_s or 0.0  # a grid has both
    return GridWindow(
        section.rows, _ns(period_s), _ns(section.stride_s or period_s), _ns(max_age_s)
    )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
