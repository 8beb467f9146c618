"""Plain data as YAML that this agent reads back as it was."""

import json
import re
from math import isinf
from typing import Any, Final

import yaml

from agent.config.document import Hex

_PLAIN: Final = re.compile(
    r"^(?:[A-Za-z_][A-Za-z0-9_./%^-]*(?: [A-Za-z0-9_./%^-]+)*|[0-9]+(?:us|ms|s|min|m|h))$"
)
_WORDS: Final = frozenset({"true", "false", "null"})


class _Dumper(yaml.SafeDumper):
    """Text is always quoted: nobody has to know which words YAML takes for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    str, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)
_Dumper.add_representer(
    Hex, lambda d, number: d.represent_scalar("tag:yaml.org,2002:int", number.text)
)


def write(data: Any) -> str:
    """Maps, lists, text, numbers, truths and nothing, in their order."""
    text: str = yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10_000)
    return text


def scalar(value: Any) -> str:
    """One value on one line, as a person would write it: text without quotes where that is safe."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)}: {scalar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(scalar(v) for v in value) + "]"
    if isinstance(value, str):
        plain = _PLAIN.match(value) and value not in _WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float) and isinf(value):
        return ".inf" if value > 0 else "-.inf"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"-?[0-9A-Za-z_][0-9A-Za-z_.-]*", key) else scalar(key)
