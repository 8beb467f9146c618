"""Tags: what is measured, in which unit, over which range."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

WAS: Final = "was"
"""Namespace of the state store: full name of a tag -> the name it had before."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One measured or computed quantity.

    Attributes:
        name: Unique within the agent, ``/``-separated: ``press1/oil_temp``.
        unit: Engineering unit as plant people write it (``L/min``, ``bar``); empty if none.
        lo, hi: Plausible range in engineering units; outside it a Good sample keeps its
            value and becomes ``UNCERTAIN_RANGE``.
        deadband: Smallest change worth publishing, engineering units; 0 publishes all.
        kind: ``text``: the column holds codes into the dictionary of texts (`agent.core.texts`).
        enum: Codes that the value may have, and what each means; the value stays the code.
        origin: How a derived tag is computed: ``difference(p/a, p/b)``; empty if it is measured.
        form: What a value is in JSON where each tag has its own type; a text is always a string.
    """

    name: str
    unit: str = ""
    lo: float = -inf
    hi: float = inf
    deadband: float = 0.0
    kind: Literal["float64", "text"] = "float64"
    enum: tuple[tuple[int, str], ...] = ()
    origin: str = ""
    form: Literal["number", "integer", "boolean"] = "number"

    @property
    def json_type(self) -> str:
        """``number`` | ``integer`` | ``boolean`` | ``text``: what its values are in payloads."""
        return "text" if self.kind == "text" else self.form

    @property
    def short(self) -> str:
        """The name below its device or model instance, as payloads carry it: ``oil_temp``."""
        levels = 2 if self.name.startswith("model/") else 1
        return self.name.split("/", levels)[-1]


@dataclass(frozen=True, slots=True)
class TagSet:
    """The ordered columns of a stream's batches. Built once, shared by every batch.

    Attributes:
        column: Tag name -> column number.
        short: The tags' short names, in order.
        lo, hi, deadband: float64, shape (k,): the tags' limits as columns.
        texts: Numbers of the columns that hold texts; empty for nearly every stream.
        typed: Numbers of the columns whose values are whole numbers, or true and false.
        whole: Are all of them whole numbers.
        schema_id: Stable id, 16 hex digits, of names, units, kinds, origins and order.
    """

    tags: tuple[Tag, ...]
    column: dict[str, int] = field(init=False, repr=False, compare=False, hash=False)
    short: tuple[str, ...] = field(init=False, repr=False, compare=False, hash=False)
    lo: NDArray[np.float64] = field(init=False, repr=False, compare=False, hash=False)
    hi: NDArray[np.float64] = field(init=False, repr=False, compare=False, hash=False)
    deadband: NDArray[np.float64] = field(init=False, repr=False, compare=False, hash=False)
    texts: tuple[int, ...] = field(init=False, repr=False, compare=False, hash=False)
    typed: tuple[int, ...] = field(init=False, repr=False, compare=False, hash=False)
    whole: bool = field(init=False, repr=False, compare=False, hash=False)
    schema_id: str = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "column", {t.name: i for i, t in enumerate(self.tags)})
        object.__setattr__(self, "short", tuple(t.short for t in self.tags))
        object.__setattr__(self, "lo", np.array([t.lo for t in self.tags], np.float64))
        object.__setattr__(self, "hi", np.array([t.hi for t in self.tags], np.float64))
        object.__setattr__(self, "deadband", np.array([t.deadband for t in self.tags], np.float64))
        texts = tuple(i for i, t in enumerate(self.tags) if t.kind == "text")
        object.__setattr__(self, "texts", texts)
        typed = tuple(i for i, t in enumerate(self.tags) if t.form != "number")
        object.__setattr__(self, "typed", typed)
        whole = bool(self.tags) and all(t.json_type == "integer" for t in self.tags)
        object.__setattr__(self, "whole", whole)
        text = "\n".join(f"{t.name}\t{t.unit}{_special(t)}" for t in self.tags)
        object.__setattr__(self, "schema_id", sha256(text.encode()).hexdigest()[:16])
        if len(self.column) != len(self.tags):
            raise ValueError("duplicate tag names in one TagSet")

    def __len__(self) -> int:
        return len(self.tags)

    def __iter__(self) -> Iterator[Tag]:
        return iter(self.tags)

    def columns(self, names: Sequence[str]) -> list[int]:
        """Column numbers of *names*; KeyError names the first unknown tag."""
        return [self.column[n] for n in names]


def _special(tag: Tag) -> str:
    """What the schema id of a plain number does not have."""
    text = "" if tag.kind == "float64" and not tag.enum else f"\t{tag.kind}\t{tag.enum}"
    return f"{text}\t{tag.origin}" if tag.origin else text
