"""The stages of a version, and every move there is between them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """Where a version is. The first eight follow one another; the last three end its way.

    ``shadow``: it scores what the plant measures now, and nobody acts on it. ``probation``: it
    serves, and is watched. ``rolled_back`` and ``blocked`` come back by an operator only,
    ``rejected`` also when the configuration has changed.
    """

    DISCOVERED = "discovered"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    TESTED = "tested"
    BACKTESTED = "backtested"
    SHADOW = "shadow"
    PROBATION = "probation"
    ACTIVE = "active"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    BLOCKED = "blocked"


PATH: Final = tuple(Stage)[:8]
UNDER_WAY: Final = frozenset(PATH[:6])
SERVING: Final = frozenset(PATH[6:])
HERE: Final = frozenset({*PATH[2:6], Stage.RETIRED})
"""Stages in which the file is on the disk and nothing is held against it."""
OUT: Final = frozenset({Stage.ROLLED_BACK, Stage.BLOCKED})
"""No version of these comes back by itself."""

_ENDS: Final = frozenset({Stage.RETIRED, Stage.REJECTED, Stage.BLOCKED})

MOVES: Final[Mapping[Stage | None, frozenset[Stage]]] = {
    None: frozenset({Stage.DISCOVERED}),
    **{s: frozenset(PATH[i + 1 :]) | _ENDS for i, s in enumerate(PATH[:6])},
    Stage.PROBATION: frozenset({Stage.ACTIVE, Stage.RETIRED}) | OUT,
    Stage.ACTIVE: frozenset({Stage.RETIRED}) | OUT,
    Stage.RETIRED: frozenset({Stage.DISCOVERED, Stage.ACTIVE, Stage.BLOCKED}),
    Stage.REJECTED: frozenset({Stage.DISCOVERED, Stage.BLOCKED}),
    Stage.ROLLED_BACK: frozenset({Stage.DISCOVERED, Stage.ACTIVE, Stage.RETIRED, Stage.BLOCKED}),
    Stage.BLOCKED: frozenset({Stage.DISCOVERED, Stage.ACTIVE, Stage.RETIRED}),
}
"""From -> to. Steps may be left out on the way forward, never be gone back."""
