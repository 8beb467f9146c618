"""Each statement of Sparkplug 3.0 on an edge node, in our words, and how it is judged."""

from dataclasses import dataclass
from pathlib import Path

from agent.codecs.sparkplug_encode import INT32
from tests import sparkplug_proto as proto
from tests.sparkplug import hearing as h
from tests.sparkplug import rules as r
from tests.sparkplug.hearing import BIRTHS, DATA, payload
from tests.sparkplug.scene import GROUP, NODE, topic

QOS0 = ("NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH")
TYPES = {*range(1, 20), *range(22, 35)}
NCMD, DCMD = f"spBv1.0/{GROUP}/NCMD/{NODE}", f"spBv1.0/{GROUP}/DCMD/{NODE}/"
NO_DATASET = "no metric is a dataset"
NO_TEMPLATE = "no metric is a template: births say unit, range and quality as properties"


@dataclass(frozen=True)
class Statement:
    """One statement.

    Attributes:
        word: MUST, SHOULD, MAY, or one of them with NOT.
        text: What it asks, in our words.
        why_not: Why it is not applicable; empty where it is.
    """

    id: str
    word: str
    text: str
    check: r.Check
    why_not: str = ""

    @property
    def verdict(self):
        """What the table says of a statement that holds."""
        return "not applicable" if self.why_not else "kept"


def clear(field):
    return lambda m: m.ClearField(field)


def set_to(field, value):
    return lambda m: setattr(m, field, value)


def _common():
    """The statements that every kind of message has."""
    found = {}
    for kind in QOS0:
        low, data = kind.lower(), kind in DATA
        found[f"topics-{low}-topic"] = r.form(kind)
        found[f"topics-{low}-mqtt"] = r.mqtt(kind)
        found[f"topics-{low}-timestamp"] = r.sent_now(kind)
        found[f"payloads-{low}-timestamp"] = r.sent_now(kind)
        found[f"payloads-{low}-qos"] = r.qos(kind)
        found[f"payloads-{low}-retain"] = r.retain(kind)
        found[f"payloads-{low}-seq"] = r.has_seq(kind)
        if kind != "NBIRTH":
            found[f"topics-{low}-seq-num"] = found[f"topics-{low}-seq"] = r.seq_next(kind)
            found[f"payloads-{low}-seq-inc"] = r.seq_next(kind)
        if data:
            birth = kind.replace("DATA", "BIRTH")
            found[f"topics-{low}-payload"] = r.only_changes(birth, kind)
            found[f"payloads-{low}-order"] = r.after_births(kind)
            slug = f"operational-behavior-data-publish-{birth.lower()}"
            found[f"{slug}-change"] = r.only_changes(birth, kind)
            found[slug] = r.all_in_birth(birth, kind)
            found[f"topics-{birth.lower()}-metric-reqs"] = r.all_in_birth(birth, kind)
            found[f"{slug}-order"] = r.in_time_order(birth, kind)
    for kind in BIRTHS:
        low, who = kind.lower(), "edge-node" if kind == "NBIRTH" else "device"
        flow = f"message-flow-{who}-birth-publish-{low}"
        found |= {
            f"{flow}-topic": r.form(kind), f"{flow}-qos": r.qos(kind),
            f"{flow}-retained": r.retain(kind), f"{flow}-payload": r.protobuf(kind),
            f"topics-{low}-metrics": r.whole(kind),
            f"operational-behavior-data-publish-{low}-values": r.value_or_null(kind),
        }  # fmt: skip
    return found


def _names():
    return {
        "intro-group-id-string": r.token(1, GROUP),
        "intro-group-id-chars": r.fact("group with + refused", "group with / refused",
                                       "group with # refused", "names were plain"),
        "intro-edge-node-id-string": r.token(3, NODE),
        "intro-edge-node-id-chars": r.fact("node with + refused", "node with / refused",
                                           "node with # refused", "names were plain"),
        "intro-device-id-string": r.device_token(),
        "intro-device-id-chars": r.fact("device with + refused", "device with / refused",
                                        "device with # refused", "names were plain"),
        "intro-edge-node-id-uniqueness": r.fact("two nodes of one name refused"),
        "topic-structure": r.every(h.KINDS, lambda p, _: 4 <= len(p.topic.split("/")) <= 5,
                                   h.put(topic="spBv1.0/NBIRTH")),
        "topic-structure-namespace-a": r.token(0, "spBv1.0"),
        "topic-structure-namespace-valid-group-id": r.fact("group with + refused"),
        "topic-structure-namespace-unique-edge-node-descriptor":
            r.fact("two nodes of one name refused", "two nodes with one device"),
        "topic-structure-namespace-valid-edge-node-id": r.fact("node with # refused"),
        "topic-structure-namespace-valid-device-id": r.fact("device with / refused"),
        "topic-structure-namespace-unique-device-id": r.fact("two devices of one name refused"),
        "topic-structure-namespace-duplicate-device-id-across-edge-node":
            r.fact("two nodes with one device"),
        "topic-structure-namespace-device-id-associated-message-types":
            r.every(("DBIRTH", "DDATA", "DDEATH"), lambda p, _: p.topic.count("/") == 4,
                    h.put(topic=f"spBv1.0/{GROUP}/DBIRTH/{NODE}")),
        "topic-structure-namespace-device-id-non-associated-message-types":
            r.every(("NBIRTH", "NDATA", "NDEATH"), lambda p, _: p.topic.count("/") == 3,
                    h.put(topic=f"spBv1.0/{GROUP}/NBIRTH/{NODE}/pump")),
        "case-sensitivity-sparkplug-ids": r.fact("told ids apart by case", "nothing to tell"),
        "case-sensitivity-metric-names": r.fact("told metrics apart by case", "nothing to tell"),
    }  # fmt: skip


def _session():
    will = "message-flow-edge-node-birth-publish-will-message"
    death = topic("NDEATH")
    return {
        "principles-birth-certificates-order": r.first_is_birth(),
        "principles-persistence-clean-session-311": r.clean(4, clean=False),
        "principles-persistence-clean-session-50": r.clean(5, expiry_s=60),
        "message-flow-edge-node-birth-publish-connect": r.after_connack(),
        will: r.will(lambda c: c.will, will=False),
        f"{will}-topic": r.will(lambda c: c.topic == death, topic="x"),
        f"{will}-payload": r.will(lambda c: payload(c.payload) is not None
                                  and payload(c.payload).metrics, payload=b"\xff"),
        f"{will}-qos": r.will(lambda c: c.qos == 1, qos=0),
        f"{will}-will-retained": r.will(lambda c: not c.retain, retain=True),
        "payloads-ndeath-will-message": r.will(lambda c: c.topic == death and r.bdseq(c),
                                               will=False),
        "payloads-ndeath-will-message-qos": r.will(lambda c: c.qos == 1, qos=2),
        "payloads-ndeath-will-message-retain": r.will(lambda c: not c.retain, retain=True),
        "message-flow-edge-node-ncmd-subscribe": r.subscribed(NCMD),
        "message-flow-device-dcmd-subscribe": r.subscribed(f"{DCMD}+"),
        "topics-nbirth-bdseq-included": r.bdseq_there(),
        "topics-nbirth-bdseq-matching": r.bdseq_matches("NBIRTH"),
        "topics-nbirth-bdseq-increment": r.bdseq_counts(),
        f"{will}-payload-bdSeq": r.bdseq_counts(),
        "message-flow-edge-node-birth-publish-nbirth-payload-bdSeq": r.bdseq_typed(),
        "payloads-nbirth-bdseq": r.bdseq_there(),
        "payloads-nbirth-bdseq-repeat": r.bdseq_matches("NBIRTH"),
        "payloads-ndeath-bdseq": r.bdseq_matches("NDEATH"),
    }  # fmt: skip


def _births():
    name = "Node Control/Rebirth"
    dbirth = "message-flow-device-birth-publish-dbirth"
    false = r.one_metric(name, lambda m: m.datatype == 11 and not m.boolean_value,
                         set_to("boolean_value", True))  # fmt: skip
    return {
        "topics-nbirth-seq-num": r.seq_zero(),
        "message-flow-edge-node-birth-publish-nbirth-payload-seq": r.seq_range("NBIRTH"),
        "payloads-nbirth-seq": r.seq_range("NBIRTH"),
        "payloads-sequence-num-req-nbirth": r.seq_range("NBIRTH"),
        "payloads-nbirth-edge-node-descriptor": r.fact("two nodes of one name refused"),
        "topics-nbirth-rebirth-metric": false,
        "payloads-nbirth-rebirth-req": false,
        "operational-behavior-data-commands-rebirth-name":
            r.one_metric(name, lambda m: m.name, set_to("name", "Rebirth")),
        "operational-behavior-data-commands-rebirth-name-aliases":
            r.one_metric(name, lambda m: not m.HasField("alias"), set_to("alias", 9)),
        "operational-behavior-data-commands-rebirth-datatype":
            r.one_metric(name, lambda m: m.datatype == 11, set_to("datatype", 12)),
        "operational-behavior-data-commands-rebirth-value":
            r.one_metric(name, lambda m: m.HasField("boolean_value") and not m.boolean_value,
                         clear("boolean_value")),
        f"{dbirth}-match-edge-node-topic":
            r.every("DBIRTH", lambda p, _: p.topic.split("/")[1:4:2] == [GROUP, NODE],
                    h.put(topic=f"spBv1.0/{GROUP}/DBIRTH/other/pump")),
        "message-flow-device-birth-publish-nbirth-wait": r.first_is_birth(),
        f"{dbirth}-payload-seq": r.seq_next("DBIRTH"),
        "payloads-dbirth-order": r.births_together(),
        "principles-rbe-recommended": r.rarely(),
    }  # fmt: skip


def _deaths():
    return {
        "topics-ndeath-topic": r.form("NDEATH"),
        "topics-ndeath-payload":
            r.every("NDEATH", lambda _, said: [m.name for m in said.metrics] == ["bdSeq"],
                    h.edited(lambda said: said.metrics.add(name="x"))),
        "topics-ndeath-seq": r.no_seq("NDEATH"),
        "payloads-ndeath-seq": r.no_seq("NDEATH"),
        "payloads-ndeath-will-message-publisher": r.before_goodbye(0),
        "payloads-ndeath-will-message-publisher-disconnect-mqtt311": r.before_goodbye(4),
        "payloads-ndeath-will-message-publisher-disconnect-mqtt50": r.with_will(),
        "operational-behavior-edge-node-intentional-disconnect-ndeath": r.before_goodbye(0),
        "operational-behavior-edge-node-intentional-disconnect-packet": r.last_packet(),
        "payloads-ddeath-seq-number": r.has_seq("DDEATH"),
        "operational-behavior-device-ddeath": r.dies_with_its_link(),
    }  # fmt: skip


def _metrics():
    every = (*BIRTHS, *DATA)
    return {
        "payloads-timestamp-in-UTC": r.sent_now(*QOS0),
        "payloads-sequence-num-always-included": r.has_seq(*QOS0),
        "payloads-sequence-num-incrementing": r.seq_next(*QOS0),
        "payloads-name-requirement": r.named_or_aliased(),
        "payloads-alias-uniqueness": r.unique_aliases(),
        "payloads-alias-birth-requirement": r.named_and_aliased(),
        "payloads-alias-data-cmd-requirement":
            r.metrics(DATA, lambda m: m.HasField("alias") and not m.HasField("name"),
                      set_to("name", "x")),
        "payloads-name-birth-data-requirement":
            r.metrics(every, lambda m: m.HasField("timestamp"), clear("timestamp")),
        "payloads-name-cmd-requirement": r.fact("a write without its own time was done"),
        "payloads-metric-timestamp-in-UTC": r.metric_times(),
        "payloads-metric-datatype-value-type":
            r.metrics(BIRTHS, lambda m: m.HasField("datatype") and 0 < m.datatype < 2**32,
                      clear("datatype")),
        "payloads-metric-datatype-value":
            r.metrics(BIRTHS, lambda m: m.datatype in TYPES, set_to("datatype", 20)),
        "payloads-metric-datatype-req":
            r.metrics(BIRTHS, lambda m: m.HasField("datatype"), clear("datatype")),
        "payloads-metric-datatype-not-req":
            r.metrics(DATA, lambda m: not m.HasField("datatype"), set_to("datatype", 10)),
    }  # fmt: skip


def _properties():
    def drop_value(m):
        del m.properties.values[-1]

    def drop_key(m):
        del m.properties.keys[-1]

    def retype(value):
        return lambda m: setattr(m.properties.values[-1], "type", value)

    def quality(m):
        return dict(zip(m.properties.keys, m.properties.values, strict=True))["Quality"]

    def equal(m):
        return len(m.properties.keys) == len(m.properties.values)

    def typed(m):
        return all(v.HasField("type") for v in m.properties.values)

    def has_quality(m):
        return "Quality" in m.properties.keys

    every = (*BIRTHS, *DATA)
    return {
        "payloads-propertyset-keys-array-size": r.properties(equal, drop_key),
        "payloads-propertyset-values-array-size": r.properties(equal, drop_value),
        "payloads-metric-propertyvalue-type-type":
            r.properties(typed, lambda m: m.properties.values[-1].ClearField("type")),
        "payloads-metric-propertyvalue-type-value":
            r.properties(lambda m: all(v.type in {*range(1, 22)} for v in m.properties.values),
                         retype(99)),
        "payloads-metric-propertyvalue-type-req":
            r.properties(typed, lambda m: m.properties.values[-1].ClearField("type"), BIRTHS),
        "payloads-propertyset-quality-value-type":
            r.metrics(every, lambda m: quality(m).type == INT32,
                      lambda m: setattr(quality(m), "type", 7), has_quality),
        "payloads-propertyset-quality-value-value":
            r.metrics(every, lambda m: quality(m).HasField("int_value")
                      and proto.properties(m)["Quality"] in {0, 192, 500},
                      lambda m: setattr(quality(m), "int_value", 193), has_quality),
    }  # fmt: skip


def _commands():
    found = {}
    for kind, full in (("NCMD", NCMD), ("DCMD", f"{DCMD}pump")):
        low = kind.lower()
        timed = r.arrives(kind, lambda _, said: said.HasField("timestamp"),
                          h.edited(clear("timestamp")))  # fmt: skip
        listed = r.arrives(kind, lambda _, said: said.metrics, h.put(payload=b"\x08\x01"))
        plain = r.arrives(kind, lambda p, _: not p.retain, h.put(retain=True))
        named = r.arrives(kind, lambda p, _, f=full: p.topic == f, h.put(topic=f"x/{kind}/y"))
        at_most = r.arrives(kind, lambda p, _: p.qos == 0, h.put(qos=1))
        slug = f"operational-behavior-data-commands-{low}"
        found |= {
            f"topics-{low}-topic": named, f"topics-{low}-mqtt": at_most,
            f"topics-{low}-timestamp": timed, f"topics-{low}-payload": listed,
            f"payloads-{low}-timestamp": timed, f"payloads-{low}-qos": at_most,
            f"payloads-{low}-retain": plain,
            f"payloads-{low}-seq": r.arrives(kind, lambda _, said: not said.HasField("seq"),
                                             h.edited(set_to("seq", 1))),
            f"{slug}-verb": named,
            f"{slug}-metric-name": r.fact(f"an unknown metric was ignored, {kind}",
                                          "nothing else was done"),
            f"{slug}-metric-value": r.fact("a wrong value was refused", "nothing else was done"),
        }  # fmt: skip
    slug = "operational-behavior-data-commands"
    return found | {
        f"{slug}-ncmd-rebirth-verb":
            r.rebirth_asked(lambda p, _: p.topic == NCMD, h.put(topic=f"{DCMD}pump")),
        f"{slug}-ncmd-rebirth-name":
            r.rebirth_asked(lambda _, m: m.name == "Node Control/Rebirth",
                            h.edited_metric(set_to("name", "Device Control/Rebirth"))),
        f"{slug}-ncmd-rebirth-value":
            r.rebirth_asked(lambda _, m: m.boolean_value,
                            h.edited_metric(set_to("boolean_value", False))),
        f"{slug}-rebirth-action-1": r.stops_data(),
        f"{slug}-rebirth-action-2": r.births_again(),
        f"{slug}-rebirth-action-3": r.same_session(),
    }  # fmt: skip


def _host():
    phid, many = "message-flow-edge-node-birth-publish-phid", "multiple-servers"
    state = f"operational-behavior-primary-application-state-with-{many}"
    end = "operational-behavior-edge-node-termination-host-offline"
    return {
        f"{phid}-wait": r.waits(), f"{phid}-wait-id": r.waits_for_its_own(),
        f"{phid}-wait-online": r.waits_for_online(), f"{phid}-wait-timestamp": r.waits_for_newer(),
        f"{phid}-offline": r.dies_with_its_host(), end: r.leaves_without_its_host(),
        f"{end}-reconnect": r.comes_again(), f"{end}-timestamp": r.stays(),
        f"{state}-state-subs": r.subscribed(h.STATE), f"{state}-single-server": r.one_server(),
        f"{state}-walk": r.walks(),
        "operational-behavior-edge-node-birth-sequence-wait": r.waits_for_online(),
    }  # fmt: skip


def _rows():
    text = Path(__file__).with_name("statements.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


def _statements():
    checks = _common() | _names() | _session() | _births() | _deaths() | _metrics()
    checks |= _properties() | _commands() | _host()
    found = {}
    for name, word, text in _rows():
        if name.startswith("payloads-dataset") or name == "payloads-template-dataset-value":
            check, why_not = r.never((16,)), NO_DATASET
        elif name.startswith("payloads-template") or name == "topics-nbirth-templates":
            check, why_not = r.never((19,)), NO_TEMPLATE
        else:
            check, why_not = checks[name], ""
        found[f"tck-id-{name}"] = Statement(f"tck-id-{name}", word, text, check, why_not)
    return found


STATEMENTS = _statements()
