"""Past alarms of a model out of the events of the journal."""

from agent.core.alarm import AlarmEvent
from agent.core.past import past_alarms

MACHINES = {"pump1.m": "pump1", "pump2.m": "pump2"}


def event(t, active, label="", alarm="pump1.m", by="agent"):
    return AlarmEvent(alarm, "tag", "stream", t, active, 2, 1.0, 0.5, 192, by=by, label=label)


def found(*events, most=50):
    return [
        (p.instance, p.begin_ns, p.end_ns, p.label) for p in past_alarms(events, MACHINES, most)
    ]


def test_what_was_judged_and_what_stands_is_kept():
    """An alarm that came, went, and was never judged says nothing; other alarms are not asked."""
    assert found(
        event(1, True), event(2, False),
        event(3, True), event(4, True, "confirmed", by="uid:0"), event(5, False),
        event(6, True, alarm="pump1.hot"), event(7, True, "confirmed", "pump1.hot"),
        event(8, True, alarm="pump2.m"),
    ) == [("pump1", 3, 5, "confirmed"), ("pump2", 8, None, "")]  # fmt: skip


def test_the_last_word_counts_also_after_the_alarm_is_gone():
    """Somebody may judge what is over, and may change their mind."""
    assert found(event(1, True), event(2, False), event(3, False, "confirmed", by="uid:0")) == [
        ("pump1", 1, 2, "confirmed")
    ]
    assert found(event(1, True), event(2, True, "confirmed"), event(3, True, "dismissed")) == [
        ("pump1", 1, None, "dismissed")
    ]


def test_a_change_that_nobody_was_told_of_begins_with_its_label():
    """In a flood the beginning is not told; of many the newest are kept."""
    assert found(event(7, True, "confirmed", by="uid:0")) == [("pump1", 7, None, "confirmed")]
    many = [e for i in range(0, 40, 2) for e in (event(i, True, "confirmed"), event(i + 1, False))]
    assert [p[1] for p in found(*many, most=3)] == [34, 36, 38]
