"""`edge-agent models pack | inspect | verify | sign | keygen`: packages, without an agent."""

import asyncio
import json
import logging
import os
from argparse import ArgumentParser, Namespace
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.cli.args import OK, add_json
from agent.codecs import envelope as dsse
from agent.codecs.envelope import Envelope
from agent.core.errors import AgentError, PermanentError
from agent.logs import configure

VERBS: Final = ("pack", "inspect", "verify", "sign", "keygen")
_PRIVATE: Final = "edge-agent-private-key:"
_MAX_FALSE: Final = 0.05
"""Share of healthy rows that a sane detector may flag."""


def add(actions: Any) -> None:
    """Arguments of the five verbs."""
    pack = _verb(actions, "pack", "make a package from an ONNX file, a YAML and healthy rows")
    pack.add_argument("model", type=Path, help="the ONNX file")
    pack.add_argument("spec", type=Path, help="name, channels, window ... (docs/models.md)")
    pack.add_argument("rows", type=Path, help="CSV of healthy rows")
    pack.add_argument("-o", "--output", type=Path, default=Path(), help="folder (default: here)")
    inspect = _verb(actions, "inspect", "what is in a package, or in an ONNX file")
    inspect.add_argument("file", type=Path, help="a .manifest, a keyring, or an .onnx file")
    verify = _verb(actions, "verify", "check a package as a gateway would, and run its proof")
    verify.add_argument("manifest", type=Path, help="the .manifest; the model file lies beside it")
    verify.add_argument("--key", metavar="ed25519:...", help="it must be signed by this key")
    verify.add_argument("--keyring", type=Path, help="it must be signed by a key of this keyring")
    verify.add_argument("--root", metavar="ed25519:...", help="the root key of the keyring")
    sign = _verb(actions, "sign", "sign a package, or a keyring with the root key")
    sign.add_argument("key", type=Path, help="private key, as keygen made it")
    sign.add_argument("file", type=Path, help="a .manifest, or a keyring as YAML")
    sign.add_argument("-o", "--output", type=Path, help="default: the manifest itself, or .json")
    keygen = _verb(actions, "keygen", "make a key pair")
    keygen.add_argument(
        "file", type=Path, help="where the private key goes; FILE.pub is the other one"
    )


def _verb(actions: Any, name: str, text: str) -> ArgumentParser:
    parser: ArgumentParser = actions.add_parser(name, help=text, description=text)
    add_json(parser)
    return parser


def run(args: Namespace) -> int:
    """Do it, and print what came of it."""
    configure(level=logging.WARNING)
    facts = _DO[args.action](args)
    if args.json:
        print(json.dumps(facts, indent=2, default=str))
    else:
        print("\n".join(f"{key}: {_plain(value)}" for key, value in facts.items()))
    return OK


def _pack(args: Namespace) -> dict[str, Any]:
    from agent.app.packing import pack  # noqa: PLC0415 - numpy and pydantic take their time
    from agent.codecs.rows import read_csv  # noqa: PLC0415

    model, spec = _bytes(args.model), _spec(args.spec)
    columns = {c.name: c.column or c.name for c in spec.channels}
    rates = [c.rate_hz for c in spec.channels if c.rate_hz]
    healthy = read_csv(args.rows, columns, 1 / rates[0] if rates else 1.0)
    packed = asyncio.run(pack(model, spec, healthy, datetime.now(UTC).replace(microsecond=0)))
    text = packed.manifest.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    data = dsse.write(Envelope(dsse.MANIFEST, text.encode()))
    if len(data) > dsse.MAX_ENVELOPE:
        raise PermanentError(
            f"the manifest would have {len(data)} bytes, more than {dsse.MAX_ENVELOPE}",
            where=str(args.spec),
            fix="Use a smaller window, or fewer channels.",
            code="E682",
        )
    stem = args.output / f"{spec.name}-{spec.version}"
    _write(stem.with_name(stem.name + ".onnx"), model)
    _write(stem.with_name(stem.name + ".manifest"), data)
    facts = {
        "package": f"{stem}.manifest",
        "model": f"{stem}.onnx",
        "release": spec.release,
        "healthy_windows": packed.windows,
        "golden": len(packed.manifest.golden),
        "signed_by": "nobody yet: edge-agent models sign KEY FILE",
    }
    if packed.alarms is not None:
        facts["healthy_alarm_share"] = round(packed.alarms, 4)
        if packed.alarms > _MAX_FALSE:
            facts["warning"] = "it alarms on healthy rows: raise `above`, or train it on them"
    return facts


def _inspect(args: Namespace) -> dict[str, Any]:
    from agent.codecs.onnx import scan  # noqa: PLC0415

    data = _bytes(args.file)
    if not data.lstrip().startswith(b"{"):
        found = scan(data, where=str(args.file))
        return {
            "operators": dict(found.operators),
            "opsets": {k or "ai.onnx": v for k, v in found.opsets.items()},
            "weights_bytes": found.weights,
            "ir_version": found.ir_version,
        }
    kind = dsse.MANIFEST if dsse.MANIFEST.encode() in data else dsse.KEYRING
    envelope = dsse.read(data, str(args.file), kind)
    facts: dict[str, Any] = json.loads(envelope.payload)
    if kind == dsse.MANIFEST:
        facts["golden"] = f"{len(facts['golden'])} recordings"
        facts["reference"] = (
            f"of {', '.join((facts.get('reference') or {'columns': ()})['columns'])}"
        )
    return facts | {"signed_by (claimed)": [k for k, _ in envelope.signatures] or "nobody"}


def _verify(args: Namespace) -> dict[str, Any]:
    from agent.app.packing import verify  # noqa: PLC0415
    from agent.config.manifest import parse  # noqa: PLC0415

    where = str(args.manifest)
    envelope = dsse.read(_bytes(args.manifest), where, dsse.MANIFEST)
    manifest = parse(envelope.payload, where)
    signer = _signer(args, envelope, manifest.name)
    model = _bytes(args.manifest.with_suffix(".onnx"))
    windows = asyncio.run(verify(model, manifest))
    return {
        "model": f"{manifest.name} {manifest.version}, release {manifest.release}",
        "signed_by": signer or "not checked: give --key, or --keyring and --root",
        "proven_windows": windows,
    }


def _signer(args: Namespace, envelope: Envelope, name: str) -> str:
    """Who of those that are asked for has signed."""
    from agent.registries.trust import signer  # noqa: PLC0415

    if args.key is None and args.keyring is None:
        return ""
    if args.keyring is not None:
        return signer(_bytes(args.keyring), _public(args.root or ""), envelope, name)
    public = _public(args.key)
    if not dsse.signed_by(envelope, public):
        raise PermanentError(
            f"it is not signed by {dsse.key_id(public)}",
            where=str(args.manifest),
            fix="Sign it with that key, or do not trust it.",
            code="E684",
        )
    return dsse.key_id(public)


def _sign(args: Namespace) -> dict[str, Any]:
    seed, data, target = _seed(args.key), _bytes(args.file), args.output
    if data.lstrip().startswith(b"{"):
        envelope = dsse.read(data, str(args.file), dsse.MANIFEST)
        target = target or args.file
    else:
        envelope = Envelope(dsse.KEYRING, _keyring(args.file, data))
        target = target or args.file.with_suffix(".json")
    signed = dsse.sign(envelope, seed)
    _write(target, dsse.write(signed))
    return {"signed": target, "signed_by": [k for k, _ in signed.signatures]}


def _keyring(path: Path, data: bytes) -> bytes:
    """A keyring as YAML -> what is signed."""
    from agent.registries.keyring import read  # noqa: PLC0415

    now = datetime.now(UTC).replace(microsecond=0)
    raw = {"created": now.isoformat(), **_yaml(path, data)}
    return read(json.dumps(raw).encode(), str(path)).model_dump_json().encode()


def _keygen(args: Namespace) -> dict[str, Any]:
    seed, public = dsse.generate()
    try:
        fd = os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise AgentError(
            f"the key cannot be written ({e.strerror})",
            where=str(args.file),
            fix="Choose a name that does not exist yet: a key is never overwritten.",
            code="E692",
        ) from e
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(_PRIVATE + b64encode(seed).decode() + "\n")
    text = dsse.public_text(public)
    _write(args.file.with_name(args.file.name + ".pub"), text.encode() + b"\n")
    return {"private": args.file, "public": text, "id": dsse.key_id(public)}


_DO: Final = {
    "pack": _pack,
    "inspect": _inspect,
    "verify": _verify,
    "sign": _sign,
    "keygen": _keygen,
}


def _spec(path: Path) -> Any:
    from pydantic import ValidationError  # noqa: PLC0415

    from agent.config.manifest import PackSpec, told  # noqa: PLC0415

    try:
        raw = json.dumps(_yaml(path, _bytes(path)))
        return PackSpec.model_validate_json(raw)
    except ValidationError as e:
        raise PermanentError(
            f"this describes no package ({told(e)})",
            where=str(path),
            fix="Correct it; docs/models.md shows one.",
            code="E682",
        ) from e


def _yaml(path: Path, data: bytes) -> dict[str, Any]:
    from agent.config.document import parse  # noqa: PLC0415

    document = parse(data.decode("utf-8", "replace"))
    for problem in document.problems:
        raise PermanentError(
            problem.what, where=f"{path}:{problem.line}", fix=problem.fix, code="E682"
        )
    return document.data if isinstance(document.data, dict) else {}


def _seed(path: Path) -> bytes:
    text = _bytes(path).decode("ascii", "replace").strip()
    seed = b64decode(text.removeprefix(_PRIVATE)) if text.startswith(_PRIVATE) else b""
    if len(seed) != 32:
        raise PermanentError(
            "this is no private key",
            where=str(path),
            fix="Use a file made by `edge-agent models keygen`.",
            code="E692",
        )
    return seed


def _public(text: str) -> bytes:
    try:
        return dsse.public_key(text)
    except ValueError as e:
        raise PermanentError(f"{text!r}: {e}", fix="Give the whole line.", code="E692") from e


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise AgentError(
            f"it cannot be read ({e.strerror})",
            where=str(path),
            fix="Correct the path.",
            code="E692",
        ) from e


def _write(path: Path, data: bytes) -> None:
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


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
