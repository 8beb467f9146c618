"""The one log."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from agent import logs


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {n: logging.getLogger(n).level for n in logs._LIBRARIES}
    yield
    root.handlers = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events_are_json_with_their_facts_as_keys() -> None:
    """Off a terminal every event is one JSON object a line: time, level, event, facts."""
    stream = io.StringIO()
    logs.configure(stream)
    structlog.get_logger().warning("unit.restarted", unit="source/press1", after_s=0.5)
    (line,) = lines(stream)
    assert list(line)[:3] == ["time", "level", "event"]
    assert (line["level"], line["event"], line["after_s"]) == ("warning", "unit.restarted", 0.5)


def test_what_is_no_number_is_null() -> None:
    """Every line is JSON for every reader; NaN is a word that most of them refuse."""
    stream = io.StringIO()
    logs.configure(stream)
    structlog.get_logger().warning("alarm.raised", value=float("nan"), limit=float("inf"), tag=1.5)
    (line,) = lines(stream)
    assert (line["value"], line["limit"], line["tag"]) == (None, None, 1.5)


def test_an_exception_is_text_without_local_variables() -> None:
    """A traceback is one field and shows no values: a log must not hold secrets."""
    stream = io.StringIO()
    logs.configure(stream)
    secret = "hunter2" * 2
    try:
        {}[len(secret)]
    except KeyError:
        structlog.get_logger().exception("control.defect")
    (line,) = lines(stream)
    assert "KeyError: 14" in str(line["exception"])
    assert secret not in stream.getvalue()


def test_libraries_speak_through_the_same_formatter_from_warning_on() -> None:
    """Libraries that use `logging` give the same JSON; their chatter stays out."""
    stream = io.StringIO()
    logs.configure(stream)
    for name in ("somebody", "apscheduler.scheduler", "httpx", "pymodbus.logging"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("trouble in %s", name)
    assert [line["event"] for line in lines(stream)] == [
        "trouble in somebody",
        "trouble in apscheduler.scheduler",
        "trouble in httpx",
    ]
    assert lines(stream)[0]["logger"] == "somebody"


def test_under_systemd_each_line_begins_with_its_priority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The journal knows errors from news: `<3>` before an error, `<6>` before news."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    logs.configure()
    structlog.get_logger().error("a.b")
    structlog.get_logger().info("c.d")
    first, second = stream.getvalue().splitlines()
    assert first.startswith("<3>{")
    assert second.startswith("<6>{")


def test_on_a_terminal_an_event_is_one_readable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person reads time, level, event and facts in one line; NO_COLOR is obeyed."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    logs.configure(stream)
    structlog.get_logger().info("device.connected", device="press1", note="two words")
    assert stream.getvalue().endswith("info     device.connected  device=press1 note='two words'\n")


def test_configuring_again_replaces_and_does_not_double() -> None:
    """A second `configure` moves the log; nothing is written twice."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure(first)
    logs.configure(second)
    structlog.get_logger().info("a.b")
    logging.getLogger("somebody").warning("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 2
