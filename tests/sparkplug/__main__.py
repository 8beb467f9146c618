"""``python -m tests.sparkplug``: run the sessions and write the table; ``--check`` compares it."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.sparkplug import book
from tests.sparkplug.sessions import record


def say(*lines):
    sys.stdout.write("\n  ".join(lines) + "\n")


def main():
    if "--check" in sys.argv:
        found = book.stale(book.expected())
        if found:
            say("docs/sparkplug.md is stale, run `make sparkplug-book`:", *found)
        return 1 if found else 0
    with tempfile.TemporaryDirectory() as folder:
        found = book.verdicts(asyncio.run(record(Path(folder))))
    book.write(found)
    broken = [name for name, verdict in found.items() if verdict == "**broken**"]
    say(f"{len(found)} statements, {len(broken)} broken", *broken)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
