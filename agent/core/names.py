"""Names as people give them: each becomes a level of a topic, a column, a label."""

from typing import Final
from unicodedata import east_asian_width, normalize

CHARACTERS: Final = "A-Za-z0-9_.\u00a1-\uffee-"
"""Inside of a character class of any dialect: letters of every script, and no ASCII that a topic,
a condition or a shell would take for its own.
"""


def unclean(name: str) -> str:
    """What is wrong with the letters of *name*; empty when nothing is.

    Two names that look alike must be one: no invisible characters, and letters with their accents
    (or the parts of a Hangul syllable) in one piece, as keyboards give them (Unicode NFC).
    """
    if not name.isprintable():
        return "has a character that cannot be seen"
    return "" if normalize("NFC", name) == name else "is written in pieces of letters (Unicode NFD)"


def columns(text: str) -> int:
    """Columns that *text* takes on a screen: letters such as ``한`` take two."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)
