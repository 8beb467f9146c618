"""The composition root: the only place that knows concrete types."""

from agent.app.daemon import serve

__all__ = ["serve"]
