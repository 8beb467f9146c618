"""Drift samples: which rows, joined how, in which form; and the signature that goes with them."""

import base64
import hashlib
import hmac

import numpy as np
import pytest

from agent.core.errors import ConfigError, TransientError
from agent.core.quality import Quality
from agent.links.webhook import signature
from agent.storage import samples
from agent.storage.historian import Piece
from agent.storage.samples import Wanted

S = 10**9


class Shelf:
    """The part of `Historian` that is asked: pieces of tags."""

    def __init__(self, **tags):
        self.tags = tags

    def pieces(self, tag, begin, end):
        t, v, q = self.tags[tag]
        inside = (t >= begin) & (t < end)
        half = len(t) // 2
        for part in (slice(0, half), slice(half, None)):
            yield Piece(t[part][inside[part]], v[part][inside[part]], q[part][inside[part]])


def column(n, every=1, bad=()):
    """Samples 0, *every*, 2 *every* ... s; the value is the time in s."""
    t = np.arange(0, n, every, dtype=np.int64) * S
    q = np.full(len(t), Quality.GOOD, np.uint8)
    for i, code in dict(bad).items():
        q[i] = code
    return t, t / S, q


def wanted(spans, rows=1000, tags=("a", "b"), **more):
    return Wanted(tags, tags, [(x * S, y * S) for x, y in spans], rows, **more)


def test_only_good_rows_of_the_spans_are_taken_oldest_first():
    """Held, substituted and Bad values, and what lies between the spans, are no lesson."""
    bad = {12: Quality.UNCERTAIN_LAST, 13: Quality.SUBSTITUTED, 14: Quality.BAD}
    shelf = Shelf(a=column(100), b=column(100, bad=bad | {15: Quality.UNCERTAIN_RANGE}))
    t, v = samples.rows(shelf, wanted([(10, 16), (50, 60)], rows=6))

    assert (t // S).tolist() == [10, 11, 15, 16, 50, 51]
    assert np.array_equal(v[:, 0], t / S)


def test_a_slower_stream_counts_as_last_known():
    """The input with the most samples says when a row is; before the first of another there is
    none.
    """
    shelf = Shelf(a=column(40), b=column(40, every=10))
    t, v = samples.rows(shelf, wanted([(5, 25)]))

    assert (t // S).tolist() == list(range(10, 26))
    assert v[:, 1].tolist() == [10.0] * 10 + [20.0] * 6


def test_a_wide_model_has_fewer_rows():
    """A sample stays a file that can be sent."""
    tags = ("a",) * 5_000
    t, _ = samples.rows(Shelf(a=column(300)), wanted([(0, 299)], tags=tags))
    assert len(t) * len(tags) == samples.MAX_VALUES


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_file_says_which_rows_are_suspect(tmp_path, form):
    """In both forms the same rows, by the names of the channels."""
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'edge-agentd[export]'")
    asked = wanted([(0, 8)], suspect_ns=6 * S, form=form)
    facts = samples.write(Shelf(a=column(9), b=column(9)), tmp_path, "e1", asked)
    path = tmp_path / facts["file"]

    assert (facts["rows"], facts["suspect_rows"], facts["format"]) == (9, 3, form)
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["bytes"] == path.stat().st_size
    if form == "csv":
        lines = path.read_text().splitlines()
        assert lines[0] == "time,a,b,suspect"
        assert [line[-1] for line in lines[1:]] == list("000000111")
    else:
        table = parquet.read_table(path).to_pydict()
        assert table["suspect"] == [False] * 6 + [True] * 3
        assert table["b"] == [float(i) for i in range(9)]
    samples.remove(tmp_path, facts["file"])
    assert not path.exists()


def test_what_a_crash_left_behind_goes_in_the_end(tmp_path):
    """A sample whose event was never written is deleted by those that come after it."""
    shelf = Shelf(a=column(9), b=column(9))
    for n in range(samples.MOST + 2):
        assert samples.write(shelf, tmp_path, f"e{n}", wanted([(0, 8)]))
    left = {path.name for path in (tmp_path / samples.FOLDER).iterdir()}
    assert left == {f"e{n}.csv" for n in range(2, samples.MOST + 2)}


def test_what_cannot_be_written_has_a_code(tmp_path):
    """A disk that refuses is not the end of the watch: the event goes without its sample."""
    (tmp_path / samples.FOLDER).write_text("in the way")
    shelf = Shelf(a=column(9), b=column(9))
    with pytest.raises(TransientError, match="E679"):
        samples.write(shelf, tmp_path, "e1", wanted([(0, 8)]))
    assert samples.write(shelf, tmp_path, "e1", wanted([(20, 28)])) is None


def test_a_webhook_is_signed_as_its_standard_says():
    """The example of Standard Webhooks; a secret may be any text as well."""
    secret, body = (
        "whsec_plJ3nmyCDGBKInavdOK15jsl",
        b'{"event_type":"ping","data":{"success":true}}',
    )
    said = signature(secret, "msg_loFOjxBNrRLzqYUf", 1731705121, body)
    assert said == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="

    text = signature("correct horse", "e", 1, b"x")
    plain = hmac.new(b"correct horse", b"e.1.x", hashlib.sha256).digest()
    assert text == "v1," + base64.b64encode(plain).decode()
    with pytest.raises(ConfigError, match="E677"):
        signature("whsec_not base64", "e", 1, b"x")
