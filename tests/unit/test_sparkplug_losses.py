"""The edge node tells what will never come, and how the books stand."""

import pytest

from tests import sparkplug_proto as proto
from tests.unit.test_sparkplug_node import Desk, kinds, values

GAP = {
    "stream": "pump~slow", "lineage": "9f3a12c4", "epoch": 2**40 + 7, "from": 12001, "to": 12600,
    "reason": "size", "t0": "2026-11-23T10:00:00Z", "t1": "2026-11-23T10:09:59Z",
}  # fmt: skip
BOOKS = {"pump": {"produced": 9, "delivered": 6, "buffered": 1, "dropped": {"age": 1, "size": 1}}}


def told(desk, topic, facts):
    return desk.read(desk.node.losses(topic, facts))


def test_a_gap_is_one_metric_with_all_that_belongs_to_it():
    """Its value is the reason; in the birth before the first one it is null."""
    desk = Desk()
    birth = desk.born(pump=desk.batch())[0][-1].metrics[-1]
    assert (birth.name, birth.datatype, proto.value(birth)) == ("Gap", 12, None)
    ((kind, said),) = told(desk, "_gap", GAP)
    (metric,) = said.metrics
    assert (kind, metric.alias, proto.value(metric)) == ("NDATA", birth.alias, "size")
    assert not metric.is_historical
    assert proto.properties(metric) == GAP | {"device": "pump", "rows": 600, "Quality": 192}


def test_a_gap_without_an_end_says_none():
    """Nobody knows how many rows a power cut has cost."""
    desk = Desk()
    desk.born()
    ((_, said),) = told(desk, "_gap", GAP | {"to": None, "reason": "power_off"})
    assert proto.value(said.metrics[0]) == "power_off"
    assert not {"to", "rows"} & proto.properties(said.metrics[0]).keys()


def test_a_birth_tells_the_last_gap_again():
    """A host that comes later sees it as well."""
    desk = Desk()
    desk.born()
    told(desk, "_gap", GAP)
    birth = desk.born()[0][-1].metrics[-1]
    assert (birth.name, proto.value(birth)) == ("Gap", "size")
    assert proto.properties(birth)["from"] == 12001


def test_the_balance_stands_in_the_birth():
    """Four whole numbers for each stream."""
    desk = Desk()
    desk.plant.books = BOOKS
    metrics = desk.born()[0][-1].metrics[-4:]
    assert {m.name: (m.datatype, proto.value(m)) for m in metrics} == {
        "Ledger/pump/produced": (4, 9), "Ledger/pump/delivered": (4, 6),
        "Ledger/pump/buffered": (4, 1), "Ledger/pump/dropped": (4, 2)}  # fmt: skip
    assert proto.properties(metrics[-1]) == {"age": 1, "size": 1, "Quality": 192}


def test_of_the_balance_only_what_changed_is_told():
    """By exception, like everything else; one metric for each number."""
    desk = Desk()
    desk.plant.books = BOOKS
    desk.born()
    assert told(desk, "_ledger", {"streams": BOOKS}) == []
    new = {"pump": BOOKS["pump"] | {"delivered": 7, "buffered": 0}}
    ((kind, said),) = told(desk, "_ledger", {"streams": new})
    assert (kind, values(said)) == ("NDATA", [7, 0])


@pytest.mark.parametrize("known", [{}, BOOKS])
def test_a_balance_that_no_birth_has_is_told_by_a_new_one(known):
    """A metric is never sent that was not born."""
    desk = Desk()
    desk.plant.books = known
    desk.born(pump=desk.batch())
    desk.plant.books = BOOKS | {"fan": BOOKS["pump"]}
    said = told(desk, "_ledger", {"streams": desk.plant.books})
    assert kinds(said) == [("NBIRTH",), ("DBIRTH", "pump")]
