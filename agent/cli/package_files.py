"""The files that `edge-agent models pack` and its like read and write."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any, Final

from agent.codecs import envelope as dsse
from agent.core.errors import AgentError, PermanentError

PRIVATE: Final = "edge-agent-private-key:"


def spec_of(path: Path) -> Any:
    """A description of a package, as a person has written it."""
    from pydantic import ValidationError  # noqa: PLC0415

    from agent.config.manifest import PackSpec, told  # noqa: PLC0415

    try:
        raw = json.dumps(yaml_of(path, bytes_of(path)))
        return PackSpec.model_validate_json(raw)
    except ValidationError as e:
        raise PermanentError(
            f"this describes no package ({told(e)})",
            where=str(path),
            fix="Correct it; docs/models.md shows one.",
            code="E682",
        ) from e


def yaml_of(path: Path, data: bytes) -> dict[str, Any]:
    """YAML as the configuration reads it."""
    from agent.config.document import parse  # noqa: PLC0415

    document = parse(data.decode("utf-8", "replace"))
    for problem in document.problems:
        raise PermanentError(
            problem.what, where=f"{path}:{problem.line}", fix=problem.fix, code="E682"
        )
    return document.data if isinstance(document.data, dict) else {}


def seed_of(path: Path) -> bytes:
    """The private key in a file."""
    text = bytes_of(path).decode("ascii", "replace").strip()
    try:
        seed = b64decode(text.removeprefix(PRIVATE), validate=True)
    except ValueError:
        seed = b""
    if len(seed) != 32 or not text.startswith(PRIVATE):
        raise PermanentError(
            "this is no private key",
            where=str(path),
            fix="Use a file made by `edge-agent models keygen`.",
            code="E692",
        )
    return seed


def public_of(text: str) -> bytes:
    """A public key as somebody has typed it."""
    try:
        return dsse.public_key(text)
    except ValueError as e:
        raise PermanentError(f"{text!r}: {e}", fix="Give the whole line.", code="E692") from e


def bytes_of(path: Path) -> bytes:
    """A whole file."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise AgentError(
            f"it cannot be read ({e.strerror})",
            where=str(path),
            fix="Correct the path.",
            code="E692",
        ) from e


def write(path: Path, data: bytes) -> None:
    """In one step: a package is whole, or not there."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(data)
        new.replace(path)
    except OSError as e:
        raise AgentError(
            f"it cannot be written ({e.strerror})",
            where=str(path),
            fix="Choose another folder.",
            code="E692",
        ) from e
