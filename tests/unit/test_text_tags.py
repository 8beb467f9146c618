"""Texts and codes on their way out: rows, history, births, reports by exception, the page."""

import json
import zlib

import numpy as np

from agent.cli.page import page
from agent.codecs import json as codec
from agent.core.alarms import AlarmSpec, AlarmTable
from agent.core.batch import Batch
from agent.core.ports import Lane, Stored
from agent.core.quality import Quality
from agent.core.tag import Tag, TagSet
from agent.core.texts import Texts
from agent.runtime.thin import Thin
from agent.storage.rows import _tags_text, tags_of
from simulators.messages import violations
from tests.contracts import problems

TAGS = TagSet(
    (
        Tag("d/flow", "L/min"),
        Tag("d/lot", kind="text"),
        Tag("d/state", enum=((0, "off"), (1, "running"))),
    )
)


def batch(texts, *lots):
    """One row per lot; None is a lot that could not be read."""
    codes = [np.nan if lot is None else texts.code("d/lot", lot) for lot in lots]
    n = len(lots)
    v = np.column_stack([np.arange(n) + 0.5, codes, np.ones(n)])
    q = np.full((n, 3), Quality.GOOD, np.uint8)
    q[[lot is None for lot in lots], 1] = Quality.BAD_COMM
    return Batch("d", TAGS, np.arange(n) + 1_700_000_000 * 10**9, v, q)


def stored(one):
    return Stored("d", "9f3a12c4", 7, 1, len(one), Lane.LIVE, one)


def test_a_row_has_the_text():
    """Text is put back where the row leaves; a code with a meaning stays a number."""
    texts = Texts()
    one = batch(texts, "LOT 7/ä")
    payload = codec.row(stored(one), one, texts)
    assert json.loads(payload)["values"] == {"flow": 0.5, "lot": "LOT 7/ä", "state": 1.0}
    assert problems("p/g/data/d", payload) == violations("p/g/data/d", payload) == []


def test_history_has_the_texts():
    """The same by column: null where Bad, each row its own text."""
    texts = Texts()
    one = batch(texts, "A", None, "B", "A")
    payload = codec.history(stored(one), one, texts)
    body = json.loads(zlib.decompress(payload))
    assert body["values"]["lot"] == ["A", None, "B", "A"]
    assert body["values"]["state"] == [1.0] * 4
    assert body["bad"] == {"lot": {"bad_comm": [1]}}
    assert problems("p/g/history/d", payload) == []


def test_a_forgotten_text_is_said_to_be_missing():
    """A code whose text is gone is no value: null, and the quality says so."""
    texts, others = Texts(), Texts()
    one = batch(texts, "A", "B")
    others.code("d/lot", "A")
    body = json.loads(codec.row(stored(one), one, others))
    assert (body["values"]["lot"], body["bad"]) == (None, {"lot": "bad"})
    late = json.loads(zlib.decompress(codec.history(stored(one), one, others)))
    assert late["values"]["lot"] == ["A", None]
    assert late["bad"] == {"lot": {"bad": [1]}}
    assert (one.q == Quality.GOOD).all()


def test_the_birth_tells_texts_and_codes():
    """A consumer learns which columns are texts, and what each code means."""
    payload = codec.birth("d", TAGS)
    tags = json.loads(payload)["tags"]
    assert [t["type"] for t in tags.values()] == ["float64", "text", "float64"]
    assert tags["state"]["text"] == {"0": "off", "1": "running"}
    assert "text" not in tags["flow"]
    assert problems("p/g/_birth/d", payload) == []


def test_kind_and_meaning_are_part_of_the_schema_and_survive_the_journal():
    """Another meaning is another schema id; plain streams keep the id that they had."""
    plain = TagSet((Tag("d/flow", "L/min"),))
    assert plain.schema_id == TagSet((Tag("d/flow", "L/min", 0, 9),)).schema_id
    meant = TagSet((Tag("d/flow", "L/min", enum=((0, "off"),)),))
    assert len({plain.schema_id, meant.schema_id, TAGS.schema_id}) == 3
    for tags in (plain, meant, TAGS):
        back = tags_of(_tags_text(tags))
        assert (back, back.texts, back.schema_id) == (tags, tags.texts, tags.schema_id)


def test_a_text_passes_the_report_filter_when_it_changes():
    """With ``report: change`` a text travels when it is another one, not with every scan."""
    texts, thin = Texts(), Thin()
    only = TagSet((Tag("d/lot", kind="text"),))
    passed = []
    for i, lot in enumerate(["A", "A", "A", "B", "B", "A", "A"]):
        v = np.array([[texts.code("d/lot", lot)]])
        one = Batch("d", only, np.array([i]), v, np.array([[192]], np.uint8))
        if sent := thin(Stored("d", "9f3a12c4", 7, i + 1, i + 1, Lane.LIVE, one)):
            passed.append((sent.first, sent.last))
    assert passed == [(1, 1), (2, 4), (5, 6)]


def test_an_alarm_about_a_text_has_no_number():
    """A text that is Bad for too long has its alarm; its code is never given out as a value."""
    table = AlarmTable("d", TAGS, [AlarmSpec("d.lot.bad", "d/lot", "bad_too_long")])
    t, v = np.array([1, 2]), np.array([[0.5, np.nan, 1.0], [0.5, 3.0, 1.0]])
    q = np.array([[192, 24, 192], [192, 192, 192]], np.uint8)
    events = table.scan(t, v, q)
    assert [(e.active, np.isnan(e.value)) for e in events] == [(True, True), (False, True)]


def test_the_page_shows_texts_and_what_codes_mean():
    """A technician reads the word; the code stands behind it; a long text is cut."""
    facts = {"unit": "", "q": "good", "age_s": 1.0}
    shown = page(
        {"tags": {
            "d/lot": facts | {"value": "LOT 7" + "7" * 60},
            "d/state": facts | {"value": 1.0, "text": "running"},
        }},
        colours=False,
    )  # fmt: skip
    assert "running (1)" in shown
    assert "LOT 77777" in shown
    assert "7" * 40 not in shown
