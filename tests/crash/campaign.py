"""Campaigns of cuts, kept in a file: what was done is not done again."""

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Cuts = Callable[[Path, random.Random, str], Iterator[tuple[str, list[str]]]]
"""(empty folder, randomness, mutant) -> (kind of cut, promises broken) of one disk."""


@dataclass(frozen=True, slots=True)
class Part:
    """One way to cut the power.

    Attributes:
        cuts: How many are to be done on the sound build.
        mutants: Broken builds that it must catch.
    """

    name: str
    run: Cuts
    cuts: int
    mutants: tuple[str, ...]


class Book:
    """The rounds done so far, one JSON object a line, and the seed that they came from."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self.rounds = path, []
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        read = [json.loads(line) for line in lines]
        if read and "verdict" not in read[-1]:
            self.seed, self.rounds = read[0]["seed"], read[1:]
            return
        self.seed = seed
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"seed": seed}) + "\n", encoding="utf-8")

    def add(self, line: dict[str, Any]) -> None:
        """One more round, or the verdict, after which the next run begins anew."""
        self.rounds.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def of(self, part: Part, mutant: str = "") -> list[dict[str, Any]]:
        """The rounds of one campaign."""
        return [r for r in self.rounds if (r["part"], r["mutant"]) == (part.name, mutant)]


@dataclass(frozen=True, slots=True)
class Tally:
    """All rounds of one campaign together."""

    cuts: int
    kinds: dict[str, int]
    breaches: list[list[str]]
    seconds: float

    @classmethod
    def of(cls, rounds: list[dict[str, Any]]) -> "Tally":
        """The sum."""
        kinds: Counter[str] = Counter()
        for r in rounds:
            kinds.update(r["kinds"])
        breaches = [b for r in rounds for b in r["breaches"]]
        return cls(kinds.total(), dict(kinds), breaches, round(sum(r["s"] for r in rounds), 1))


def campaign(part: Part, book: Book, wanted: int, mutant: str = "") -> Tally:
    """Cut until *wanted* cuts are done, or until a mutant is caught."""
    while True:
        rounds = book.of(part, mutant)
        tally = Tally.of(rounds)
        if tally.cuts >= wanted or (mutant and tally.breaches):
            return tally
        rng = random.Random(f"{book.seed}/{part.name}/{mutant}/{len(rounds)}")
        with workshop() as folder:
            line = _round(part, folder, rng, mutant, wanted - tally.cuts)
        book.add({"part": part.name, "mutant": mutant} | line)
        _progress(part, book, wanted, mutant)


def _round(
    part: Part, folder: Path, rng: random.Random, mutant: str, wanted: int
) -> dict[str, Any]:
    began, kinds, breaches = time.monotonic(), Counter[str](), []
    for kind, found in part.run(folder, rng, mutant):
        kinds[kind] += 1
        if found:
            breaches.append([kind, *found])
        if kinds.total() >= wanted or (mutant and found):
            break
    return {"kinds": kinds, "breaches": breaches, "s": round(time.monotonic() - began, 2)}


def _progress(part: Part, book: Book, wanted: int, mutant: str) -> None:
    tally = Tally.of(book.of(part, mutant))
    name = f"{part.name} with {mutant}" if mutant else part.name
    print(f"{name}: {tally.cuts}/{wanted} cuts, {len(tally.breaches)} breaches, "
          f"{tally.seconds} s", file=sys.stderr)  # fmt: skip
    for breach in [] if mutant else book.rounds[-1]["breaches"]:
        print(f"  {breach}", file=sys.stderr)


@contextmanager
def workshop() -> Iterator[Path]:
    """An empty folder, in memory where there is one: the disks are images."""
    memory = Path("/dev", "shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    with tempfile.TemporaryDirectory("-crash", dir=memory if roomy else None) as folder:
        yield Path(folder)
