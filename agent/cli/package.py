"""`edge-agent models pack | fit | inspect | verify | sign | keygen`: packages, without an agent."""

import hashlib
import json
import logging
import os
from argparse import ArgumentParser, Namespace
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from agent.cli.args import OK, add_json
from agent.cli.package_files import PRIVATE, bytes_of, public_of, seed_of, spec_of, write, yaml_of
from agent.codecs import envelope as dsse
from agent.codecs.envelope import Envelope
from agent.core.errors import AgentError, PermanentError

VERBS: Final = ("pack", "fit", "inspect", "verify", "sign", "keygen")
_MAX_FALSE: Final = 0.05
"""Share of healthy rows that a sane detector may flag."""


def add(actions: Any) -> None:
    """Arguments of the five verbs."""
    pack = _verb(actions, "pack", "make a package from an ONNX file, a YAML and healthy rows")
    pack.add_argument("model", type=Path, help="the ONNX file")
    pack.add_argument("spec", type=Path, help="name, channels, window ... (docs/models.md)")
    pack.add_argument("rows", type=Path, help="CSV of healthy rows")
    pack.add_argument("-o", "--output", type=Path, default=Path(), help="folder (default: here)")
    fit = _verb(actions, "fit", "a package for one machine, fitted to its healthy rows")
    fit.add_argument("manifest", type=Path, help="the .manifest; the model file lies beside it")
    fit.add_argument("rows", type=Path, help="CSV of healthy rows of that machine")
    fit.add_argument("--name", required=True, help="name of the fitted model")
    fit.add_argument("--release", type=int, default=1, help="its release (default: 1)")
    fit.add_argument("-o", "--output", type=Path, default=Path(), help="folder (default: here)")
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
    from agent.logs import configure  # noqa: PLC0415 - for these verbs alone: the others only ask

    configure(level=logging.WARNING)
    facts = _DO[args.action](args)
    if args.json:
        print(json.dumps(facts, indent=2, default=str))
    else:
        print("\n".join(f"{key}: {_plain(value)}" for key, value in facts.items()))
    return OK


def _pack(args: Namespace) -> dict[str, Any]:
    import asyncio  # noqa: PLC0415 - and numpy and pydantic: they take their time

    from agent.app.packing import pack  # noqa: PLC0415

    model, spec = bytes_of(args.model), spec_of(args.spec)
    packed = asyncio.run(pack(model, spec, _healthy(args.rows, spec), _now()))
    return _made(args, model, packed)


def _fit(args: Namespace) -> dict[str, Any]:
    import asyncio  # noqa: PLC0415

    from agent.app.packing import fit  # noqa: PLC0415
    from agent.config.manifest import read  # noqa: PLC0415

    where = str(args.manifest)
    envelope = dsse.read(bytes_of(args.manifest), where, dsse.MANIFEST)
    parent = read(envelope.payload, where)
    healthy = _healthy(args.rows, parent)
    changes = {
        "name": args.name,
        "version": f"{parent.version}+{args.release}",
        "release": args.release,
        "provenance": parent.provenance
        | {
            "parent": f"{parent.name} {parent.version}, release {parent.release}",
            "parent_sha256": hashlib.sha256(envelope.payload).hexdigest(),
            "fitted": ", ".join(parent.fit),
            "fitted_rows": f"{len(healthy)} of {args.rows.name}",
        },
    }
    model = bytes_of(args.manifest.with_suffix(".onnx"))
    return _made(args, model, asyncio.run(fit(model, parent, changes, healthy, _now())))


def _healthy(path: Path, spec: Any) -> Any:
    """The rows of a CSV as a package describes them."""
    from agent.codecs.rows import read_csv  # noqa: PLC0415

    columns = {c.name: c.column or c.name for c in spec.channels}
    rates = [c.rate_hz for c in spec.channels if c.rate_hz]
    return read_csv(path, columns, 1 / rates[0] if rates else 1.0)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _made(args: Namespace, model: bytes, packed: Any) -> dict[str, Any]:
    """Write a package; what its maker should know."""
    spec = packed.manifest
    text = packed.manifest.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    data = dsse.write(Envelope(dsse.MANIFEST, text.encode()))
    if len(data) > dsse.MAX_ENVELOPE:
        raise PermanentError(
            f"the manifest would have {len(data)} bytes, more than {dsse.MAX_ENVELOPE}",
            where=f"{spec.name} {spec.version}",
            fix="Use a smaller window, or fewer channels.",
            code="E682",
        )
    stem = args.output / f"{spec.name}-{spec.version}"
    write(stem.with_name(stem.name + ".onnx"), model)
    write(stem.with_name(stem.name + ".manifest"), data)
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

    data = bytes_of(args.file)
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
    import asyncio  # noqa: PLC0415

    from agent.app.packing import verify  # noqa: PLC0415
    from agent.config.manifest import parse  # noqa: PLC0415

    where = str(args.manifest)
    envelope = dsse.read(bytes_of(args.manifest), where, dsse.MANIFEST)
    manifest = parse(envelope.payload, where)
    signer = _signer(args, envelope, manifest.name)
    model = bytes_of(args.manifest.with_suffix(".onnx"))
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
        return signer(bytes_of(args.keyring), public_of(args.root or ""), envelope, name)
    public = public_of(args.key)
    if not dsse.signed_by(envelope, public):
        raise PermanentError(
            f"it is not signed by {dsse.key_id(public)}",
            where=str(args.manifest),
            fix="Sign it with that key, or do not trust it.",
            code="E684",
        )
    return dsse.key_id(public)


def _sign(args: Namespace) -> dict[str, Any]:
    seed, data, target = seed_of(args.key), bytes_of(args.file), args.output
    if data.lstrip().startswith(b"{"):
        envelope = dsse.read(data, str(args.file), dsse.MANIFEST)
        target = target or args.file
    else:
        envelope = Envelope(dsse.KEYRING, _keyring(args.file, data))
        target = target or args.file.with_suffix(".json")
    signed = dsse.sign(envelope, seed)
    write(target, dsse.write(signed))
    return {"signed": target, "signed_by": [k for k, _ in signed.signatures]}


def _keyring(path: Path, data: bytes) -> bytes:
    """A keyring as YAML -> what is signed."""
    from agent.registries.keyring import read  # noqa: PLC0415

    raw = {"created": _now().isoformat(), **yaml_of(path, data)}
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
        file.write(PRIVATE + b64encode(seed).decode() + "\n")
    text = dsse.public_text(public)
    write(args.file.with_name(args.file.name + ".pub"), text.encode() + b"\n")
    return {"private": args.file, "public": text, "id": dsse.key_id(public)}


_DO: Final = {
    "pack": _pack,
    "fit": _fit,
    "inspect": _inspect,
    "verify": _verify,
    "sign": _sign,
    "keygen": _keygen,
}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
