"""Texts as numbers: a durable dictionary (tag, code, text), so that text travels in columns."""

import secrets
from dataclasses import dataclass, field
from typing import Final

from agent.core.ports import StateStore

NAMESPACE: Final = "dictionary"

TEXTS: Final = 1000
"""Texts kept per tag. Beyond it the one not seen for longest is forgotten; its code is never used
again, and a row that still has it has no value any more.
"""

LONGEST: Final = 1000
"""Characters of a text; the rest is cut off."""


def unseen() -> int:
    """A first code beyond all that a store which cannot be read may hold; exact in float64."""
    return 2**40 + secrets.randbelow(2**40)


@dataclass(slots=True)
class _Tag:
    """Texts of one tag, the one seen last at the end."""

    codes: dict[str, int] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    last: int = 0


class Texts:
    """Gives out codes. A code is on disk no later than any row that is put with it afterwards.

    Codes of a tag only rise; the same text has the same code for as long as it is kept.
    """

    def __init__(self, state: StateStore | None = None, first: int = 1) -> None:
        """Args: *state* keeps them; *first* is the least code to give out, for a store that
        could not be read and may hold others.
        """
        self._state, self._first = state, first
        self._tags: dict[str, _Tag] = {}
        kept = state.items(NAMESPACE) if state is not None else {}
        for code, tag, text in sorted((int(k.rpartition("#")[2]), k, t) for k, t in kept.items()):
            self._known(tag.rpartition("#")[0], code, text)

    def code(self, tag: str, text: str) -> float:
        """The code of *text* in the column of *tag*, a new one for a text not seen before."""
        text = text[:LONGEST]
        known = self._tags.get(tag)
        if known is not None and (old := known.codes.pop(text, None)) is not None:
            known.codes[text] = old
            return float(old)
        code = max(self._first, known.last + 1 if known else 1)
        known = self._known(tag, code, text)
        self._keep(tag, code, text)
        if len(known.codes) > TEXTS:
            oldest = next(iter(known.codes))
            forgotten = known.codes.pop(oldest)
            del known.texts[forgotten]
            self._keep(tag, forgotten, None)
        return float(code)

    def text(self, tag: str, code: float) -> str | None:
        """The text behind a code; None when it is forgotten, or is no code at all."""
        if not 0 < code < 2**53:
            return None
        known = self._tags.get(tag)
        found = known.texts.get(int(code)) if known is not None else None
        if found is None and self._state is not None:  # the store was read late
            found = self._state.get(NAMESPACE, f"{tag}#{int(code)}")
        return found

    def _known(self, tag: str, code: int, text: str) -> _Tag:
        known = self._tags.setdefault(tag, _Tag())
        known.codes[text], known.texts[code], known.last = code, text, code
        return known

    def _keep(self, tag: str, code: int, text: str | None) -> None:
        if self._state is not None:
            self._state.set(NAMESPACE, f"{tag}#{code}", text)
