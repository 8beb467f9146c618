"""What is remembered of a model's versions."""

from pathlib import Path

import pytest

from agent.core.registry import Artifact
from agent.runtime.releases import MAX_BLOCKED, NAMESPACE, Release, Releases, Stage


class Memory:
    """Port `StateStore` in memory."""

    def __init__(self):
        self.values, self.writes = {}, 0

    def get(self, ns, key):
        return self.values.get((ns, key))

    def items(self, ns):
        return {k: v for (n, k), v in self.values.items() if n == ns}

    async def put(self, ns, key, value):
        self.writes += 1
        self.values[ns, key] = value


class Files:
    """The part of port `ArtifactStore` that is asked here."""

    def path(self, digest):
        return Path(f"/m/{digest}.onnx")


@pytest.fixture
def releases():
    return Releases(Memory(), Files())


def version(n):
    digest = f"{n:064x}"
    return Artifact("m", str(n), n, digest, Path(f"/m/{digest}.onnx"))


async def test_what_is_written_is_read_back(releases):
    """Every fact survives."""
    release = Release(
        version(3), version(2), version(4), (version(1).digest,), Stage.TRYING, "why", 2, "5"
    )
    await releases.put("m", release)
    assert releases.get("m") == release


async def test_nothing_new_is_not_written(releases):
    """Polls that find nothing cost no write: flash wears."""
    await releases.mark("m", last_error="x")
    writes = releases._state.writes
    await releases.mark("m", last_error="x")
    assert releases._state.writes == writes


@pytest.mark.parametrize(
    "value",
    [
        None, [], "x", 1, {}, {"active": 1}, {"active": {"version": "1"}},
        {"active": {"version": "1", "release": 1, "digest": "../../etc/passwd"}},
        {"blocked": 7, "stage": "nonsense", "tries": "many", "last_error": None, "out": None},
        {"blocked": [1, None, "x"]},
    ],
)  # fmt: skip
def test_what_makes_no_sense_counts_as_not_known(releases, value):
    """A file that was touched, or comes from another release, cannot stop the agent."""
    releases._state.values[NAMESPACE, "m"] = value
    assert releases.get("m") == Release()


def test_a_version_in_service_keeps_the_one_before():
    """Taken: previous is what served; the same digest again changes nothing of it."""
    release = Release().taken(version(1)).taken(version(2))
    assert (release.active, release.previous) == (version(2), version(1))
    assert release.taken(version(2)).previous == version(1)
    assert release.stage is Stage.ACTIVE


def test_a_way_back_leads_to_no_blocked_version():
    """What failed is never the target of a rollback."""
    release = Release().taken(version(1)).taken(version(2)).returned(Stage.PREVIOUS)
    assert (release.active, release.previous, release.out) == (version(1), None, "2")
    assert release.blocked == (version(2).digest,)
    again = release.taken(version(3))
    assert (again.previous, again.out) == (version(1), "")
    pulled = again.taken(version(2))
    assert pulled.blocked == ()


def test_an_operator_who_goes_back_took_nothing_out():
    """A rollback is a wish, not a failure: no alarm stands for it."""
    release = Release().taken(version(1)).taken(version(2)).returned(Stage.ROLLED_BACK)
    assert (release.stage, release.out) == (Stage.ROLLED_BACK, "")


def test_the_last_version_that_fails_leaves_nothing():
    """Without one to go back to the stage says refused."""
    release = Release().taken(version(1)).returned(Stage.PREVIOUS)
    assert (release.active, release.stage, release.out) == (None, Stage.REFUSED, "1")


def test_the_list_of_blocked_versions_is_bounded():
    """The oldest is forgotten first."""
    release = Release()
    for n in range(MAX_BLOCKED + 5):
        release = Release(version(n), blocked=release.blocked).returned(Stage.ROLLED_BACK)
    assert len(release.blocked) == MAX_BLOCKED
    assert version(MAX_BLOCKED + 4).digest in release.blocked


async def test_only_trials_that_the_agent_did_not_survive_count(releases):
    """A restart of the unit is none; the third start of the agent blocks; others count anew."""
    await releases.fetched("m", version(1))
    for _ in range(5):
        await releases.mark("m", stage=Stage.TRYING)
        await releases.interrupted("m", None)
        assert (releases.get("m").stage, releases.get("m").tries) == (Stage.FETCHED, 0)
    for tries in (1, 2):
        await releases.mark("m", stage=Stage.TRYING)
        await releases.interrupted("m", 3)
        await releases.fetched("m", version(1))
        assert releases.get("m").tries == tries
    await releases.mark("m", stage=Stage.TRYING)
    await releases.interrupted("m", 3)
    assert releases.get("m").blocked == (version(1).digest,)
    await releases.fetched("m", version(2))
    assert releases.get("m").tries == 0


async def test_files_of_every_model_stay(releases):
    """Active, previous and candidate of all models are kept, also of those not configured now."""
    await releases.put("m", Release(version(1), version(2), version(3)))
    await releases.put("gone", Release(version(4)))
    assert releases.digests() == {version(n).digest for n in (1, 2, 3, 4)}
