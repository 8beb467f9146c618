"""Every statement of Sparkplug 3.0 on an edge node, judged by what passed in real sessions."""

import asyncio

import pytest

from tests.sparkplug import book
from tests.sparkplug.hearing import Heard
from tests.sparkplug.sessions import record
from tests.sparkplug.statements import STATEMENTS

pytestmark = pytest.mark.needs("mosquitto")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """One life of the agent, with everything that passed between it, a broker and a host."""
    return asyncio.run(record(tmp_path_factory.mktemp("sparkplug")))


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement(recording, name):
    """What the specification asks of an edge node is what it did."""
    STATEMENTS[name].check.judge(Heard(recording))


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_breach_is_seen(recording, name):
    """No check passes whatever happens: a recording that is spoiled on purpose fails it."""
    check = STATEMENTS[name].check
    with pytest.raises(AssertionError):
        check.judge(Heard(check.spoil(recording)))


def test_there_are_as_many_as_the_specification_has():
    """226 statements concern an edge node."""
    assert len(STATEMENTS) == 226


def test_the_table_says_what_the_run_says(recording):
    """docs/sparkplug.md has each statement with the verdict of this run."""
    assert book.stale(book.verdicts(recording)) == []
