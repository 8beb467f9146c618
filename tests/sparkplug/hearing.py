"""What a recording says: sessions, messages, payloads; and how a recording is spoiled."""

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache

from google.protobuf.message import DecodeError

from tests import sparkplug_proto as proto
from tests.sparkplug.scene import EDGE, HOST

KINDS = ("NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH")
BIRTHS, DATA = ("NBIRTH", "DBIRTH"), ("NDATA", "DDATA")
WITHOUT_ALIAS = {"bdSeq", "Node Control/Rebirth"}
STATE = f"spBv1.0/STATE/{HOST}"


@lru_cache(maxsize=4096)
def payload(data):
    """The bytes as a payload; None when they are none. Never change what comes back."""
    try:
        return proto.Payload.FromString(data)
    except DecodeError:
        return None


def kind_of(packet, kinds=KINDS):
    """Which kind of message it says it is."""
    return next((k for k in kinds if k in packet.topic.split("/")), "")


def told(packet, *kinds):
    """Is it a message of the edge node, of these kinds."""
    published = packet.up and packet.client == EDGE and packet.kind == "PUBLISH"
    return published and kind_of(packet) in (kinds or KINDS)


def heard(packet, *kinds):
    """Is it a message that came to the edge node."""
    came = not packet.up and packet.client == EDGE and packet.kind == "PUBLISH"
    return came and bool(kind_of(packet, kinds))


def since_known(packets, at, answer):
    """What the edge node does once it knows the message *at*: from its PUBACK on, or from its
    *answer*, whichever is first. What it sent before crosses the message on the wire.
    """

    def knows(p):
        return told(p, answer) or (is_edge(p, "PUBACK") and p.mid == packets[at].mid)

    assert packets[at].mid
    rest = packets[at + 1 :]
    return rest[next(i for i, p in enumerate(rest) if knows(p)) :]


def is_edge(packet, kind):
    """Is it a packet of this kind that the edge node sent."""
    return packet.up and packet.client == EDGE and packet.kind == kind


def device(packet):
    return packet.topic.split("/")[4] if packet.topic.count("/") == 4 else ""


def state(packet):
    """(online, timestamp) of a STATE message."""
    said = json.loads(packet.payload)
    return said["online"], said["timestamp"]


@dataclass
class Session:
    """One connection of the edge node that a broker has taken, from its CONNECT on."""

    connect: object
    packets: list

    def told(self, *kinds):
        return [p for p in self.packets if told(p, *kinds)]


class Heard:
    """A recording as the checks ask it."""

    def __init__(self, recording):
        self.packets, self.facts = recording.packets, recording.facts
        self.marks = recording.marks
        found = {}
        for p in self.packets:
            if p.client == EDGE:
                found.setdefault(p.connection, []).append(p)
        self.connections = list(found.values())
        self.sessions = [
            Session(some[0], some) for some in self.connections
            if some[0].kind == "CONNECT" and any(p.kind == "CONNACK" and not p.reason for p in some)
        ]  # fmt: skip

    def told(self, *kinds):
        """What the edge node has said of these kinds; that it did is part of every check."""
        found = [p for p in self.packets if told(p, *kinds)]
        assert {kind_of(p) for p in found} == set(kinds or KINDS), f"{kinds} were not all said"
        return found

    def metrics(self, *kinds):
        """(packet, metric) of every metric of these kinds."""
        found = [(p, m) for p in self.told(*kinds) for m in payload(p.payload).metrics]
        assert found
        return found

    def cycles(self):
        """Of each session what was said from one NBIRTH to the next."""
        for session in self.sessions:
            cycle = []
            for p in session.told():
                if kind_of(p) == "NBIRTH" and cycle:
                    yield cycle
                    cycle = []
                cycle.append(p)
            if cycle and kind_of(cycle[0]) == "NBIRTH":
                yield cycle


# How a recording is spoiled: each takes a recording and gives another one


def first(recording, pick):
    for i, p in enumerate(recording.packets):
        if pick(p):
            return i
    raise LookupError("nothing to spoil")


def changed(pick, how):
    """The first packet that fits is another one."""

    def spoil(recording):
        packets, at = list(recording.packets), first(recording, pick)
        packets[at] = how(packets[at])
        return replace(recording, packets=packets)

    return spoil


def dropped(pick):
    """No packet that fits has passed."""

    def spoil(recording):
        first(recording, pick)
        return replace(recording, packets=[p for p in recording.packets if not pick(p)])

    return spoil


def moved(pick, before):
    """The first packet that fits passes where *before* (index, packets) says."""

    def spoil(recording):
        packets = list(recording.packets)
        packet = packets.pop(first(recording, pick))
        packets.insert(before(packets, packet), packet)
        return replace(recording, packets=packets)

    return spoil


def flipped(fact):
    """What was seen was not."""

    def spoil(recording):
        return replace(recording, facts=recording.facts | {fact: not recording.facts[fact]})

    return spoil


def put(**fields):
    """Another field of a packet."""
    return lambda packet: replace(packet, **fields)


def edited(edit):
    """Another payload: *edit* changes a copy of what it says."""

    def how(packet):
        said = deepcopy(payload(packet.payload))
        edit(said)
        return replace(packet, payload=said.SerializeToString())

    return how


def edited_metric(edit, which=0):
    """Another metric: *edit* changes it."""
    return edited(lambda said: edit(said.metrics[which]))
