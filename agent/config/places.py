"""Where the agent keeps its data, found in a file that nobody has validated, and where what comes
with it is. Standard library only: the command line must start at once.
"""

import re
from pathlib import Path
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


def shipped(in_source: str, installed: str) -> tuple[Path, Path]:
    """Where a file that comes with the agent may be: in a checkout of the source, and in
    ``share/edge-agent`` of PREFIX, when this is ``PREFIX/lib/pythonX.Y/site-packages/agent``.

    PREFIX is not always `sys.prefix`: Debian's pip installs below /usr/local, ``--user`` at home.
    """
    above = Path(__file__).parents[2]
    return above / in_source, (above / "../../..").resolve() / "share" / "edge-agent" / installed
