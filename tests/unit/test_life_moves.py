"""The pure life of versions: whatever happens in whatever order, what must hold does."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.registry import Artifact
from agent.runtime.life import Release
from agent.runtime.release_records import read, write
from agent.runtime.stages import MOVES, OUT, PATH, SERVING, UNDER_WAY, Stage

ACTS = (
    "discover", "forward", "reject", "serve", "commit", "fail", "back", "lost", "block", "tidy",
    "pin", "restart",
)  # fmt: skip


def version(n):
    digest = f"{n:064x}"
    return Artifact("m", str(n), n, digest, Path(f"/m/{digest}"), "", "key")


class Life:
    """A release, and a reference that is kept beside it: where each version must be."""

    def __init__(self):
        self.release, self.now, self.where = Release(), 0, {}

    def take(self, changed, *, operator=False):
        """Every move exists, begins where the version was, and is undone by nothing."""
        for move in changed.moves:
            digest, after = move.version.digest, move.version.stage
            assert after in MOVES[move.before]
            assert self.where.get(digest) == move.before
            assert operator or move.before not in OUT
            self.where[digest] = after
        assert changed.release.highest >= self.release.highest
        self.release = changed.release
        assert {v.digest: v.stage for v in self.release.versions} == {
            d: s for d, s in self.where.items() if self.release.find(d)
        }

    def act(self, act, n):
        self.now += 1
        release, candidate, serving = (
            self.release, self.release.candidate, self.release.serving,
        )  # fmt: skip
        digest = version(n).digest
        known = release.find(digest)
        if act == "discover":
            if Stage.DISCOVERED in MOVES[None if known is None else known.stage]:
                operator = known is not None and known.stage in OUT
                self.take(release.discovered(version(n), self.now), operator=operator)
        elif act == "forward" and candidate is not None:
            later = PATH[PATH.index(candidate.stage) + 1 : 6]
            if later:
                self.take(release.moved(candidate.digest, later[n % len(later)], self.now))
        elif act == "reject" and candidate is not None:
            self.take(release.moved(candidate.digest, Stage.REJECTED, self.now, "bad"))
            assert self.release.serving == serving
        elif act == "serve" and candidate is not None:
            stage = Stage.PROBATION if n % 2 else Stage.ACTIVE
            self.take(release.taken(candidate.digest, stage, self.now))
            assert self.release.serving.digest == candidate.digest
        elif act == "commit" and serving is not None and serving.stage is Stage.PROBATION:
            self.take(release.taken(serving.digest, Stage.ACTIVE, self.now))
            assert self.release.serving.digest == serving.digest
        elif act in ("fail", "back", "lost"):
            self.returns(act, serving)
        elif act == "block" and known is not None and known.stage not in SERVING:
            if Stage.BLOCKED in MOVES[known.stage]:
                self.take(release.moved(digest, Stage.BLOCKED, self.now), operator=True)
        elif act == "tidy":
            self.release = release.tidied(1 + n % 2)
        elif act == "pin" and serving is not None:
            self.release = release.__class__(
                **{f: getattr(release, f) for f in release.__slots__} | {"pinned": serving.digest}
            )
        elif act == "restart":
            self.release = read("m", write(release), lambda d: Path(f"/m/{d}"))
            assert self.release == release

    def returns(self, act, serving):
        """What a rollback promised before is what serves after it."""
        back = self.release.previous
        stage = Stage.RETIRED if act == "lost" else Stage.ROLLED_BACK
        self.take(self.release.returned(self.now, act, stage=stage, failed=act == "fail"))
        if serving is not None:
            now = self.release.serving
            assert (now and now.digest) == (back and back.digest)

    def holds(self):
        """What is true after each act."""
        stages = [v.stage for v in self.release.versions]
        assert stages.count(Stage.ACTIVE) <= 1
        assert stages.count(Stage.PROBATION) <= 1
        assert sum(s in UNDER_WAY for s in stages) <= 1
        kept = self.release.digests()
        for must in (self.release.serving, self.release.previous, self.release.candidate):
            assert must is None or must.digest in kept
        if self.release.previous is not None:
            assert self.release.previous.stage not in OUT
            assert self.release.previous.digest != self.release.serving.digest if (
                self.release.serving) else True  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 5)), max_size=40))
def test_whatever_happens_what_must_hold_does(acts):
    """Only moves of the table; at most one version in each place; a rejected candidate never
    touches what serves; what is out comes back by a person only; the way back stays on the disk;
    the highest signed release never falls; a power cut between two moves changes nothing.
    """
    life = Life()
    for act, n in acts:
        life.act(act, n)
        life.holds()
