"""The rules that statements share: each a judge and a way to spoil a recording that it must see."""

from dataclasses import dataclass
from typing import Any

from tests import sparkplug_proto as proto
from tests.sparkplug import hearing as h
from tests.sparkplug.hearing import BIRTHS, DATA, KINDS, WITHOUT_ALIAS, payload
from tests.sparkplug.scene import EDGE, GROUP, HOST, NODE

HOUR_MS = 3_600_000
CLOSE_MS = 5000
"""Between a payload's timestamp and when it passed."""


@dataclass(frozen=True)
class Check:
    """How a statement is judged: *judge* fails an assertion, after *spoil* it must."""

    judge: Any
    spoil: Any


def every(kinds, good, how):
    """Each message of these kinds is good (packet, payload); *how* makes one that is not."""
    kinds = (kinds,) if isinstance(kinds, str) else kinds

    def judge(heard):
        for p in heard.told(*kinds):
            assert good(p, payload(p.payload)), p

    return Check(judge, h.changed(lambda p: h.told(p, *kinds), how))


def metrics(kinds, good, edit, pick=bool):
    """Each metric of these kinds is good (metric); *edit* makes one that is not."""

    def spoil(recording):
        def has(p):
            return h.told(p, *kinds) and any(pick(m) for m in payload(p.payload).metrics)

        def how(said):
            edit(next(m for m in said.metrics if pick(m)))

        return h.changed(has, h.edited(how))(recording)

    def judge(heard):
        found = [m for _, m in heard.metrics(*kinds) if pick(m)]
        assert found
        for m in found:
            assert good(m), m

    return Check(judge, spoil)


def form(kind):
    """The topic is namespace, group, type, node, and the device for those of a device."""
    tokens = ["spBv1.0", GROUP, kind, NODE]

    def good(p, _):
        own = p.topic.split("/")
        return own[:4] == tokens and len(own) == 4 + (kind[0] == "D")

    return every(kind, good, h.put(topic=f"spBv1.0/{kind}/{GROUP}/{NODE}"))


def token(place, name):
    """The token at a place of every topic is this one."""

    def wrong(p):
        own = p.topic.split("/")
        own[place] = "\N{REPLACEMENT CHARACTER}"
        return h.replace(p, topic="/".join(own))

    return every(KINDS, lambda p, _: p.topic.split("/")[place] == name, wrong)


def device_token():
    """A device id is a name that can stand in a topic."""
    kinds = ("DBIRTH", "DDATA", "DDEATH")
    plain = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    return every(kinds, lambda p, _: h.device(p) and set(h.device(p)) <= plain,
                 h.put(topic=f"spBv1.0/{GROUP}/DBIRTH/{NODE}/a+b"))  # fmt: skip


def qos(*kinds):
    return every(kinds, lambda p, _: p.qos == 0, h.put(qos=1))


def retain(*kinds):
    return every(kinds, lambda p, _: not p.retain, h.put(retain=True))


def mqtt(*kinds):
    return every(kinds, lambda p, _: p.qos == 0 and not p.retain, h.put(qos=1))


def protobuf(kind):
    return every(kind, lambda _, said: said is not None and said.metrics, h.put(payload=b"\xff"))


def has_seq(*kinds):
    return every(kinds, lambda _, said: said.HasField("seq"),
                 h.edited(lambda said: said.ClearField("seq")))  # fmt: skip


def no_seq(kind):
    return every(kind, lambda _, said: not said.HasField("seq"),
                 h.edited(lambda said: setattr(said, "seq", 3)))  # fmt: skip


def seq_range(kind):
    return every(kind, lambda _, said: said.HasField("seq") and said.seq <= 255,
                 h.edited(lambda said: setattr(said, "seq", 256)))  # fmt: skip


def seq_zero():
    return every("NBIRTH", lambda _, said: said.HasField("seq") and said.seq == 0,
                 h.edited(lambda said: setattr(said, "seq", 1)))  # fmt: skip


def seq_next(*kinds):
    """In a session seq is one more than that of the message before, 0 after 255."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            last = None
            for p in session.told(*BIRTHS, *DATA, "DDEATH"):
                seq = payload(p.payload).seq
                if h.kind_of(p) in kinds and h.kind_of(p) != "NBIRTH":
                    assert seq == (last + 1) % 256, p
                    seen += 1
                last = seq
        assert seen

    wrong = h.edited(lambda said: setattr(said, "seq", (said.seq + 7) % 256))
    return Check(judge, h.changed(lambda p: h.told(p, *[k for k in kinds if k != "NBIRTH"]), wrong))


def sent_now(*kinds):
    """The payload's timestamp is when it was sent, in UTC: not an hour beside it."""
    late = h.edited(lambda said: setattr(said, "timestamp", said.timestamp + HOUR_MS))
    return every(kinds, lambda p, said: abs(said.timestamp - p.at_ms) < CLOSE_MS, late)


def whole(*kinds):
    """Each metric of a birth has name, datatype and a value of that type, or is null."""
    return metrics(kinds, lambda m: m.name and m.HasField("datatype") and one_value(m),
                   lambda m: m.ClearField("datatype"))  # fmt: skip


def one_value(m):
    has = sum(m.HasField(name) for name in proto.VALUES)
    return has == 0 if m.is_null else has == 1


def value_or_null(kind):
    """A metric of a birth has a value, or is null and has none."""

    def edit(m):
        m.is_null, m.double_value = True, 1.0

    return metrics((kind,), one_value, edit)


def all_in_birth(birth, data):
    """Every metric of the data of a session is in the birth before it."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            known = {}
            for p in session.told(birth, data):
                aliases = {m.alias for m in payload(p.payload).metrics}
                if h.kind_of(p) == birth:
                    known[h.device(p)] = aliases
                else:
                    assert aliases <= known.get(h.device(p), set()), p
                    seen += 1
        assert seen

    def spoil(recording):
        def strip(said):
            kept = [m for m in said.metrics if not m.HasField("alias")]
            del said.metrics[:]
            said.metrics.extend(kept)

        packets = [h.edited(strip)(p) if h.told(p, birth) else p for p in recording.packets]
        return h.replace(recording, packets=packets)

    return Check(judge, spoil)


def in_time_order(*kinds):
    """Values that are not historical never go back in time, metric by metric."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            last = {}
            for p in session.told(*kinds):
                for m in payload(p.payload).metrics:
                    if not m.is_historical and m.HasField("alias"):
                        assert m.timestamp >= last.get(m.alias, 0), (p, m)
                        last[m.alias] = m.timestamp
                        seen += 1
        assert seen

    def live(p):
        said = payload(p.payload) if h.told(p, kinds[1]) else None
        return said is not None and said.metrics and not said.metrics[0].is_historical

    return Check(judge, h.changed(live, h.edited_metric(lambda m: setattr(m, "timestamp", 1))))


def only_changes(birth, data):
    """What is not historical differs from what was told of the metric before."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            last = {}
            for p in session.told(birth, data):
                for m in payload(p.payload).metrics:
                    if m.is_historical or not m.HasField("alias"):
                        continue
                    more = proto.properties(m)
                    for key in ("engUnit", "engLow", "engHigh"):
                        more.pop(key, None)
                    now = (proto.value(m), {"Quality": 192} | more)
                    assert h.kind_of(p) == birth or now != last.get(m.alias), (p, m)
                    seen += h.kind_of(p) == data
                    last[m.alias] = now
        assert seen

    def spoil(recording):
        at = h.first(
            recording, lambda p: h.told(p, data) and not payload(p.payload).metrics[0].is_historical
        )
        packets = list(recording.packets)
        packets.insert(at + 1, packets[at])
        return h.replace(recording, packets=packets)

    return Check(judge, spoil)


def after_births(data):
    """No data of a session before its NBIRTH, none of a device before its DBIRTH."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            born = set()
            for p in session.told():
                kind = h.kind_of(p)
                if kind == "NBIRTH":
                    born = {""}
                elif kind == "DBIRTH":
                    born.add(h.device(p))
                elif kind == "DDEATH":
                    born.discard(h.device(p))
                elif kind == data:
                    assert h.device(p) in born, p
                    assert "" in born, p
                    seen += 1
        assert seen

    def before_birth(packets, packet):
        return next(i for i, p in enumerate(packets)
                    if h.told(p, "NBIRTH") and p.connection == packet.connection)  # fmt: skip

    return Check(judge, h.moved(lambda p: h.told(p, data), before_birth))


def births_together():
    """Directly behind an NBIRTH stands the DBIRTH of every device that was there: one that comes
    later has values that are younger than the NBIRTH.
    """

    def judge(heard):
        seen = 0
        for cycle in heard.cycles():
            started, block, known = payload(cycle[0].payload).timestamp, True, set()
            for p in cycle[1:]:
                block = block and h.kind_of(p) == "DBIRTH"
                if h.kind_of(p) == "DBIRTH":
                    if block:
                        seen += 1
                    elif h.device(p) not in known:
                        times = [m.timestamp for m in payload(p.payload).metrics]
                        assert max(times) >= started, p
                    known.add(h.device(p))
        assert seen

    def behind_data(packets, packet):
        for i, p in enumerate(packets):
            later = p.at_ms >= packet.at_ms and p.connection == packet.connection
            if later and h.told(p, "DDATA"):
                return i + 1
        raise LookupError

    def spoil(recording):
        at = recording.marks["online again"]
        block = next(p for p in recording.packets[at:] if h.told(p, "DBIRTH"))
        older = h.edited(lambda said: [setattr(m, "timestamp", 1) for m in said.metrics])(block)
        packets = [older if p is block else p for p in recording.packets]
        return h.moved(lambda p: p is older, behind_data)(h.replace(recording, packets=packets))

    return Check(judge, spoil)


def one_metric(name, good, edit):
    """The NBIRTH has this metric, and it is good."""

    def judge(heard):
        for p in heard.told("NBIRTH"):
            found = [m for m in payload(p.payload).metrics if m.name == name]
            assert len(found) == 1, p
            assert good(found[0]), p

    def how(said):
        edit(next(m for m in said.metrics if m.name == name))

    return Check(judge, h.changed(lambda p: h.told(p, "NBIRTH"), h.edited(how)))


def will(good, **wrong):
    """Each CONNECT of the edge node has a will, and it is good."""

    def judge(heard):
        assert heard.sessions
        for session in heard.sessions:
            assert session.connect.will, session.connect
            assert good(session.connect), session.connect

    return Check(judge, h.changed(lambda p: h.is_edge(p, "CONNECT"), h.put(**wrong)))


def clean(version, **wrong):
    """The broker keeps no session for us, in this version of MQTT."""

    def judge(heard):
        found = [s.connect for s in heard.sessions if s.connect.version == version]
        assert found
        assert all(c.clean and not c.expiry_s for c in found)

    return Check(
        judge, h.changed(lambda p: h.is_edge(p, "CONNECT") and taken(p, version), h.put(**wrong))
    )


def taken(p, version):
    return p.version == version


def subscribed(where, qos_=1):
    """Each session that is born has subscribed before, at QoS 1."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            asked = set()
            for p in session.packets:
                if h.is_edge(p, "SUBSCRIBE"):
                    asked |= set(p.filters)
                elif h.told(p, "NBIRTH"):
                    assert (where, qos_) in asked, p
                    seen += 1
        assert seen

    def asks(p):
        return h.is_edge(p, "SUBSCRIBE") and p.filters[0][0] == where

    return Check(judge, h.changed(asks, h.put(filters=((where, 0),))))


def bdseq(p):
    found = [m for m in payload(p.payload).metrics if m.name == "bdSeq"]
    assert len(found) == 1, p
    return found[0]


def set_bdseq(value):
    def edit(said):
        next(m for m in said.metrics if m.name == "bdSeq").long_value = value

    return h.edited(edit)


def bdseq_there():
    return one_metric(
        "bdSeq", lambda m: m.HasField("long_value"), lambda m: setattr(m, "name", "x")
    )


def bdseq_matches(kind):
    """The number of a birth or a death is that of the will of its connection."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            for p in session.told(kind):
                assert bdseq(p).long_value == bdseq(session.connect).long_value, p
                seen += 1
        assert seen

    return Check(judge, h.changed(lambda p: h.told(p, kind), set_bdseq(99)))


def bdseq_counts():
    """0 in the first CONNECT that a broker took, one more in each that follows, 0 after 255."""

    def judge(heard):
        numbers = [bdseq(s.connect).long_value for s in heard.sessions]
        assert len(numbers) > 3
        assert numbers == [i % 256 for i in range(len(numbers))]
        assert all(bdseq(s.connect).datatype == 4 for s in heard.sessions)

    return Check(judge, h.changed(lambda p: h.is_edge(p, "CONNECT"), set_bdseq(7)))


def bdseq_typed():
    return one_metric("bdSeq", lambda m: m.datatype == 4, lambda m: setattr(m, "datatype", 8))


def before_goodbye(version):
    """Before each DISCONNECT an NDEATH was published, in this version of MQTT or in any."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            ends = [i for i, p in enumerate(session.packets) if h.is_edge(p, "DISCONNECT")]
            if ends and version in (session.connect.version, 0):
                assert session.packets[: ends[0]][-1:], session.connect
                last = [p for p in session.packets[: ends[0]] if p.up][-1]
                assert h.told(last, "NDEATH"), last
                seen += 1
        assert seen

    return Check(judge, h.dropped(lambda p: h.told(p, "NDEATH")))


def with_will():
    """MQTT 5: DISCONNECT says 0x04."""

    def judge(heard):
        found = [p for s in heard.sessions for p in s.packets
                 if h.is_edge(p, "DISCONNECT") and p.version == 5]  # fmt: skip
        assert found
        assert all(p.reason == 4 for p in found)

    return Check(judge, h.changed(lambda p: h.is_edge(p, "DISCONNECT"), h.put(reason=0)))


def last_packet():
    """A DISCONNECT, where there is one, is the last that is sent."""

    def judge(heard):
        ends = [[p for p in s.packets if p.up] for s in heard.sessions]
        with_goodbye = [up for up in ends if any(h.is_edge(p, "DISCONNECT") for p in up)]
        assert with_goodbye
        assert all(h.is_edge(up[-1], "DISCONNECT") for up in with_goodbye)

    def after(packets, packet):
        return len(packets)

    return Check(judge, h.moved(lambda p: h.told(p, "NDEATH"), after))


def dies_with_its_link():
    """When the device was switched off its DDEATH came, and no data of it until it was back."""

    def judge(heard):
        some = heard.packets[heard.marks["device dies"] : heard.marks["device is back"]]
        deaths = [i for i, p in enumerate(some) if h.told(p, "DDEATH") and h.device(p) == "fan"]
        assert len(deaths) == 1
        assert not any(h.told(p, "DDATA") and h.device(p) == "fan" for p in some[deaths[0] :])

    return Check(judge, h.changed(lambda p: h.told(p, "DDEATH"), h.put(kind="PINGREQ")))


def first_is_birth():
    """Whatever a session says before its NBIRTH can only be its death."""

    def judge(heard):
        found = [s.told(*BIRTHS, *DATA, "DDEATH") for s in heard.sessions]
        born = [some for some in found if some]
        assert born
        assert all(h.kind_of(some[0]) == "NBIRTH" for some in born)

    return Check(judge, h.dropped(lambda p: h.told(p, "NBIRTH")))


def after_connack():
    """An NBIRTH comes over a connection that the broker has taken before."""

    def judge(heard):
        seen = 0
        for some in heard.connections:
            taken_at = [i for i, p in enumerate(some) if p.kind == "CONNACK" and not p.reason]
            for i, p in enumerate(some):
                if h.told(p, *BIRTHS):
                    assert taken_at, p
                    assert taken_at[0] < i, p
                    seen += 1
        assert seen

    return Check(judge, h.dropped(lambda p: p.kind == "CONNACK" and p.client == EDGE))


def births_after(good, spoil):
    """Before each NBIRTH the session has heard STATE of its host; *good* (messages so far)."""

    def judge(heard):
        seen, all_states = 0, []
        for session in heard.sessions:
            states = []
            for p in session.packets:
                if h.heard(p, "STATE"):
                    states.append(p)
                    all_states.append(p)
                elif h.told(p, "NBIRTH"):
                    assert good(session, states), p
                    seen += 1
        assert seen

    return Check(judge, spoil)


def is_state(p):
    return h.heard(p, "STATE") and p.topic == h.STATE


def online(p):
    return is_state(p) and h.state(p)[0]


def as_state(*, on, at_ms):
    said = b'{"online":%s,"timestamp":%d}' % (b"true" if on else b"false", at_ms)
    return h.put(payload=said)


def waits():
    return births_after(lambda _, states: states, h.dropped(is_state))


def waits_for_its_own():
    def good(session, states):
        asked = {f for p in session.packets if h.is_edge(p, "SUBSCRIBE") for f, _ in p.filters}
        return h.STATE in asked and states and all(p.topic.split("/")[-1] == HOST for p in states)

    return births_after(good, h.changed(is_state, h.put(topic="spBv1.0/STATE/another")))


def waits_for_online():
    return births_after(lambda _, states: states and h.state(states[-1])[0],
                        h.changed(online, as_state(on=False, at_ms=2**41)))  # fmt: skip


def waits_for_newer():
    """The words that gave way to births are no older than any heard before."""

    def judge(heard):
        newest, seen = 0, 0
        for p in heard.packets:
            if is_state(p):
                said = h.state(p)[1]
                last_on = said if h.state(p)[0] else 0
                newest, known = max(newest, said), newest
                old = said < known
            elif h.told(p, "NBIRTH"):
                assert newest, p
                assert last_on or old, p
                assert not (last_on and old), p
                seen += 1
        assert seen

    def spoil(recording):
        at = recording.marks["online again"]
        i = next(i for i, p in enumerate(recording.packets) if i >= at and online(p))
        packets = list(recording.packets)
        packets[i] = as_state(on=True, at_ms=1)(packets[i])
        return h.replace(recording, packets=packets)

    return Check(judge, spoil)


def offline_moments(heard):
    """(packets of the session, index) of each valid offline after a birth; and of old ones."""
    newest, valid, old = 0, [], []
    for session in heard.sessions:
        born = False
        for i, p in enumerate(session.packets):
            born = born or h.told(p, "NBIRTH")
            if is_state(p):
                on, at_ms = h.state(p)
                if born and not on:
                    (valid if at_ms >= newest else old).append((session.packets, i))
                newest = max(newest, at_ms)
    return valid, old


def dies_with_its_host():
    """A valid offline: NDEATH is the next word, then the goodbye."""

    def judge(heard):
        valid, _ = offline_moments(heard)
        assert valid
        for packets, i in valid:
            rest = h.since_known(packets, i, "NDEATH")
            after = [p for p in rest if h.told(p) or h.is_edge(p, "DISCONNECT")]
            assert [h.kind_of(p) or p.kind for p in after] == ["NDEATH", "DISCONNECT"], after

    return Check(judge, h.dropped(lambda p: h.told(p, "NDEATH")))


def leaves_without_its_host():
    def judge(heard):
        valid, _ = offline_moments(heard)
        assert valid
        for packets, i in valid:
            assert any(h.is_edge(p, "DISCONNECT") for p in packets[i:])

    return Check(judge, h.dropped(lambda p: h.is_edge(p, "DISCONNECT")))


def comes_again():
    """After a valid offline another CONNECT follows, to the next broker where there is one."""

    def judge(heard):
        valid, _ = offline_moments(heard)
        assert len(valid) > 1
        places = {bool(packets[0].connection > 1000) for packets, _ in valid}
        assert places == {True, False}
        for packets, i in valid:
            at = heard.packets.index(packets[i])
            later = [p for p in heard.packets[at:] if h.is_edge(p, "CONNECT")]
            assert later, packets[i]
            if packets[i].connection > 1000:
                assert later[0].connection < 1000

    def spoil(recording):
        last = max(i for i, p in enumerate(recording.packets)
                   if h.is_edge(p, "CONNECT") and p.connection < 1000)  # fmt: skip
        return h.replace(recording, packets=recording.packets[:last])

    return Check(judge, spoil)


def stays():
    """An offline older than what was heard before changes nothing."""

    def judge(heard):
        _, old = offline_moments(heard)
        assert old
        for packets, i in old:
            said = [p for p in packets[i + 1 :] if h.told(p)]
            assert said
            assert h.kind_of(said[0]) != "NDEATH"

    def is_old(p):
        return is_state(p) and not h.state(p)[0]

    return Check(judge, h.changed(is_old, as_state(on=False, at_ms=2**42)))


def one_server():
    """A connection is over before the next one begins."""

    def judge(heard):
        seen = set()
        for p in heard.packets:
            if p.client == EDGE and p.up and p.kind != "PINGREQ":
                if h.is_edge(p, "CONNECT"):
                    seen.add(p.connection)
                    now = p.connection
                assert p.connection == now, p
        assert {c > 1000 for c in seen} == {True, False}

    def spoil(recording):
        early = next(p for p in recording.packets if h.told(p, "NDATA"))
        return h.replace(recording, packets=[*recording.packets, early])

    return Check(judge, spoil)


def walks():
    """With the host offline here the next broker is asked, and births are there."""

    def judge(heard):
        assert heard.facts["walked on"]
        assert any(h.told(p, "NBIRTH") and p.connection > 1000 for p in heard.packets)

    return Check(judge, h.dropped(lambda p: p.connection > 1000))


def fact(*some):
    """What was seen beside the wire."""

    def judge(heard):
        for one in some:
            assert heard.facts[one], one

    return Check(judge, h.flipped(some[0]))


def arrives(kind, good, how):
    """The command that was done came like this; the first of its kind was."""

    def judge(heard):
        found = [p for p in heard.packets if h.heard(p, kind)]
        assert found
        assert good(found[0], payload(found[0].payload)), found[0]
        assert heard.facts["a write was done"]
        assert heard.facts["nothing else was done"]

    return Check(judge, h.changed(lambda p: h.heard(p, kind), how))


def rebirth_asked(good, edit):
    """The request that was granted is an NCMD like this."""

    def asks(p):
        said = payload(p.payload) if h.heard(p, "NCMD", "DCMD") else None
        return said is not None and any("Rebirth" in m.name for m in said.metrics)

    def judge(heard):
        found = [p for p in heard.packets[heard.marks["rebirth"] :] if asks(p)]
        assert len(found) == 1
        assert good(found[0], payload(found[0].payload).metrics[0])

    return Check(judge, h.changed(asks, edit))


def rebirth(good, spoil):
    """What the session says after the request: *good* (number of the session, what follows)."""

    def judge(heard):
        at = heard.marks["rebirth"]
        asked = next(i for i, p in enumerate(heard.packets) if i >= at and h.heard(p, "NCMD"))
        here = heard.packets[asked].connection
        follows = [p for p in h.since_known(heard.packets, asked, "NBIRTH")
                   if p.connection == here and h.told(p)]  # fmt: skip
        session = next(s for s in heard.sessions if s.connect.connection == here)
        assert follows
        good(bdseq(session.connect).long_value, follows)

    return Check(judge, spoil)


def in_rebirth(kind):
    """Picks the first message of a kind after the request."""

    def spoil_at(recording):
        at = recording.marks["rebirth"]
        return next(i for i, p in enumerate(recording.packets) if i >= at and h.told(p, kind))

    return spoil_at


def stops_data():
    def good(_, follows):
        assert h.kind_of(follows[0]) == "NBIRTH"

    def spoil(recording):
        packets = list(recording.packets)
        at = in_rebirth("NBIRTH")(recording)
        data = next(p for p in packets if h.told(p, "DDATA"))
        packets.insert(at, h.replace(data, connection=packets[at].connection))
        return h.replace(recording, packets=packets)

    return rebirth(good, spoil)


def births_again():
    def good(_, follows):
        assert h.kind_of(follows[0]) == "NBIRTH"
        devices = {h.device(p) for p in follows[1:4]}
        assert {h.kind_of(p) for p in follows[1:4]} == {"DBIRTH"}
        assert devices == {"pump", "fan", "agent"}

    def spoil(recording):
        packets = list(recording.packets)
        del packets[in_rebirth("DBIRTH")(recording)]
        return h.replace(recording, packets=packets)

    return rebirth(good, spoil)


def same_session():
    def good(number, follows):
        said = payload(follows[0].payload)
        assert said.seq == 0
        assert bdseq(follows[0]).long_value == number

    def spoil(recording):
        packets, at = list(recording.packets), in_rebirth("NBIRTH")(recording)
        packets[at] = set_bdseq(77)(packets[at])
        return h.replace(recording, packets=packets)

    return rebirth(good, spoil)


def unique_aliases():
    """No alias stands for two metrics of the node and its devices."""

    def judge(heard):
        seen = 0
        for session in heard.sessions:
            owner = {}
            for p in session.told(*BIRTHS):
                for m in payload(p.payload).metrics:
                    if m.HasField("alias"):
                        name = (h.device(p), m.name)
                        assert owner.setdefault(m.alias, name) == name, (p, m)
                        seen += 1
        assert seen

    return Check(judge, h.changed(
        lambda p: h.told(p, "DBIRTH") and len(payload(p.payload).metrics) > 1,
        h.edited(lambda said: setattr(said.metrics[0], "alias", said.metrics[1].alias)),
    ))  # fmt: skip


def properties(good, edit, kinds=(*BIRTHS, *DATA)):
    """Each metric with properties has good ones (metric)."""
    return metrics(kinds, good, edit, lambda m: m.HasField("properties"))


def never(types):
    """Nothing of these types is ever sent, which is what the run shows."""

    def judge(heard):
        for _, m in heard.metrics(*BIRTHS, *DATA):
            assert m.datatype not in types, m
            assert not m.HasField("dataset_value"), m
            assert not m.HasField("template_value"), m

    edit = h.edited_metric(lambda m: setattr(m, "datatype", types[0]))
    return Check(judge, h.changed(lambda p: h.told(p, "NBIRTH"), edit))


def metric_times():
    """Times of metrics are of this hour, and not ahead of the clock."""

    def judge(heard):
        for p, m in heard.metrics(*BIRTHS, *DATA):
            assert p.at_ms - HOUR_MS / 2 < m.timestamp < p.at_ms + CLOSE_MS, (p, m)

    edit = h.edited_metric(lambda m: setattr(m, "timestamp", m.timestamp + HOUR_MS))
    return Check(judge, h.changed(lambda p: h.told(p, "DDATA"), edit))


def named_or_aliased():
    return metrics((*BIRTHS, *DATA), lambda m: m.name or m.HasField("alias"),
                   lambda m: (m.ClearField("name"), m.ClearField("alias")))  # fmt: skip


def named_and_aliased():
    return metrics(BIRTHS, lambda m: m.name and m.HasField("alias"),
                   lambda m: m.ClearField("alias"),
                   lambda m: m.name not in WITHOUT_ALIAS)  # fmt: skip


def rarely():
    """Far fewer messages than the device was read: it is read 20 times a second."""

    def judge(heard):
        for session in heard.sessions:
            said = [p for p in session.told("DDATA") if h.device(p) == "pump"]
            took_s = (session.packets[-1].at_ms - session.packets[0].at_ms) / 1000
            assert len(said) <= 5 + 10 * took_s, session.connect

    def spoil(recording):
        at = h.first(recording, lambda p: h.told(p, "DDATA") and h.device(p) == "pump")
        packets = list(recording.packets)
        packets[at:at] = [packets[at]] * 1000
        return h.replace(recording, packets=packets)

    return Check(judge, spoil)
