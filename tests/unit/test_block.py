"""Blocks: lossless, guarded by a checksum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.codecs.block import BadBlock, Columns, decode, encode

shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def _columns(v, q=None, **more):
    t = np.arange(len(v), dtype=np.int64) * 1_000_000_007 + 1_700_000_000_000_000_000
    return Columns(t, v, np.full(v.shape, 192, np.uint8) if q is None else q, **more)


def _same(a, b):
    assert np.array_equal(a.t, b.t)
    assert a.v.tobytes() == b.v.tobytes()
    assert np.array_equal(a.q, b.q)
    for name in ("late", "window", "lead"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None and y is None) or np.array_equal(x, y)


@given(st.data())
def test_any_floats_survive(data):
    """NaN payloads, infinities, -0.0 and subnormals come back bit for bit."""
    shape = data.draw(shapes)
    v = data.draw(arrays(np.float64, shape))
    q = data.draw(arrays(np.uint8, shape))
    c = _columns(v, q)
    _same(decode(encode(c, b"k"), b"k"), c)


@given(st.data(), st.sampled_from([1.0, 0.1, 0.01, 0.001, 0.25, 1e9]), st.booleans())
def test_scaled_registers_survive(data, scale, divide):
    """Registers times a scale, by either arithmetic, come back bit for bit."""
    raw = data.draw(arrays(np.int32, (10, 8))).astype(float)
    v = raw / (1 / scale) if divide else raw * scale
    _same(decode(encode(_columns(v), b"k"), b"k"), _columns(v))


def test_late_and_window_columns_survive():
    """Rows that came late, the oldest time in a model's window, and the lead of each time over the
    boot-time clock are parts of a block, each with the others or without.
    """
    late, window = np.array([True, False, True]), np.array([5, 6, 7], np.int64)
    for lead in ([8, 8, 8], [8, -(2**62), 2**62]):
        parts = {"late": late, "window": window, "lead": np.array(lead)}
        for some in (parts, *({name: part} for name, part in parts.items())):
            c = _columns(np.ones((3, 2)), **some)
            _same(decode(encode(c, b""), b""), c)


def test_registers_become_small():
    """A scan of slowly moving registers takes far less than its floats."""
    rng = np.random.default_rng(3)
    v = (rng.integers(0, 4000, 1000) + np.cumsum(rng.integers(-2, 3, (50, 1000)), axis=0)) * 0.1
    assert len(encode(_columns(v), b"")) < v.nbytes / 12


@pytest.mark.parametrize("at", [0, 3, 20, 60, -1])
def test_one_flipped_bit_is_found(at):
    """A block with a single wrong bit is refused, never read as other values."""
    blob = bytearray(encode(_columns(np.random.default_rng(1).normal(size=(5, 5))), b"k"))
    blob[at] ^= 1
    with pytest.raises(BadBlock):
        decode(bytes(blob), b"k")


def test_a_block_belongs_to_its_key():
    """A block that stands under another row's name is refused."""
    blob = encode(_columns(np.zeros((2, 2))), b"pump1 7")
    with pytest.raises(BadBlock):
        decode(blob, b"pump1 8")
    with pytest.raises(BadBlock):
        decode(blob[:9], b"pump1 7")
