"""What the file may hold, as a page for people."""

import inspect
from typing import Any, Final

from agent.config.base import Section
from agent.config.json_schema import schema, sections
from agent.config.schema import Settings
from agent.config.validation import GROUPS
from agent.plugins import Catalog

_HEAD: Final = """\
# Configuration

Every setting of the file, made from the code that reads it (`edge-agent config reference`).
A duration carries its unit: `us`, `ms`, `s`, `min`, `h`, `d`.
So does a size: `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`; and a share: `10 %`.
`NAME` is yours to choose: letters of any script, digits, `_`, `.` and `-`.
`펌프1` and `간격_µm` are names; spaces and invisible characters are in none.
`configs/full.yaml` shows every setting.

Editors that know YAML complete and check the file. Beside it:
`edge-agent config schema > edge-agent.schema.json`; as its first line:
`# yaml-language-server: $schema=edge-agent.schema.json`.
"""
_KINDS: Final = {
    "object": "section",
    "array": "list",
    "string": "text",
    "boolean": "`true` `false`",
    "['number', 'string']": "number or text",
}


def page(catalog: Catalog) -> str:
    """The reference as Markdown: a table for each section, in the order of the file."""
    whole = schema(catalog)
    known = whole["definitions"]
    parts = [_HEAD, _table("The file", Settings, whole)]
    for place, cls in sections(Settings):
        parts.append(_table(f"`{place}`", cls, known[cls.__name__]))
    for group, entry_points in GROUPS.items():
        for kind in catalog.types(entry_points):
            cls = catalog.config_class(entry_points, kind)
            title = f"`{group}.NAME`, `type: {kind}`"
            parts.append(_table(title, cls, known[cls.__name__]))
            for place, below in sections(cls, f"{group}.NAME"):
                parts.append(_table(f"`{place}` of `{kind}`", below, known[below.__name__]))
    return "\n".join(parts)


def _table(title: str, cls: type[Section], part: dict[str, Any]) -> str:
    told = " ".join(inspect.cleandoc(cls.__doc__ or "").replace("``", "`").split())
    lines = [f"## {title}\n", f"{told}\n", "| setting | | values | default |", "|---|---|---|---|"]
    required = part.get("required", ())
    for name, setting in part["properties"].items():
        default = "must be given" if name in required else _shown(setting.get("default"))
        what = setting.get("description", "").replace("|", "\\|")
        lines.append(f"| `{name}` | {what} | {_values(setting)} | {default} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    if default is None:
        return ""
    text = str(default).lower() if isinstance(default, bool) else f"{default}"
    return f"`{text.removesuffix('.0')}`"


def _values(setting: dict[str, Any]) -> str:
    """What may be written, in a few words."""
    if "anyOf" in setting:
        return " or ".join(dict.fromkeys(_values(one) for one in setting["anyOf"]))
    if "enum" in setting or "const" in setting:
        return " ".join(f"`{x}`" for x in setting.get("enum", [setting.get("const")]))
    kind = str(setting.get("type", "section"))
    pattern = str(setting.get("pattern", ""))
    if "ms|" in pattern:
        return "duration"
    if "MB|" in pattern:
        return "size"
    if "%" in pattern:
        return "percent"
    low, high = setting.get("minimum"), setting.get("maximum")
    if kind in {"integer", "number"} and low is not None and high is not None:
        return f"{kind}, {low} to {high}"
    return _KINDS.get(kind, kind)
