"""Acknowledgements wait for what they promise, and go in the order of arrival."""

from agent.links.mqtt_receipts import Receipts


def test_in_order_of_arrival_whatever_is_settled_first():
    """MQTT wants PUBACKs in the order of the messages (MQTT 5, 4.6)."""
    sent = []
    receipts = Receipts(sent.append)
    first, second, third = (receipts.take(mid) for mid in (7, 8, 9))
    third.settle()
    second.settle()
    assert sent == []
    first.settle()
    assert sent == [7, 8, 9]
    assert len(receipts) == 0


def test_a_message_with_several_debts_waits_for_all():
    """One message may have become rows of two streams: both must be on disk."""
    sent, told = [], []
    receipts = Receipts(sent.append)
    receipts.on_paid = lambda: told.append(len(receipts))
    taken = receipts.take(1)
    a, b = taken.owe(), taken.owe()
    taken.settle()
    a()
    assert sent == []
    b()
    assert sent == [1]
    assert told == [0]


def test_qos_0_is_counted_but_not_acknowledged():
    """A message at QoS 0 takes room until it is on disk; nobody waits for its answer."""
    sent = []
    receipts = Receipts(sent.append)
    one = receipts.take(0)
    assert len(receipts) == 1
    one.settle()
    assert (sent, len(receipts)) == ([], 0)


def test_after_the_loss_of_the_connection_nothing_is_acknowledged():
    """A packet id belongs to its connection; the broker sends the message again."""
    sent = []
    receipts = Receipts(sent.append)
    late = receipts.take(3)
    receipts.lose()
    late.settle()
    assert (sent, len(receipts)) == ([], 0)


def test_a_disk_that_refuses_holds_nothing_up():
    """Values flow on; what was owed is given up, and a late answer of the disk changes nothing."""
    sent = []
    receipts = Receipts(sent.append)
    one = receipts.take(3)
    paid = one.owe()
    one.settle()
    receipts.settle_all()
    assert sent == [3]
    paid()
    assert sent == [3]
