"""Plain data as YAML that this agent reads back as it was."""

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Text is always quoted: nobody has to know which words YAML takes for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    str, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def write(data: Any) -> str:
    """Maps, lists, text, numbers, truths and nothing, in their order."""
    text: str = yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=10_000)
    return text
