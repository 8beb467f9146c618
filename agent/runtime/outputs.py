"""The outputs of a model as columns of a stream: names that topics and payloads can carry."""

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import Final

from agent.core.errors import PermanentError
from agent.core.names import CHARACTERS

MAX_COLUMNS: Final = 1000
"""Columns of results: a file that declares a million must not make the daemon build them."""

MAX_NAME: Final = 64
_STRANGE: Final = re.compile(f"[^{CHARACTERS}]")

Shapes = Mapping[str, Sequence[int | None]]


def columns(outputs: Shapes) -> list[str]:
    """Names of the columns: one for each output, ``name_0`` .. for wider ones.

    The first dimension is the batch; characters that no topic may have become ``_``.

    Raises:
        PermanentError: Too many, too long, or two that would have the same name.
    """
    widths = {
        name: prod(max(size or 1, 1) for size in shape[1:]) for name, shape in outputs.items()
    }
    total = sum(widths.values())
    if total > MAX_COLUMNS:
        raise PermanentError(
            f"its outputs have {total} columns; at most {MAX_COLUMNS} are taken",
            fix="Let the model reduce its outputs to scores.",
            code="E642",
        )
    names: list[str] = []
    for name, width in widths.items():
        plain = _STRANGE.sub("_", name)
        names += [plain] if width == 1 else [f"{plain}_{i}" for i in range(width)]
    if len(set(names)) < len(names) or not all(1 <= len(n) <= MAX_NAME for n in names):
        raise PermanentError(
            f"its outputs cannot be named: {', '.join(sorted(outputs))[:200]}",
            fix=f"Give each output a name of its own, at most {MAX_NAME} of A-Z a-z 0-9 _ . -",
            code="E642",
        )
    return names
