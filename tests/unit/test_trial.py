"""What a version must show before it may serve; how its outputs become columns."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from agent.core.decision import Decision
from agent.core.errors import PermanentError, TransientError
from agent.core.features import Preparation, TensorInput
from agent.core.ports import LoadedModel, WorkerLost
from agent.core.window import GridWindow
from agent.runtime.outputs import MAX_COLUMNS, columns
from agent.runtime.trial import Fit, check_fit, made_up, try_out
from simulators import models

CUBE = (None, 5, 3)
FIT = Fit(5, 3)


class Host:
    """Port `ModelHost` that answers as told; *lost* calls fail before the first answer."""

    def __init__(self, answer=lambda x: x.mean(axis=(1, 2)), shape=(None,), lost=0):
        self.answer, self.shape, self.lost, self.seen = answer, shape, lost, []

    async def load(self, digest, model, deadline_s=30.0):
        return LoadedModel(digest, {"window": CUBE}, {"score": self.shape}, 1.0)

    async def predict(self, digest, x, deadline_s):
        self.seen.append(x.shape)
        if self.lost:
            self.lost -= 1
            raise WorkerLost("killed")
        return {"score": self.answer(x)}


async def tried(host, windows=None, fit=FIT):
    return await try_out(host, "d" * 64, models.tiny(), fit, windows)


async def test_a_sound_version_passes_on_stored_windows():
    """It runs once, on what was stored."""
    host = Host()
    await tried(host, np.ones((4, 5, 3), np.float32))
    assert host.seen == [(4, 5, 3)]


async def test_without_history_windows_are_made_up():
    """Two of them: one that stands still and one that moves."""
    host = Host()
    await tried(host)
    assert host.seen == [(2, 5, 3)]
    assert not made_up(5, 3)[0].any()
    assert made_up(5, 3)[1].std() > 0.5


async def test_a_version_that_cannot_keep_up_is_refused():
    """A fifth of the time to the next window, at the best of three attempts."""

    async def tried_in(*seconds):
        times = iter(seconds)

        class Slow(Host):
            async def predict(self, digest, x, deadline_s):
                end_s = perf_counter() + next(times)
                while perf_counter() < end_s:
                    pass
                return await super().predict(digest, x, deadline_s)

        grid = GridWindow(5, 10**9, 100_000_000, 10**9)
        await tried(Slow(), fit=replace(FIT, window=grid))

    await tried_in(0.0)
    await tried_in(0.05, 0.06, 0.0)
    with pytest.raises(PermanentError, match=r"E689.*one every 100 ms"):
        await tried_in(0.05, 0.06, 0.07)


async def test_one_lost_worker_is_forgiven_two_are_not():
    """The first loss may be anybody's fault."""
    await tried(Host(lost=1))
    with pytest.raises(PermanentError, match="E643"):
        await tried(Host(lost=2))


@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        (lambda x: np.full(len(x), np.nan, np.float32), (None,)),
        (lambda x: np.full(len(x), np.inf, np.float32), (None,)),
        (lambda x: np.ones(len(x) + 1, np.float32), (None,)),
        (lambda x: np.ones((len(x), 3), np.float32), (None,)),
        (lambda x: np.ones((len(x), 3), np.float32), (None, None)),
        (lambda x: np.ones(len(x), np.float32), (None, 4)),
    ],
)
async def test_answers_that_are_no_results_refuse_it(answer, shape):
    """Only NaN, another number of windows, another number of columns than the file declares."""
    with pytest.raises(PermanentError, match="E642") as refused:
        await tried(Host(answer, shape))
    assert refused.value.fix


async def test_one_window_without_an_answer_refuses_nothing():
    """NaN may be right for a window; in service that result is Bad."""
    await tried(Host(lambda x: np.where(np.arange(len(x)) == 0, np.nan, 1).astype(np.float32)))


async def test_a_host_that_fails_is_not_the_versions_fault():
    """A transient error of the trial refuses nobody."""

    class Full(Host):
        async def load(self, digest, model, deadline_s=30.0):
            raise TransientError("no memory")

    with pytest.raises(TransientError):
        await tried(Full())


def fits(shape, outputs=None, fit=FIT):
    """Is a model of this input shape and these outputs taken."""
    loaded = LoadedModel("d" * 64, {"window": shape}, outputs or {"score": (None,)}, 0.0)
    try:
        check_fit(loaded, fit)
    except PermanentError as e:
        return e.code
    return "fits"


@pytest.mark.parametrize(
    "shape", [CUBE, (1, 5, 3), (None, None, 3), (None, None, None), (None, 15), (None, None)]
)
def test_inputs_that_take_the_windows_fit(shape):
    """Free dimensions take anything; a flat input takes rows x inputs."""
    assert fits(shape) == "fits"


@pytest.mark.parametrize(
    "shape", [(None, 4, 3), (None, 3, 5), (None, 14), (8, 5, 3), (2, 15), (None,), (None, 5, 3, 1)]
)
def test_inputs_that_do_not_are_refused(shape):
    """Also a fixed number of windows at a time: in service any number may be due."""
    assert fits(shape) == "E641"


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"window": (None, 5, 2), "static": (None, 2)}, "fits"),
        ({"window": (1, 5, 2), "static": (1, 2)}, "fits"),
        ({"static": (None, 2), "window": (None, 5, 2)}, "E641"),
        ({"window": (None, 5, 2), "other": (None, 2)}, "E641"),
        ({"window": (None, 5, 2), "static": (None, 3)}, "E641"),
        ({"window": (None, 5, 2), "static": (None, None)}, "E641"),
        ({"window": (None, 5, 2), "static": (8, 2)}, "E641"),
        ({"window": (None, 12)}, "E641"),
    ],
)
def test_several_inputs_are_those_of_the_manifest(inputs, code):
    """In its order, by name and by size; without a manifest a model has one input."""
    sides = (TensorInput("window", (0, 1)), TensorInput("static", (), (("last", (2, 0)),)))
    loaded = LoadedModel("d" * 64, inputs, {"score": (None,)}, 0.0)
    fit = FIT.fed(Preparation(inputs=sides))
    try:
        check_fit(loaded, fit)
    except PermanentError as e:
        assert e.code == code
    else:
        assert code == "fits"
    with pytest.raises(PermanentError, match="E641"):
        check_fit(loaded, FIT)


def test_the_output_to_decide_on_must_be_there():
    """Else the alarm would never be raised, in silence."""
    decides = Fit(5, 3, Decision("score_1", 1.0))
    assert fits(CUBE, {"score": (None, 2)}, decides) == "fits"
    assert fits(CUBE, {"score": (None,)}, decides) == "E651"


def test_outputs_become_columns():
    """One each, numbered when wider; characters that topics cannot carry become `_`."""
    shapes = {"score": (None,), "p": (None, 2), "Identity:0": (None, 1), "q": (None, None)}
    assert columns(shapes) == ["score", "p_0", "p_1", "Identity_0", "q"]


@pytest.mark.parametrize(
    "outputs",
    [
        {"x": (None, MAX_COLUMNS + 1)}, {"x": (None, 2**40, 2**40)},
        {"a b": (None,), "a/b": (None,)},
        {"p_0": (None,), "p": (None, 2)}, {"x" * 65: (None,)}, {"": (None,)},
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_columns_are_refused(outputs):
    """Too many, two of one name, too long: before anything of that size is built."""
    with pytest.raises(PermanentError, match="E642"):
        columns(outputs)
