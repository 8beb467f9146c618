"""What a message over MQTT becomes: values, qualities, times; and what becomes of a bad one."""

import json
import random
from contextlib import suppress
from decimal import Decimal, InvalidOperation

import numpy as np
import pytest

from tests.mqtt_feeding import feed, one, take

NOW = 1_700_000_000_000_000_000
S = 10**9
TAGS = {"a": {"path": "x.a"}, "b": {"path": "x.b"}}


@pytest.mark.parametrize(
    ("tag", "raw", "value", "q"),
    [
        ({}, 3, 3.0, 192),
        ({"scale": 0.1, "offset": 1}, 30, 4.0, 192),
        ({}, True, 1.0, 192),
        ({}, None, None, 16),
        ({}, "3", None, 16),
        ({}, [3], None, 16),
        ({"as": "quoted"}, "3.5", 3.5, 192),
        ({"as": "quoted"}, "1e999", None, 16),
        ({"as": "quoted"}, "nan", None, 16),
        ({"as": "quoted"}, "٣", None, 16),
        ({"as": "bool"}, "ON", 1.0, 192),
        ({"as": "bool"}, 2, None, 16),
        ({}, 2**53 + 1, float(2**53), 76),
        ({"as": "text"}, "lot 7", 1.0, 192),
        ({"as": "text"}, 7, None, 16),
    ],
)
def test_a_value_in_json(tmp_path, tag, raw, value, q):
    """Numbers are numbers, texts are texts; what is neither is Bad and says so."""
    f = feed(tmp_path, topic="t", tags={"a": {"path": "v"} | tag})
    got = one(f, "t", {"v": raw})["a"]
    assert got[1] == q
    assert (got[0] == value) if value is not None else np.isnan(got[0])
    assert bool(f.error) == (q == 16)


def test_paths_go_through_objects_and_lists(tmp_path):
    """Names and list numbers, nothing computed; a name with a dot is written in a list."""
    tags = {"a": {"path": "l.1.v"}, "b": {"path": ["p.q", 0]}}
    f = feed(tmp_path, topic="t", tags=tags)
    assert one(f, "t", {"l": [0, {"v": 5}], "p.q": [6]}) == {"a": (5.0, 192), "b": (6.0, 192)}


def test_what_a_message_lacks_is_held(tmp_path):
    """A message with some columns becomes a row with the others held (contracts 3)."""
    f = feed(tmp_path, topic="t", tags=TAGS)
    first = one(f, "t", {"x": {"a": 1}})
    assert first["a"] == (1.0, 192)
    assert first["b"][1] == 8
    assert one(f, "t", {"x": {"b": 2}}) == {"a": (1.0, 68), "b": (2.0, 192)}


@pytest.mark.parametrize(
    ("time", "raw", "ns"),
    [
        ({"as": "iso"}, "2023-11-14T22:13:20Z", NOW),
        ({"as": "iso"}, "2023-11-14T23:13:20.5+01:00", NOW + S // 2),
        ({"as": "iso"}, "2023-11-14T22:13:20", None),
        ({"as": "iso"}, "yesterday", None),
        ({"as": "local", "zone": "Europe/Berlin"}, "2023-11-14 23:13:20", NOW),
        ({"as": "local", "zone": "Europe/Berlin"}, "2023-11-14T22:13:20Z", None),
        ({"as": "s"}, 1_700_000_000.25, NOW + S // 4),
        ({"as": "ms"}, 1_700_000_000_001, NOW + 10**6),
        ({"as": "ns"}, NOW + 1, NOW + 1),
        ({"as": "s"}, 1_700_000_000_000, None),
        ({"as": "ms"}, 1_700_000_000, None),
        ({"as": "s"}, 1e300, None),
        ({"as": "ns"}, 10**30, None),
        ({"as": "s"}, True, None),
        ({"as": "s"}, None, None),
    ],
)
def test_times_of_the_device(tmp_path, time, raw, ns):
    """Exact where the payload is; a time that cannot be is refused, its samples are Bad."""
    f = feed(tmp_path, topic="t", time={"path": "ts"} | time, tags={"a": {"path": "v"}})
    (batch,) = take(f, "t", {"ts": raw, "v": 1})
    assert batch.t_by == "device"
    if ns is None:
        assert (batch.t[0], batch.q[0, 0]) == (NOW, 12)
        assert "time" in f.error
    else:
        assert (batch.t[0], batch.q[0, 0]) == (ns, 192)


def test_a_late_row_is_marked_and_holds_nothing(tmp_path):
    """It says nothing of the other tags, and later rows do not hold its values; but the first
    value of a tag of its own is known from then on.
    """
    f = feed(tmp_path, topic="t", time={"path": "ts", "as": "ns"}, tags=TAGS)
    one(f, "t", {"ts": NOW, "x": {"a": 1}})
    (late,) = take(f, "t", {"ts": NOW - S, "x": {"a": 9, "b": 2}})
    assert late.late.tolist() == [True]
    (late,) = take(f, "t", {"ts": NOW - 2 * S, "x": {"a": 9}})
    assert late.q.tolist() == [[192, 0]]
    assert one(f, "t", {"ts": NOW + S, "x": {"a": 3}}) == {"a": (3.0, 192), "b": (2.0, 68)}
    (on_time,) = take(f, "t", {"ts": NOW + S, "x": {"a": 3}})
    assert on_time.late is None


def test_lines_of_csv_in_order_of_their_times(tmp_path):
    """Each line is a row; as Excel writes it, with a decimal comma, too."""
    f = feed(
        tmp_path, topic="t", format="csv", delimiter=";", decimal=",",
        time={"column": 0, "as": "s"}, tags={"a": {"column": 1}, "b": {"column": 2, "as": "text"}},
    )  # fmt: skip
    (batch,) = take(f, "t", b"1700000002;2,5;x\r\n1700000001;1,5;y\r\n1700000003;;z\n")
    assert (batch.t - NOW).tolist() == [S, 2 * S, 3 * S]
    assert batch.v[:2, 0].tolist() == [1.5, 2.5]
    assert batch.q[:, 0].tolist() == [192, 192, 16]
    assert batch.late is None


def test_only_line_ends_end_a_line(tmp_path):
    """A control character in a line makes no two lines of it."""
    f = feed(tmp_path, topic="t", format="csv", tags={"a": {"column": 0}})
    (batch,) = take(f, "t", b"1\x1c2\r\n3\n")
    assert batch.q[:, 0].tolist() == [16, 192]


def test_plain_payloads(tmp_path):
    """The payload is the value; each tag has its topic; all are one stream."""
    tags = {"a": {"topic": "t/a"}, "b": {"topic": "t/b", "as": "bool"}}
    f = feed(tmp_path, format="plain", tags=tags)
    assert one(f, "t/a", b" 20.5\n")["a"] == (20.5, 192)
    assert one(f, "t/b", b"off") == {"a": (20.5, 68), "b": (0.0, 192)}
    assert one(f, "t/a", b"20,5")["a"][1] == 16


def test_a_template_makes_a_stream_of_each_machine(tmp_path):
    """Names that are listed, and no other: a stranger is counted and said, never taken."""
    f = feed(tmp_path, topic="p/{m}/+/d", each={"m": ["m1", "m2"]}, tags={"a": {"path": "a"}})
    assert f.filters() == ["p/+/+/d"]
    (batch,) = take(f, "p/m2/x/d", {"a": 4})
    assert (batch.stream, batch.tags.tags[0].name) == ("d~m2", "d/m2.a")
    assert take(f, "p/m3/x/d", {"a": 4}) == []
    assert "m3" in f.error
    assert take(f, "p/m1/d", {"a": 4}) == []
    assert f._ctx.stats.values["source/d.strangers"] == 2


def test_a_retained_message_is_of_the_past(tmp_path):
    """Nobody knows how old it is, unless it says so itself."""
    f = feed(tmp_path, topic="t", tags={"a": {"path": "a"}})
    assert one(f, "t", {"a": 1}, retained=True) == {"a": (1.0, 68)}
    assert one(f, "t", {"a": 1}) == {"a": (1.0, 192)}


def aged(f, after_s=10.0, *, connected=True):
    """Qualities of the row that time alone makes; None when it makes none."""
    clock = f._ctx.clock
    batch = f.rows[""].aged(after_s, clock.wall_ns(), clock.mono_s(), connected=connected)
    return None if batch is None else batch.q[0].tolist()


def test_silence_makes_held_and_then_bad(tmp_path):
    """After `stale_after` a value is of the past, after twice that there is none, told again and
    again so that the time of an alarm goes on; a tag that never came is no better.
    """
    f = feed(tmp_path, topic="t", tags={"a": {"path": "a"}, "b": {"path": "b"}})
    clock = f._ctx.clock
    clock.advance(5)
    one(f, "t", {"a": 1})
    assert aged(f) is None
    clock.advance(11)
    assert [aged(f), aged(f)] == [[68, 8], None]
    clock.advance(5)
    assert [aged(f), aged(f)] == [[68, 24], None]
    clock.advance(5)
    assert [aged(f), aged(f)] == [[24, 24], None]
    clock.advance(5)
    assert [aged(f), aged(f)] == [[24, 24], None]
    assert one(f, "t", {"a": 2})["a"] == (2.0, 192)
    assert aged(f) is None
    clock.advance(5)
    assert aged(f) == [68, 24]


def test_without_a_broker_no_value_is_known(tmp_path):
    """Told again and again; when the broker is back, what was known is of the past."""
    f = feed(tmp_path, topic="t", tags=TAGS)
    one(f, "t", {"x": {"a": 1}})
    for _ in range(3):
        assert aged(f, None, connected=False) == [8, 8]
        assert aged(f, None, connected=False) is None
        f._ctx.clock.advance(5)
    assert [aged(f, None), aged(f, None)] == [[68, 8], None]
    assert one(f, "t", {"x": {"b": 2}}) == {"a": (1.0, 68), "b": (2.0, 192)}


def test_what_is_told_without_a_time_goes_by_the_clock_of_the_device(tmp_path):
    """A device whose clock is behind: a Bad row of now does not make its next rows late."""
    f = feed(tmp_path, topic="t", time={"path": "ts", "as": "ns"}, tags={"a": {"path": "a"}})
    one(f, "t", {"ts": NOW - 60 * S, "a": 1})
    f._ctx.clock.advance(1)
    (bad,) = take(f, "t", b"}")
    assert bad.t.tolist() == [NOW - 59 * S]
    (good,) = take(f, "t", {"ts": NOW - 58 * S, "a": 1})
    assert good.late is None


def test_a_clock_that_is_set_back_makes_nothing_late(tmp_path):
    """Times of the arrival are the gateway's: after a step rows go on, as those of any device."""
    f = feed(tmp_path, topic="t", tags=TAGS)
    one(f, "t", {"x": {"a": 1, "b": 1}})
    f._ctx.clock.now_ns -= 3600 * S
    (batch,) = take(f, "t", {"x": {"a": 2}})
    assert (batch.late, batch.t[0]) == (None, NOW - 3600 * S)
    assert one(f, "t", {"x": {"b": 2}}) == {"a": (2.0, 68), "b": (2.0, 192)}


def test_good_and_bad_in_turn_do_not_fill_the_log(tmp_path, capsys):
    """A topic is complained of once a minute at most; the count has every message."""
    f = feed(tmp_path, topic="t/+", tags={"a": {"path": "a"}})
    for i in range(500):
        take(f, f"t/{i % 2}", b"}" if i % 3 else b'{"a": 1}')
    assert capsys.readouterr().out.count("message.unusable") <= 2
    assert f._ctx.stats.values["source/d.unusable_messages"] == 333


HOSTILE = {
    "json": (
        {"a": {"path": "x.a"}, "b": {"path": "x.l.1", "as": "text"}},
        {"path": "ts", "as": "ms"},
        json.dumps({"ts": NOW // 10**6, "x": {"a": 1.5, "l": [1, "z"]}}).encode(),
    ),
    "csv": (
        {"a": {"column": 1}, "b": {"column": 2, "as": "text"}},
        {"column": 0, "as": "ms"},
        b"1700000000000,1.5,z\n1700000000001,2.5,z",
    ),
    "plain": ({"a": {"topic": "t"}}, None, b"-12.5e3"),
}


def meant(format_, data):
    """What a reader that knows nothing of ours finds in the place of ``a``."""
    text = data.decode("utf-8-sig")
    if format_ == "json":
        found = json.loads(data)["x"]["a"]
        return [float(found)] if isinstance(found, int | float) else []
    lines = [line.split(",") for line in text.split("\n")] if format_ == "csv" else [["", text]]
    found = []
    for line in lines:
        with suppress(InvalidOperation, OverflowError, IndexError):
            found.append(float(Decimal(line[1].strip().strip('"'))))
    return found


@pytest.mark.parametrize("format_", HOSTILE)
def test_hostile_payloads(tmp_path, format_):
    """3,000 mutations: never an exception; what is taken is what another reader finds, and what
    is not a right value is Bad, counted and said.
    """
    rng = random.Random(3)
    tags, time, whole = HOSTILE[format_]
    f = feed(tmp_path, topic="t", format=format_, tags=tags, **({"time": time} if time else {}))
    taken = 0
    for _ in range(3000):
        data = mutated(whole, rng)
        before = f._ctx.stats.values.get("source/d.bad_samples", 0)
        for batch in take(f, "t", data):
            assert np.isfinite(batch.v[batch.q >= 64]).all()
            assert (batch.t >= 946_684_800 * S).all()
            assert (batch.t <= NOW + 3600 * S).all()
            if good := batch.v[(batch.q[:, 0] == 192) | (batch.q[:, 0] == 76), 0].tolist():
                assert set(good) <= set(meant(format_, data)), data
                taken += len(good)
        if f._ctx.stats.values.get("source/d.bad_samples", 0) > before:
            assert f.error
    assert f._ctx.stats.values["source/d.messages"] == 3000
    assert taken > 20


def mutated(whole, rng):
    """Some bytes changed, cut out, doubled, or replaced by what is awkward."""
    data = bytearray(whole)
    awkward = [b"\0", b"\xff\xfe", b"[" * 2000, b"1e999", b"9" * 5000, b"NaN", b"null", b"{}",
               b'"', b"-", b"\r", b",,", "²".encode(), b"true", b"Infinity"]  # fmt: skip
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randrange(1, 9)]
            case 2:
                data[at:at] = data[: rng.randrange(len(data) + 1)]
            case _:
                data[at : at + rng.randrange(4)] = rng.choice(awkward)
    return bytes(data)
