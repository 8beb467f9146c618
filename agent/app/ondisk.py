"""Whether the file on the disk, with all that belongs to it, is another than what runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.app.boot import Loaded, digest_of
from agent.config.fragments import FOLDER, fragments
from agent.config.load import ConfigProblems, read

EACH_S: Final = 10.0

UNREADABLE: Final = ""
"""In place of the digest of a file that cannot be read: no configuration has this one."""


class OnDisk:
    """Looks at the files each `EACH_S`, on a thread: the loop waits for no disk."""

    def __init__(self, loaded: Callable[[], Loaded]) -> None:
        """*loaded* gives what runs."""
        self._loaded = loaded
        self._seen: tuple[Loaded, str] | None = None

    @property
    def changed(self) -> bool:
        """Whether it was another one at the last look at the files of what runs.

        What was just taken over counts as equal until the first look, what stands in for a file
        that was refused as changed.
        """
        loaded = self._loaded()
        if self._seen is None or self._seen[0] is not loaded:
            return loaded.last_good
        return self._seen[1] != loaded.digest

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await self.look()
            await asyncio.sleep(EACH_S)

    async def look(self) -> None:
        """Look once."""
        loaded = self._loaded()
        self._seen = loaded, await asyncio.to_thread(digest_on_disk, loaded)


def digest_on_disk(loaded: Loaded) -> str:
    """The digest of the file, its fragments of now and the profile files that *loaded* uses."""
    folder = loaded.path.with_name(FOLDER)
    profiles = [name for name in loaded.whole.others if Path(name).parent != folder]
    try:
        texts = [read(loaded.path), *fragments(loaded.path).values()]
        return digest_of([*texts, *(read(Path(name)) for name in profiles)])
    except ConfigProblems:
        return UNREADABLE
