"""Parts of configurations on their own: a profile, one device with its profile merged in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.config.document import Document, parse
from agent.config.fragments import fragments, joined
from agent.config.load import load, read
from agent.config.profiles import Profiles, merged
from agent.config.report import ConfigProblems, Problem, did_you_mean
from agent.config.validation import Validation
from agent.plugins import Catalog


def examine(document: Document, name: str, catalog: Catalog) -> None:
    """Raise `ConfigProblems` with everything that is wrong in plain data called *name*."""
    profiles = Profiles(document, name)
    _, problems = Validation(document, catalog, profiles).run()
    problems += profiles.problems
    if problems:
        raise ConfigProblems(name, "", problems, profiles.texts)


def profile_data(
    profile: str, given: Mapping[str, Any], catalog: Catalog, beside: Path | None
) -> dict[str, Any]:
    """A profile, as the configuration *beside* would find it; *given* is what a device adds.

    Raises `ConfigProblems` when it is not right.
    """
    data: dict[str, Any] = {"version": 1, "gateway": {"id": "g"}}
    if beside is not None:
        own = parse(read(beside))
        if isinstance(own.data, dict):
            joined(own, fragments(beside))
            data["profiles"] = own.data.get("profiles", {})
    document = Document({**data, "devices": {"d": {"profile": profile, **given}}})
    name = str(beside or "profile")
    examine(document, name, catalog)
    found = Profiles(document, name).get(profile)
    return {} if found is None else found.data


def device_data(path: Path, device: str, catalog: Catalog) -> dict[str, Any]:
    """A device of the configuration *path*, its profile merged in.

    Raises `ConfigProblems` when the configuration is not right, or has no such device.
    """
    load(path, catalog)
    text = read(path)
    document = parse(text)
    joined(document, fragments(path))
    devices = document.data.get("devices") or {}
    if device not in devices:
        fix = did_you_mean(device, devices) or f"Known: {', '.join(devices) or 'none'}."
        problem = Problem("E211", f"there is no device `{device}`", fix=fix)
        raise ConfigProblems(str(path), text, [problem])
    section = dict(devices[device])
    profile = Profiles(document, str(path)).get(str(section.pop("profile", "")))
    return section if profile is None else merged(profile.data, section)
