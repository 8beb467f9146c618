"""One log: JSON for the journal, one readable line on a terminal; nobody else formats anything."""

import logging
import os
import sys
from collections import deque
from collections.abc import MutableMapping
from math import isfinite
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_PRIORITY: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_LIBRARIES: Final = {
    "": logging.WARNING,
    "apscheduler": logging.WARNING,
    "asyncio": logging.WARNING,
    "httpx": logging.WARNING,
    "pymodbus": logging.CRITICAL,
    "pymodbus.logging": logging.CRITICAL,
}
_COLOURS: Final = {"critical": "31", "error": "31", "warning": "33", "info": "32", "debug": "2"}


RECENT: Final = 1000

recent: Final[deque[dict[str, Any]]] = deque(maxlen=RECENT)
"""The last events of this process, oldest first: for the page, where nobody has a journal."""


def configure(stream: TextIO | None = None, *, level: int = logging.INFO) -> None:
    """Send every event of this process to *stream* (default stderr); may be called again.

    JSON lines unless *stream* is a terminal. Under systemd (JOURNAL_STREAM is set) each line
    begins with its priority as ``<N>``, so that ``journalctl -p warning`` works. Libraries that
    use ``logging`` come out of the same formatter, from WARNING on.
    """
    out = stream if stream is not None else sys.stderr
    terminal = out.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(
            fmt="%H:%M:%S.%f" if terminal else "iso", utc=not terminal, key="time"
        ),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _remember,
    ]
    structlog.configure(
        processors=[*shared, _render(out, terminal)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _route_libraries(out, shared, _render(out, terminal))


def set_level(level: str) -> None:
    """From now on events below *level* (``debug`` to ``error``) are not told any more."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))


def _remember(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    recent.append({key: _in_json(value) for key, value in event.items() if key[:1] != "_"})
    return event


def _render(out: TextIO, terminal: bool) -> Processor:
    if terminal:
        return _one_line("NO_COLOR" not in os.environ)
    return _json_line("JOURNAL_STREAM" in os.environ and out in (sys.stderr, sys.stdout))


def _route_libraries(out: TextIO, shared: list[Processor], render: Processor) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.getLogger().handlers = [handler]
    for name, level in _LIBRARIES.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)


def _json_line(priority: bool) -> Processor:
    dump = structlog.processors.JSONRenderer(sort_keys=False, default=str)

    def render(logger: WrappedLogger, name: str, event: EventDict) -> str:
        level = str(event.get("level", "info"))
        ordered = {k: event.pop(k) for k in ("time", "level", "event") if k in event} | dict(event)
        line = dump(logger, name, {k: _in_json(v) for k, v in ordered.items()})
        prefix = f"<{_PRIORITY.get(level, 6)}>" if priority else ""
        return prefix + (line if isinstance(line, str) else line.decode())

    return render


def _in_json(fact: object) -> object:
    """JSON has no word for what is no number: an alarm on a Bad tag has no value."""
    return None if isinstance(fact, float) and not isfinite(fact) else fact


def _one_line(colours: bool) -> Processor:
    def render(_logger: WrappedLogger, _name: str, event: MutableMapping[str, Any]) -> str:
        level = str(event.pop("level", "info"))
        trace = event.pop("exception", "")
        time = str(event.pop("time", ""))[:12]
        head = f"{level:<8}"
        if colours:
            head = f"\x1b[{_COLOURS.get(level, '0')}m{head}\x1b[0m"
        text = str(event.pop("event", ""))
        facts = " ".join(f"{key}={_fact(value)}" for key, value in event.items())
        line = f"{time} {head} {text}" + (f"  {facts}" if facts else "")
        return f"{line}\n{trace}" if trace else line

    return render


def _fact(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return repr(text) if not text or any(c.isspace() for c in text) else text
