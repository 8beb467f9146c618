"""`edge-agent web`: makes the local page reachable at the cabinet, and lets people in."""

import os
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from agent.cli.args import CONFIG, OK, data_dir
from agent.core.errors import AgentError

HELP = "open the local page to others: certificate, address, accounts"

_DAYS: Final = 825
"""How long the certificate is good: what browsers still take for one of their own trust."""


def add(parser: ArgumentParser) -> None:
    """Arguments of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    enable = actions.add_parser("enable", help="make a certificate and listen on an address")
    enable.add_argument("--listen", metavar="IP[:PORT]", required=True, help="of this machine")
    code = actions.add_parser("code", help="a one-time code with which an account is made")
    code.add_argument("--role", choices=("viewer", "technician", "admin"), default="admin")
    for action in (enable, code):
        action.add_argument("-c", "--config", metavar="FILE", help=f"default {CONFIG}")


def run(args: Namespace) -> int:
    """Print what to do next; raises E769 when the data folder cannot be written."""
    from agent.web.accounts import Accounts, Role  # noqa: PLC0415

    folder = data_dir(args) / "web"
    try:
        if args.action == "enable":
            _enable(args, folder)
        role = Role[getattr(args, "role", "admin").upper()]
        code = Accounts(folder).code(role)
        _own(folder)
    except OSError as e:
        raise AgentError(
            f"{e.filename or folder} cannot be written ({e.strerror})",
            fix="Use sudo.",
            code="E769",
        ) from e
    print(f"one-time code ({role.name.lower()}, good for an hour): {code}")
    return OK


def _enable(args: Namespace, folder: Path) -> None:
    """A certificate for the address, and the fragment of the configuration that uses it."""
    from agent.config.fragments import FOLDER  # noqa: PLC0415
    from agent.config.web import WebSection  # noqa: PLC0415
    from agent.web.certificate import make  # noqa: PLC0415

    listen = args.listen if args.listen.rpartition(":")[2].isdigit() else f"{args.listen}:8443"
    cert, key = folder / "cert.pem", folder / "key.pem"
    try:
        section = WebSection(listen=listen, cert=str(cert), key=str(key))
    except ValueError as e:
        raise AgentError(
            f"`{args.listen}` is no address of this machine", fix="Write an IP.", code="E780"
        ) from e
    fingerprint = make(cert, key, section.host, _DAYS)
    fragment = Path(args.config or CONFIG).with_name(FOLDER) / "web.yaml"
    fragment.parent.mkdir(exist_ok=True)
    draft = fragment.with_suffix(".new")
    draft.write_text(f'web: {{listen: "{listen}", cert: "{cert}", key: "{key}"}}\n', "utf-8")
    draft.replace(fragment)
    print(f"written: {fragment}, {cert}, {key}")
    print(f"fingerprint (SHA-256): {fingerprint}")
    print("next: edge-agent apply --wait")
    print(f"then open https://{listen}/ and compare the fingerprint")


def _own(folder: Path) -> None:
    """Give what was made by root to whoever owns the data folder."""
    owner = folder.parent.stat()
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, owner.st_uid, owner.st_gid)
