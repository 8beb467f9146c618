"""Sealed blocks: lossless for any column, small for a plant's, guarded part by part."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.codecs import block, sealed
from agent.codecs.block import BadBlock, Columns

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "journal"
T0 = 1_700_000_000_000_000_000


def columns(v, q=None, **more):
    t = np.arange(len(v), dtype=np.int64) * 1_000_000_007 + T0
    return Columns(t, v, np.full(v.shape, 192, np.uint8) if q is None else q, **more)


def back(c, facts=b"{}"):
    got = sealed.unseal(sealed.at(sealed.seal(c, facts)))
    assert got.facts == facts
    return got.columns()


def same(a, b):
    assert a.v.tobytes() == b.v.tobytes()
    for name in ("t", "q", "late", "window", "lead"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None and y is None) or np.array_equal(x, y), name


@given(st.data())
def test_any_floats_survive(data):
    """NaN payloads, infinities, -0.0, subnormals, any time and quality come back bit for bit."""
    n, k = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 5))
    c = Columns(
        data.draw(arrays(np.int64, n)),
        data.draw(arrays(np.float64, (n, k))),
        data.draw(arrays(np.uint8, (n, k))),
        data.draw(st.none() | arrays(np.bool_, n)),
        data.draw(st.none() | arrays(np.int64, n)),
        data.draw(st.none() | arrays(np.int64, n)),
    )
    same(back(c), c)


@given(st.data(), st.integers(0, 9), st.integers(0, 3))
def test_scaled_registers_survive_whatever_the_form(data, digits, form):
    """Registers by a power of ten, in four arithmetics, with odd values among them."""
    raw = data.draw(arrays(np.int32, (40, 3))).astype(float)
    v = raw / float(f"1e{digits}") if form % 2 else raw * float(f"1e-{digits}")
    v = v.astype(np.float32).astype(float) if form >= 2 else v
    odd = data.draw(st.lists(st.tuples(st.integers(0, 39), st.floats()), max_size=4))
    for row, value in odd:
        v[row, 0] = value
    same(back(columns(v)), columns(v))


@pytest.mark.parametrize("form", ["/", "*", "/ f32", "* f32"])
def test_each_form_is_recognised(form):
    """Either arithmetic, also rounded to float32, becomes integers: below 1 byte per sample."""
    rng = np.random.default_rng(5)
    raw = np.round(4000 + np.cumsum(rng.normal(0, 2, (600, 20)), axis=0))
    v = raw / 100.0 if form[0] == "/" else raw * 0.01
    v = v.astype(np.float32).astype(np.float64) if "f32" in form else v
    assert len(sealed.seal(columns(v), b"")) < 0.8 * v.size
    same(back(columns(v)), columns(v))


def test_an_outage_does_not_cost_the_scale():
    """Rows without a value, and one that is no multiple, stand beside the integers."""
    rng = np.random.default_rng(5)
    v = np.round(400 + np.cumsum(rng.normal(0, 2, (600, 10)), axis=0)) * 0.1
    clean = len(sealed.seal(columns(v), b""))
    v[:90] = np.nan
    v[300, 2] = 1 / 3
    q = np.where(np.isnan(v), 24, 192).astype(np.uint8)
    assert len(sealed.seal(columns(v, q), b"")) < 1.3 * clean
    same(back(columns(v, q)), columns(v, q))


def test_float32_takes_four_bytes():
    """What a model answers is float32, and is kept as such."""
    v = np.random.default_rng(1).normal(size=(600, 4)).astype(np.float32).astype(np.float64)
    assert len(sealed.seal(columns(v), b"")) < 4.3 * v.size
    same(back(columns(v)), columns(v))


def test_one_column_is_read_alone():
    """A column is read without a byte of the others, and damage elsewhere does not concern it."""
    v = np.random.default_rng(1).normal(size=(600, 5))
    blob = bytearray(sealed.seal(columns(v), b"{}"))
    blob[-1] ^= 1  # in the last column
    read: list[tuple[int, int]] = []

    def some(start, length):
        read.append((start, length))
        return bytes(blob[start : start + length])

    got = sealed.unseal(some)
    assert got.column(1)[0].tobytes() == v[:, 1].tobytes()
    assert sum(length for _, length in read) < len(blob) / 3
    with pytest.raises(BadBlock):
        got.column(4)


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_one_flipped_bit_is_found(at, bit):
    """A block with a single wrong bit, anywhere, is refused, never read as other values."""
    c = columns(np.random.default_rng(1).normal(size=(9, 3)).round(1))
    blob = bytearray(sealed.seal(c, b'{"stream": "pump"}'))
    blob[at % len(blob)] ^= 1 << bit
    with pytest.raises(BadBlock):
        sealed.unseal(sealed.at(bytes(blob))).columns()


def test_a_boot_time_clock_costs_next_to_nothing():
    """A lead that stays, or is slewed by 50 ppm, is far below a hundredth of a byte per sample."""
    v = np.round(np.random.default_rng(1).normal(size=(600, 20)), 2)
    bare = len(sealed.seal(columns(v), b""))
    stays = np.full(600, 1_700_000_000_123)
    for lead in (stays, stays + np.arange(600) // 20):
        assert len(sealed.seal(columns(v, lead=lead), b"")) - bare < v.size / 100


def golden(lead=None):
    """The rows of the golden files: every form, odd values, late rows, windows, leads."""
    n = 40
    i = np.arange(n)
    v = np.stack([i * 1.0, i * 0.1, i / 10, i / 3, (i * 0.5).astype(np.float32) / 7.0], axis=1)
    v[:, 4] = v[:, 4].astype(np.float32)
    v[3, 0], v[4, 1], v[5, 2], v[6, 3] = np.nan, -np.inf, -0.0, 5e-324
    q = np.full(v.shape, 192, np.uint8)
    q[3, 0] = 16
    return Columns(T0 + i * 10**9 + i % 3, v, q, i % 9 == 4, T0 - i * 10**6, lead)


LEAD = 1_699_990_000_000 + np.where(np.arange(40) < 17, np.arange(40) // 5, 3_600_000)
"""A slew, and a step of an hour: since head 2 and sealed 3."""


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("[hs]e*.gz")), ids=lambda p: p.name)
def test_old_versions_are_read_for_ever(path):
    """Blocks as each version wrote them: these files are only ever added to."""
    blob = gzip.decompress(path.read_bytes())
    rows = golden(None if path.name in {"head-1.gz", "sealed-2.gz"} else LEAD)
    if path.name.startswith("head-"):
        same(block.decode(blob, b"pump\n7\n1"), rows)
    else:
        got = sealed.unseal(sealed.at(blob))
        assert got.facts == b'{"stream":"pump","epoch":7,"first":1}'
        same(got.columns(), rows)


def test_this_version_has_a_golden_file():
    """A new version comes with the file that proves, later, that it is still read."""
    names = {p.name for p in GOLDEN.glob("*.gz")}
    assert {f"head-{block.VERSION}.gz", f"sealed-{sealed.VERSION}.gz"} <= names
