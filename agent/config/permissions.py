"""What only the whole file can tell of commands and writes: brokers, verbs and tags they name."""

from collections.abc import Iterator, Mapping

from agent.config.report import did_you_mean
from agent.config.schema import Settings

Finding = tuple[str, str, tuple[str | int, ...], str]
"""Code, what, path in the file, fix."""


def permissions(settings: Settings, of_tag: Mapping[str, str]) -> Iterator[Finding]:
    """Whatever `commands:` and `writes:` allow that cannot be. *of_tag*: every tag there is."""
    yield from _commands(settings)
    yield from _writes(settings, of_tag)


def _commands(settings: Settings) -> Iterator[Finding]:
    commands = settings.commands
    if commands is None:
        return
    for i, name in enumerate(commands.sinks):
        at: tuple[str | int, ...] = ("commands", "sinks", i)
        if name not in settings.sinks:
            fix = did_you_mean(name, settings.sinks) or "Name a sink of this file."
            yield "E230", f"there is no sink `{name}`", at, fix
        elif not getattr(settings.sinks[name], "takes_commands", False):
            yield "E230", f"sink `{name}` brings no commands", at, "Name an MQTT sink."
    if "write" in commands.verbs and settings.writes is None:
        yield (
            "E231",
            "the verb `write` is allowed, but there is no section `writes:`",
            ("commands", "verbs", commands.verbs.index("write")),
            "Say under `writes:` which tags may be written, or remove the verb.",
        )


def _writes(settings: Settings, of_tag: Mapping[str, str]) -> Iterator[Finding]:
    if settings.writes is None:
        return
    for tag, rule in settings.writes.tags.items():
        at = ("writes", "tags", tag)
        device, _, short = tag.partition("/")
        if tag not in of_tag:
            yield "E201", f"there is no tag `{tag}`", at, did_you_mean(tag, of_tag)
            continue
        if tag in settings.derived:
            what = f"`{tag}` is derived: no device has it"
            yield "E232", what, at, "Write the tag that it is derived from."
            continue
        flaws = getattr(settings.devices.get(device), "write_flaws", None)
        if flaws is None:
            what = f"device `{device}` cannot be written to"
            yield "E232", what, at, "Remove the tag from `writes:`."
            continue
        for what, fix in flaws(short, rule):
            yield "E232", what, at, fix
