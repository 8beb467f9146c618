"""Where the agent keeps its data, found in a file that nobody has validated. Standard library only:
the command line must start at once.
"""

import re
from typing import Final

DATA_DIR: Final = "/var/lib/edge-agent"

_LINE: Final = re.compile(
    r"""^\s*["']?data_dir["']?\s*:\s*(?:"([^"\n]+)"|'([^'\n]+)'|([^"'#\n]+?))\s*,?\s*(?:#.*)?$""",
    re.MULTILINE,
)


def data_dir_in(text: str) -> str | None:
    """The folder that the line ``data_dir:`` of *text* names; None when there is no such line."""
    found = _LINE.search(text)
    return next((group for group in found.groups() if group), None) if found else None
