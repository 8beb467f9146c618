"""The switch over all writing: it wins over everything, and needs no code that could write."""

from agent.config.schema import WritesSection
from agent.core.requests import Declined


def switched_on(section: WritesSection | None, tag: str) -> WritesSection:
    """The section, when it lets anything be written; else raises `Declined`."""
    if section is not None and not section.read_only:
        return section
    why = "there is no section `writes:`" if section is None else "`read_only` is true"
    raise Declined(
        "read_only",
        f"nothing may be written: {why}",
        where=tag,
        fix="An administrator can change that in the section `writes:`.",
        code="E356",
    )
