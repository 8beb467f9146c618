"""Tags that had another name before: their history is read under the new one."""

from collections.abc import Collection, Iterator
from typing import Any

from agent.config.permissions import Finding
from agent.config.schema import Settings


def renames(settings: Settings) -> dict[str, str]:
    """Full name of every tag with `was:` -> what it was called before."""
    return {f"{device}/{tag}": f"{device}/{was}" for device, tag, was in _said(settings)}


def _said(settings: Settings) -> Iterator[tuple[str, str, str]]:
    for name, device in settings.devices.items():
        tags: Any = getattr(device, "tags", None)
        for short, tag in tags.items() if isinstance(tags, dict) else ():
            if (was := getattr(tag, "was", None)) is not None:
                yield name, short, was


def check(settings: Settings, known: Collection[str], texts: Collection[str]) -> Iterator[Finding]:
    """A name that somebody still has, or twice; and texts, whose codes belong to the old name."""
    taken: dict[str, str] = {}
    for device, tag, was in _said(settings):
        new, old = f"{device}/{tag}", f"{device}/{was}"
        at = ("devices", device, "tags", tag, "was")
        if old in known:
            what = f"`{old}` is still a tag of this file: it keeps its own history"
            yield "E234", what, at, "Remove `was:`, or the other tag."
        elif taken.setdefault(old, new) != new:
            what = f"`{taken[old]}` was called `{was}`, too"
            yield "E234", what, at, "One tag only can go on with a history."
        elif new in texts:
            what = "a text cannot take over a history"
            yield "E234", what, at, "Remove `was:`; the old texts stay under the old name."
