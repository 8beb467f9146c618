"""What is remembered of a model's versions."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.registry import Artifact
from agent.runtime.life import MAX_VERSIONS, Release, Version
from agent.runtime.releases import NAMESPACE, Releases
from agent.runtime.stages import MOVES, OUT, Stage
from tests.tools import ManualClock


class Memory:
    """Ports `StateStore` and `AuditTrail` in memory."""

    def __init__(self):
        self.values, self.writes, self.rows = {}, 0, []

    def get(self, ns, key):
        return self.values.get((ns, key))

    def items(self, ns):
        return {k: v for (n, k), v in self.values.items() if n == ns}

    async def put(self, ns, key, value):
        self.writes += 1
        self.values[ns, key] = value

    async def change(self, rows, actor, ns, key, value):
        self.rows += [(kind, actor, facts["from"]) for kind, facts in rows]
        self.values[ns, key] = value


class Files:
    """The part of port `ArtifactStore` that is asked here."""

    def path(self, digest):
        return Path(f"/m/{digest}.onnx")


@pytest.fixture
def releases():
    memory = Memory()
    return Releases(memory, memory, Files(), ManualClock())


def version(n, signer=""):
    digest = f"{n:064x}"
    return Artifact("m", str(n), n, digest, Path(f"/m/{digest}.onnx"), "", signer)


def served(release, n, at_ns, stage=Stage.ACTIVE):
    """*release* after version n went all its way."""
    found = release.discovered(version(n), at_ns).release
    return found.taken(version(n).digest, stage, at_ns).release


async def test_what_is_written_is_read_back(releases):
    """Every fact survives."""
    release = replace(
        served(served(Release(), 1, 5), 2, 6).discovered(version(3, "key"), 7).release,
        last_error="why", out="5", highest=4, pinned=version(2).digest, held=True,
    )  # fmt: skip
    digest = version(3).digest
    release = release.changed(digest, tries=2, elapsed_s=1.5, reason="r", evidence={"x": [1]})
    await releases.put("m", release)
    assert releases.get("m") == release


async def test_nothing_new_is_not_written(releases):
    """Polls that find nothing cost no write: flash wears."""
    await releases.mark("m", last_error="x")
    writes = releases._state.writes
    await releases.mark("m", last_error="x")
    assert releases._state.writes == writes


async def test_each_move_is_one_row_of_the_trail(releases):
    """What serves and what it replaces move together, and the trail has both."""
    for n in (1, 2):
        found = releases.get("m").discovered(version(n), n)
        await releases.move("m", found)
        taken = releases.get("m").taken(version(n).digest, Stage.ACTIVE, n)
        await releases.move("m", taken, "mia")
    assert releases._audit.rows == [
        ("model.discovered", "agent", None),
        ("model.active", "mia", "discovered"),
        ("model.discovered", "agent", None),
        ("model.retired", "mia", "active"),
        ("model.active", "mia", "discovered"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        None, [], "x", 1, {}, {"active": 1}, {"active": {"version": "1"}},
        {"active": {"version": "1", "release": 1, "digest": "../../etc/passwd"}},
        {"blocked": 7, "stage": "nonsense", "tries": "many", "last_error": None, "out": None},
        {"blocked": [1, None, "x"]}, {"versions": 7}, {"versions": [1, {}, {"stage": "active"}]},
        {"versions": [{"version": "1", "release": 1, "digest": "ab" * 32, "stage": "odd"}]},
    ],
)  # fmt: skip
def test_what_makes_no_sense_counts_as_not_known(releases, value):
    """A file that was touched, or comes from another release, cannot stop the agent."""
    releases._state.values[NAMESPACE, "m"] = value
    assert releases.get("m") == Release()


def test_two_versions_never_serve(releases):
    """A file that was touched: of two active ones the newer counts."""
    one = {"stage": "active"}
    both = [{"version": str(n), "release": n, "digest": version(n).digest} | one for n in (1, 2)]
    releases._state.values[NAMESPACE, "m"] = {"versions": both}
    assert [v.artifact.version for v in releases.get("m").versions] == ["2"]


@pytest.mark.parametrize(
    ("old", "stage"),
    [("fetched", "verified"), ("trying", "verified"), ("refused", "rejected"), ("x", "rejected")],
)
def test_the_state_of_an_older_agent_is_understood(releases, old, stage):
    """What served serves, the way back stays, and what was blocked stays so."""
    facts = [{"version": str(n), "release": n, "digest": version(n).digest} for n in range(5)]
    releases._state.values[NAMESPACE, "m"] = {
        "active": facts[3], "previous": facts[2], "candidate": facts[4], "stage": old,
        "blocked": [version(1).digest], "tries": 2, "highest": 3, "out": "1", "last_error": "e",
    }  # fmt: skip
    release = releases.get("m")
    assert release.active == version(3)
    assert release.previous.artifact == version(2)
    assert (release.newest.artifact, str(release.newest.stage)) == (version(4), stage)
    assert release.newest.tries == 2
    assert release.blocked == (version(1).digest,)
    assert (release.highest, release.out, release.last_error) == (3, "1", "e")


def test_a_version_in_service_keeps_the_one_before():
    """Taken: the rollback target is what served; files of older ones may go."""
    release = served(served(served(Release(), 1, 1), 2, 2), 3, 3)
    assert (release.active, release.previous.artifact) == (version(3), version(2))
    assert release.tidied(1).digests() == {version(n).digest for n in (2, 3)}
    assert release.tidied(2).digests() == {version(n).digest for n in (1, 2, 3)}


def test_a_way_back_leads_to_no_blocked_version():
    """What failed is never the target of a rollback, nor one whose file is gone."""
    release = served(served(Release(), 1, 1), 2, 2).returned(3, "bad").release
    assert (release.active, release.previous, release.out) == (version(1), None, "2")
    assert release.blocked == (version(2).digest,)
    again = served(release, 3, 4)
    assert (again.previous.artifact, again.out) == (version(1), "")
    assert served(again, 2, 5).blocked == ()
    gone = served(again, 4, 6).tidied(1).returned(7, "bad").release
    assert (gone.active, gone.previous) == (version(3), None)


def test_a_probation_leaves_the_active_version_where_it_was():
    """Going back needs nothing but its end; going on retires what served before."""
    trying = served(served(Release(), 1, 1), 2, 2, Stage.PROBATION)
    assert (trying.active, trying.previous.artifact) == (version(2), version(1))
    back = trying.returned(3, "bad")
    assert [str(m.version.stage) for m in back.moves] == ["rolled_back"]
    assert back.release.active == version(1)
    on = trying.taken(version(2).digest, Stage.ACTIVE, 3).release
    assert (on.active, on.previous.artifact) == (version(2), version(1))


def test_a_probation_after_a_probation_leads_back_to_it():
    """The very first version was still watched when the next one took over: it is the way back."""
    first = served(Release(), 1, 1, Stage.PROBATION)
    trying = served(first, 2, 2, Stage.PROBATION).tidied(1)
    assert (trying.active, trying.previous.artifact) == (version(2), version(1))
    assert trying.returned(3, "bad").release.active == version(1)
    assert first.returned(2, "bad").release.active is None


def test_an_operator_who_goes_back_took_nothing_out():
    """A rollback is a wish, not a failure: no alarm stands for it."""
    release = served(served(Release(), 1, 1), 2, 2).returned(3, "wish", failed=False).release
    assert (release.newest.stage, release.out) == (Stage.ROLLED_BACK, "")


def test_the_last_version_that_fails_leaves_nothing():
    """Without one to go back to nothing serves."""
    release = served(Release(), 1, 1).returned(2, "bad").release
    assert (release.active, release.newest.stage, release.out) == (None, Stage.ROLLED_BACK, "1")


def test_a_newer_version_supersedes_one_that_waits():
    """A candidate in shadow never keeps a newer one out; it is no way back either."""
    release = served(Release(), 1, 1).discovered(version(2), 2).release
    release = release.moved(version(2).digest, Stage.SHADOW, 3).release
    release = release.discovered(version(3), 4).release
    old = release.find(version(2).digest)
    assert (old.stage, old.reason, old.kept) == (Stage.RETIRED, "superseded by 3", False)
    assert release.candidate.artifact == version(3)
    taken = release.taken(version(3).digest, Stage.ACTIVE, 5).release
    assert taken.previous.artifact == version(1)


def test_the_list_of_versions_is_bounded():
    """The oldest without a file is forgotten first."""
    release = Release()
    for n in range(MAX_VERSIONS + 5):
        release = served(release, n, n).returned(n, "bad", failed=False).release.tidied(1)
    assert len(release.versions) == MAX_VERSIONS
    assert version(MAX_VERSIONS + 4).digest in release.blocked


@pytest.mark.parametrize("before", list(Stage))
def test_no_move_but_those_of_the_table(before):
    """A way back through the stages does not exist; what is out comes back as discovered."""
    for after in Stage:
        release = Release((Version(version(1), before, 0),))
        if after in MOVES[before]:
            assert release.moved(version(1).digest, after, 1).release.newest.stage is after
        else:
            with pytest.raises(ValueError, match="moves from"):
                release.moved(version(1).digest, after, 1)
    assert Stage.VERIFIED not in MOVES[before] or before not in OUT


async def test_files_of_every_model_stay(releases):
    """What is kept of all models stays, also of those not configured now."""
    await releases.put("m", served(served(Release(), 1, 1), 2, 2).discovered(version(3), 3).release)
    await releases.put("gone", served(Release(), 4, 4))
    assert releases.digests() == {version(n).digest for n in (1, 2, 3, 4)}
