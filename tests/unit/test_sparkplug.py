"""Sparkplug B: bytes made by hand, births, deaths, lost messages."""

import random
import struct

import numpy as np
import pytest

from agent.codecs.protobuf import varint
from agent.codecs.sparkplug import BadPayload, decode, rebirth
from tests.mqtt_feeding import feed, take
from tests.unit.test_mqtt_feed import aged, mutated

NOW_MS = 1_700_000_000_000
S = 10**9


def ld(number, data):
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def metric(name=None, alias=None, ts=None, kind=None, value=b"", extra=b""):
    return ld(2, (
        (ld(1, name.encode()) if name else b"")
        + (b"\x10" + varint(alias) if alias is not None else b"")
        + (b"\x18" + varint(ts) if ts is not None else b"")
        + (b"\x20" + varint(kind) if kind else b"") + extra + value
    ))  # fmt: skip


def double(x):
    return b"\x69" + struct.pack("<d", x)


def payload(seq, *metrics, ts=NOW_MS):
    return b"\x08" + varint(ts) + b"".join(metrics) + b"\x18" + varint(seq)


@pytest.mark.parametrize(
    ("kind", "value", "meant"),
    [
        (10, double(2.5), 2.5),
        (9, b"\x65" + struct.pack("<f", 0.5), 0.5),
        (11, b"\x70\x01", True),
        (12, b"\x7a" + varint(3) + b"lot", "lot"),
        (3, b"\x50" + varint(-5 & 0xFFFFFFFF), -5),
        (1, b"\x50" + varint(0xFF), -1),
        (2, b"\x50" + varint(0xFFFFFFFE), -2),
        (4, b"\x58" + varint(-7 & (2**64 - 1)), -7),
        (8, b"\x58" + varint(2**63), 2**63),
        (7, b"\x50" + varint(2**32 - 1), 2**32 - 1),
        (10, b"\x38\x01", None),
    ],
)
def test_every_kind_of_value(kind, value, meant):
    """Field numbers and types as the specification lists them; integers travel without sign."""
    found = decode(payload(3, metric("m", 1, NOW_MS, kind, value)))
    assert (found.timestamp, found.seq) == (NOW_MS, 3)
    (one,) = found.metrics
    assert (one.name, one.alias, one.timestamp, one.datatype) == ("m", 1, NOW_MS, kind)
    assert one.typed(0) == meant


def test_bytes_written_out():
    """A payload in hex, read against the specification by hand."""
    data = bytes.fromhex("08e807 12 10 0a0141 1007 18e807 2003 50fbffffff0f 1805")
    found = decode(data)
    assert (found.timestamp, found.seq) == (1000, 5)
    (one,) = found.metrics
    assert (one.name, one.alias, one.timestamp, one.typed(0)) == ("A", 7, 1000, -5)


def test_fields_nobody_knows_are_skipped_and_lies_are_refused():
    """Unknown fields are no error; a cut, a wrong wire type, an endless number are."""
    good = payload(1, metric("m", value=double(1)))
    assert decode(good + ld(99, b"new") + b"\xa0\x06\x01").metrics == decode(good).metrics
    for broken in (good[:-3], b"\x0d1234", b"\x08" + b"\xff" * 11, b"", ld(2, b"\x0d\0\0\0\0")):
        with pytest.raises(BadPayload):
            decode(broken)


def test_our_request_is_a_payload():
    """What asks for a birth can be read back."""
    (one,) = decode(rebirth(NOW_MS)).metrics
    assert (one.name, one.datatype, one.value) == ("Node Control/Rebirth", 11, True)


def device(tmp_path, **more):
    tags = {"speed": {"metric": "Drive/Speed"}, "count": {"metric": "Count"}}
    return feed(
        tmp_path, **{"format": "sparkplug", "topic": "spBv1.0/g/+/n/d", "tags": tags} | more
    )


def born(f, seq=0):
    take(f, "spBv1.0/g/NBIRTH/n", payload(seq, metric("bdSeq", kind=8, value=b"\x58\x04")))
    return take(f, "spBv1.0/g/DBIRTH/n/d", payload(
        seq + 1, metric("Drive/Speed", 1, NOW_MS, 10, double(1)),
        metric("Count", 2, NOW_MS, 3, b"\x50" + varint(-1 & 0xFFFFFFFF))))  # fmt: skip


def test_a_birth_gives_names_and_data_come_by_alias(tmp_path):
    """Values by alias with the birth's type; one row per instant; the rest is held."""
    f = device(tmp_path)
    assert f.filters() == ["spBv1.0/g/+/n/#"]
    (batch,) = born(f)
    assert batch.v.tolist() == [[1.0, -1.0]]
    assert batch.t.tolist() == [NOW_MS * 10**6]
    (batch,) = take(f, "spBv1.0/g/DDATA/n/d", payload(
        2, metric(alias=1, ts=NOW_MS + 20, value=double(3)),
        metric(alias=1, ts=NOW_MS + 10, value=double(2))))  # fmt: skip
    assert batch.v.tolist() == [[2.0, -1.0], [3.0, -1.0]]
    assert batch.q.tolist() == [[192, 68], [192, 68]]
    assert f.requests() == []


@pytest.mark.parametrize(("topic", "bdseq", "dies"), [
    ("spBv1.0/g/DDEATH/n/d", None, True), ("spBv1.0/g/NDEATH/n", 4, True),
    ("spBv1.0/g/NDEATH/n", 3, False), ("spBv1.0/g/DDEATH/n/other", None, False)])  # fmt: skip
def test_a_death_makes_it_the_past(tmp_path, topic, bdseq, dies):
    """Its own death, or that of its node; the death of an older connection is none."""
    f = device(tmp_path)
    born(f)
    f._ctx.clock.advance(1)
    told = () if bdseq is None else (metric("bdSeq", kind=8, value=b"\x58" + varint(bdseq)),)
    batches = take(f, topic, payload(2, *told))
    assert [b.q.tolist() for b in batches] == ([[[68, 68]]] if dies else [])


def test_what_was_lost_is_asked_for(tmp_path):
    """A gap, an alias that nobody has explained, data before a birth: one request in 10 s."""
    f = device(tmp_path)
    take(f, "spBv1.0/g/DDATA/n/d", payload(7, metric(alias=1, value=double(3))))
    assert [t for t, _ in f.requests()] == ["spBv1.0/g/NCMD/n"]
    born(f)
    take(f, "spBv1.0/g/DDATA/n/d", payload(9, metric(alias=1, value=double(3))))
    assert f.requests() == []
    f._ctx.clock.advance(11)
    take(f, "spBv1.0/g/DDATA/n/d", payload(20, metric(alias=1, value=double(3))))
    assert len(f.requests()) == 1
    assert f._ctx.stats.values["source/d.seq_gaps"] == 2


def test_several_devices_of_a_node(tmp_path):
    """`{name}` stands for the device; others are left alone."""
    f = device(tmp_path, topic="spBv1.0/g/+/n/{d}", each={"d": ["d", "e"]})
    (batch,) = born(f)
    assert batch.stream == "d~d"
    assert (
        take(f, "spBv1.0/g/DBIRTH/n/z", payload(2, metric("Count", 3, NOW_MS, 3, b"\x50\1"))) == []
    )
    (batch,) = take(f, "spBv1.0/g/DBIRTH/n/e", payload(3, metric("Count", 4, NOW_MS, 3, b"\x50\2")))
    assert (batch.stream, batch.v[0, 1]) == ("d~e", 2.0)
    f._ctx.clock.advance(1)
    assert len(take(f, "spBv1.0/g/NDEATH/n", payload(0, ts=NOW_MS))) == 2


def test_the_quality_that_a_node_gives(tmp_path):
    """0 is bad, 500 is stale."""
    f = device(tmp_path)
    born(f)

    def quality(n):
        return ld(9, ld(1, b"Quality") + ld(2, b"\x08\x03\x18" + varint(n)))

    for n, q in ((0, 0), (500, 68), (192, 192)):
        data = payload(2, metric(alias=1, ts=NOW_MS, value=double(3), extra=quality(n)))
        (batch,) = take(f, "spBv1.0/g/DDATA/n/d", data)
        assert batch.q[0, 0] == q


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (1, b"\x50" + varint(300)),
        (1, b"\x50" + varint(-200 & 0xFFFFFFFF)),
        (2, b"\x58" + varint(2**40)),
        (5, b"\x50" + varint(256)),
        (7, b"\x58" + varint(2**32)),
        (0, b"\x50\x05"),
    ],
)
def test_an_integer_that_cannot_be_is_bad(tmp_path, kind, value):
    """One that does not fit its type, or whose type nobody told: never another number instead."""
    f = device(tmp_path)
    born(f)
    told = payload(2, metric("Count" if kind else "Drive/Speed", None, NOW_MS, kind, value))
    if not kind:
        take(f, "spBv1.0/g/NBIRTH/n", payload(0))
    (batch,) = take(f, "spBv1.0/g/DDATA/n/d", told)
    at = 1 if kind else 0
    assert batch.q[0, at] == 16
    assert "type" in f.error


def test_history_of_a_node_is_never_the_value_of_now(tmp_path):
    """What it kept while it had no connection is late, whatever its time; the rest goes on."""
    f = device(tmp_path)
    born(f)
    past, now = take(f, "spBv1.0/g/DDATA/n/d", payload(
        2, metric(alias=1, ts=NOW_MS + 5, value=double(8), extra=b"\x28\x01"),
        metric(alias=2, ts=NOW_MS + 1, value=b"\x50\x05")))  # fmt: skip
    assert (past.late.tolist(), past.q.tolist()) == ([True], [[192, 0]])
    assert (now.late, now.v.tolist(), now.q.tolist()) == (None, [[1, 5]], [[68, 192]])


def test_after_a_death_aliases_mean_nothing(tmp_path):
    """Until the next birth; the value is of the past at once, and none after half a minute."""
    f = device(tmp_path)
    born(f)
    take(f, "spBv1.0/g/DDEATH/n/d", payload(2))
    data = payload(3, metric(alias=1, ts=NOW_MS + 5, value=double(8)))
    assert take(f, "spBv1.0/g/DDATA/n/d", data) == []
    assert len(f.requests()) == 1
    assert aged(f, None) is None
    f._ctx.clock.advance(31)
    assert aged(f, None) == [8, 8]
    (batch,) = born(f, 4)
    assert batch.q.tolist() == [[192, 192]]
    assert aged(f, None) is None


def test_hostile_bytes(tmp_path):
    """3,000 mutations of births, data and deaths: never an exception, never a time or a value that
    the message does not have.
    """
    rng, f = random.Random(5), device(tmp_path)
    born(f)
    whole = payload(2, metric("Drive/Speed", 1, NOW_MS, 10, double(3.7)),
                    metric(alias=2, ts=NOW_MS, value=b"\x50\x05"))  # fmt: skip
    topics = ["DDATA/n/d", "DBIRTH/n/d", "NBIRTH/n", "NDEATH/n", "DDEATH/n/d"]
    for _ in range(3000):
        data = mutated(whole, rng)
        for batch in take(f, f"spBv1.0/g/{rng.choice(topics)}", data):
            speeds = batch.v[batch.q[:, 0] == 192, 0].tolist()
            assert all(struct.pack("<d", v) in data or v % 1 == 0 for v in speeds)
            assert np.isfinite(batch.v[batch.q >= 64]).all()
            assert (batch.t >= 946_684_800 * S).all()
            assert (batch.t <= (NOW_MS + 3_600_000) * 10**6).all()


def test_what_another_encoder_writes(tmp_path):
    """Shapes of an encoder that was measured against the official schema: alias, time, historical
    flag, value; every type.
    """
    f = device(tmp_path)
    born(f)
    head = b"\x18" + varint(NOW_MS) + b"\x28\x01"  # historical
    body = [b"\x10\x01" + head + double(7.5), b"\x10\x02" + head + b"\x50" + varint(2**32 - 9)]
    data = b"\x08" + varint(NOW_MS) + b"".join(ld(2, m) for m in body) + b"\x18\x02"
    (batch,) = take(f, "spBv1.0/g/DDATA/n/d", data)
    assert batch.v.tolist() == [[7.5, -9.0]]
    assert batch.late.tolist() == [True]
