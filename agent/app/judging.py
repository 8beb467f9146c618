"""How a version is judged while it runs: by its score, its decision and its reference."""

from collections.abc import Callable
from functools import partial

from agent.config.schema import ModelSection
from agent.core.drift import SCORE
from agent.core.manifest import Manifest
from agent.core.ports import LoadedModel
from agent.core.tally import Tally
from agent.runtime.outputs import columns


def tally(
    section: ModelSection, loaded: LoadedModel, manifest: Manifest | None
) -> Callable[[], Tally]:
    """What counts the evidence of a version on one machine.

    The configuration's decision goes before that of the manifest; without any the first output is
    the score, and nothing is flagged.
    """
    decision = None if manifest is None else manifest.decision
    if section.decide is not None:
        decision = section.decide.decision()
    names = columns(loaded.outputs)
    if decision is not None and decision.output not in names:
        decision = None
    score = names[0] if decision is None else decision.output
    reference = None if manifest is None else manifest.reference.get(SCORE + score)
    return partial(Tally, names.index(score), decision, reference)
