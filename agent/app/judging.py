"""How a version is judged while it runs: by its score, its decision and its reference."""

from collections.abc import Callable
from functools import partial

from agent.config.models import ModelSection
from agent.core.decision import Decision
from agent.core.drift import SCORE
from agent.core.manifest import Manifest
from agent.core.ports import LoadedModel
from agent.core.tally import Tally
from agent.runtime.outputs import columns


def decides(section: ModelSection, manifest: Manifest | None) -> Decision | None:
    """The configuration's decision goes before that of the manifest."""
    if section.decide is not None:
        return section.decide.decision()
    return None if manifest is None else manifest.decision


def tally(
    section: ModelSection, loaded: LoadedModel, manifest: Manifest | None
) -> Callable[[], Tally]:
    """What counts the evidence of a version on one machine: without a decision the first output is
    the score, and nothing is flagged.
    """
    decision, names = decides(section, manifest), columns(loaded.outputs)
    if decision is not None and decision.output not in names:
        decision = None
    score = names[0] if decision is None else decision.output
    reference = None if manifest is None else manifest.reference.get(SCORE + score)
    return partial(Tally, names.index(score), decision, reference)
