"""The power is cut at any instant, and the disk keeps any part of what was not synced."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.crash.disk import STYLES, Disk
from tests.crash.model import cut
from tests.crash.mutants import MUTANTS
from tests.crash.trace import Event, record

pytestmark = pytest.mark.needs("strace")
STEPS = 120
MANY = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two lives of a writer, as its disk saw them."""
    return record(tmp_path_factory.mktemp("recorded"), seed=1, steps=STEPS)


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, 10**6), style=st.sampled_from(STYLES), seed=st.integers(0, 2**16))
@example(where=10**6, style="none", seed=0)
def test_every_state_after_a_cut_keeps_every_promise(recorded, where, style, seed):
    """Nothing that was reported durable is missing, names are new, and it starts and goes on."""
    assert cut(recorded, where * len(recorded) // 10**6, style, seed) == []


@pytest.mark.parametrize(
    "mutant", [m if m == "normal" else pytest.param(m, marks=MANY) for m in MUTANTS]
)
def test_a_broken_build_is_caught(tmp_path, mutant):
    """The same cuts find a loss in a build that is broken on purpose, or they prove nothing."""
    events = record(tmp_path, seed=1, steps=STEPS, mutant=mutant)
    rng = random.Random(1)
    assert any(
        cut(events, rng.randrange(len(events) + 1), rng.choice(STYLES), n) for n in range(60)
    )


@pytest.mark.parametrize(
    ("style", "found"),
    [("none", b"old."), ("all", b"new!"), ("sizes", b"old.\0\0\0\0"), ("torn", None)],
)
def test_what_was_not_synced_may_be_lost(tmp_path, style, found):
    """A synced write stays; a later one is there, is not there, or only its size is."""
    disk = Disk()
    later = Event("write", "f", b"new!", 4 if style == "sizes" else 0)
    disk.play([Event("create", "f"), Event("write", "f", b"old."), Event("sync", "f"),
               Event("sync", ""), later])  # fmt: skip
    disk.image(tmp_path / "d", style, random.Random(0))
    left = (tmp_path / "d" / "f").read_bytes()
    assert left == found or (found is None and left in {b"old.", b"new!"})


def test_a_name_is_there_once_its_folder_is_synced(tmp_path):
    """A file can be synced and yet not be found; an unlinked one may be there again."""
    disk = Disk()
    disk.play([Event("create", "a"), Event("sync", ""), Event("create", "b")])
    disk.play([Event("write", "b", b"x"), Event("sync", "b"), Event("rename", "a", to="c")])
    disk.image(tmp_path / "d", "none", random.Random(0))
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["a"]
    disk.play([Event("sync", "")])
    disk.image(tmp_path / "e", "none", random.Random(0))
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == ["b", "c"]
