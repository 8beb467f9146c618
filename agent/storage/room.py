"""Room: what the journal takes of the disk, and what it may take."""

from typing import Final

from agent.storage import reserve
from agent.storage.database import Database

PARTS: Final = 32
"""A full journal has about so many files: room is made in parts of this size."""

TABLES: Final = 8
"""The tables have this part of the room when rows come faster than they are sealed."""

_BESIDE: Final = 4
"""Log, reserve and what is written between two looks have this part of the room at most: a tiny
journal holds something, too."""

_SLACK: Final = 16
"""The part that is left for what is written until room is made: two files."""

_WORTH: Final = 8_000_000
"""Free pages that are worth giving back, bytes. So many the log holds without becoming longer."""

_LONG: Final = 32_000_000
"""Tables that are never rewritten, bytes: commits wait meanwhile, and memory holds a copy."""


def taken(db: Database) -> int:
    """Bytes of tables and block files on the disk, those pages included that hold nothing."""
    return sum(db.space()) + db.files.size()


def allowed(db: Database, max_size: int) -> int:
    """What tables and block files may take of *max_size*, bytes.

    The log and the reserve have a part of it, and some is left for what is written until room is
    made.
    """
    beside = db.log_bytes() + reserve.size(db.folder) + max_size // _SLACK
    return max_size - min(beside, max_size // _BESIDE)


def give_back(db: Database, max_size: int, free: int) -> None:
    """Make the tables' file as short as what is in it, where that is cheap: no more is rewritten
    than is won, and the disk has *free* bytes for it.

    SQLite keeps pages that hold nothing. That it gave them back by itself (``auto_vacuum``) would
    cost 1.7 % more bytes to the flash with every commit, and never help a file that is there.
    """
    used, spare = db.space()
    long = min(max(_WORTH, max_size // (2 * PARTS)), _LONG)
    if spare >= max(used, min(_WORTH, max_size // TABLES)) and used <= min(long, free // 2):
        db.compact()
