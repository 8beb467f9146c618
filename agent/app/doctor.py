"""What may be wrong around the agent, and how it is cured; nothing is changed or published."""

import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from typing import Any, Final, Literal

from agent.app.alarms import CERTIFICATE_DAYS
from agent.app.certificates import certificates
from agent.app.page import listening
from agent.config.base import Context, Secret
from agent.config.schema import Settings
from agent.config.web import WebSection
from agent.core.errors import AgentError, ConfigError
from agent.core.registry import Registry
from agent.core.stats import Stats
from agent.links.certificates import days_left
from agent.runtime.clock import SystemClock
from agent.storage.database import COUNTER, thread_wrote
from agent.web.pair import fits

Verdict = Literal["ok", "warning", "bad"]

TAKEN_BACK: Final = Path("/var/lib/edge-agent-update/taken-back")
"""Written by deploy/debian/trial.sh when a new version gave way to the one before."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is. Every one that is not ok has its cure."""

    subject: str
    verdict: Verdict
    text: str
    cure: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Clock, disk, secrets, certificates, serial ports: what can be seen on this machine."""
    yield _clock()
    yield from _update()
    yield from _disk(Path(settings.data_dir), settings.journal.min_free)
    yield _wear()
    yield from _secrets(settings)
    yield from _certificates(settings)
    yield from _ports(settings)


def _clock() -> Finding:
    if SystemClock().state == "synced":
        return Finding("clock", "ok", "synchronized")
    cure = "timedatectl set-ntp true; then see `timedatectl timesync-status`."
    return Finding("clock", "warning", "nothing disciplines it: times may be off", cure)


def _update(told: Path = TAKEN_BACK) -> Iterator[Finding]:
    if told.is_file():
        why = told.read_text(encoding="utf-8").strip()
        yield Finding("update", "bad", why, "edge-agent explain E750")


def _disk(folder: Path, min_free: int) -> Iterator[Finding]:
    subject = f"disk {folder}"
    if not folder.is_dir():
        cure = f"install -d -o edge-agent -m 700 {folder}"
        yield Finding(subject, "bad", "the folder does not exist", cure)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        cure = f"chown edge-agent {folder}; is it mounted read-only? (findmnt -T {folder})"
        yield Finding(subject, "bad", "this user cannot write there", cure)
        return
    usage, inodes = shutil.disk_usage(folder), os.statvfs(folder)
    if usage.free < min_free:
        text = f"{usage.free / 1e6:.0f} MB are free, `journal: min_free` wants {min_free / 1e6:.0f}"
        yield Finding(subject, "bad", text, f"Free space: du -xh {folder} | sort -h | tail")
    elif inodes.f_files and inodes.f_favail < 1000:
        yield Finding(
            subject, "bad", "no inodes are left", "Delete small files: df -i shows where."
        )
    else:
        yield Finding(subject, "ok", f"{usage.free / 1e6:.0f} MB free, writable")


def _wear() -> Finding:
    if thread_wrote() is not None:
        return Finding("flash wear", "ok", "measured")
    text = f"not measured, for there is no {COUNTER}: `wear_per_day` slows nothing down [W350]"
    cure = "Use a kernel with CONFIG_TASK_IO_ACCOUNTING; `edge-agent check` estimates it meanwhile."
    return Finding("flash wear", "warning", text, cure)


def _secrets(settings: Settings) -> Iterator[Finding]:
    for name, section in _peers(settings):
        for field in type(section).model_fields:
            secret = getattr(section, field)
            if not isinstance(secret, Secret):
                continue
            if _sealed(secret):
                yield Finding(f"{name} {field}", "ok", "a credential: only the service reads it")
                continue
            try:
                secret.read()
            except AgentError as e:
                yield Finding(f"{name} {field}", "bad", e.what, e.fix)
            else:
                yield Finding(f"{name} {field}", "ok", "readable")


def _certificates(settings: Settings) -> Iterator[Finding]:
    now = datetime.now(UTC)
    for name, files in certificates(settings).items():
        subject, days = f"certificate {name}", days_left(*files, now)
        if isnan(days):
            cure = "Check the paths, and that the user edge-agent may read them."
            named = ", ".join(file for file in files if file)
            yield Finding(subject, "bad", f"{named} cannot be read", cure)
        elif days < CERTIFICATE_DAYS:
            text = f"over in {days:.0f} days" if days > 0 else f"over since {-days:.0f} days"
            cure = "Put a new one in its place, then `edge-agent reload`."
            yield Finding(subject, "warning" if days > 0 else "bad", text, cure)
        else:
            yield Finding(subject, "ok", f"good for {days:.0f} days")
    try:
        fits(settings.web)
    except ConfigError as e:
        yield Finding("certificate web/page", "bad", f"{e.what} [{e.code}]", e.fix)
    for name, section in (*_peers(settings), ("web page", settings.web)):
        key = getattr(section, "key", None)
        if key and _open_to_all(Path(key)):
            yield Finding(f"key {name}", "warning", f"everybody may read {key}", f"chmod 640 {key}")


def _ports(settings: Settings) -> Iterator[Finding]:
    paths = {
        section.connect.removeprefix("rtu://")
        for _, section in _peers(settings)
        if str(getattr(section, "connect", "")).startswith("rtu://")
    }
    for path in sorted(paths):
        subject = f"port {path}"
        if not Path(path).exists():
            cure = "Is the converter plugged in? ls -l /dev/serial/by-id/"
            yield Finding(subject, "bad", "there is no such port", cure)
        elif not os.access(path, os.R_OK | os.W_OK):
            cure = "usermod -aG dialout edge-agent, then restart the service."
            yield Finding(subject, "bad", "this user may not use it", cure)
        else:
            yield Finding(subject, "ok", "there, may be used")


def told_by_agent(status: Mapping[str, Any]) -> Iterator[Finding]:
    """Devices, brokers and models as the running agent sees them: it holds the lines."""
    if status["state"] == "rescue":
        cure = "Correct the file, then: systemctl reload edge-agent."
        yield Finding("collection", "bad", "nothing is read: only the page runs", cure)
        return
    journal = status["journal"]
    cure = "Check the disk of data_dir; `journalctl -u edge-agent -p err`."
    yield (
        Finding("journal", "ok", "on disk")
        if journal["durable"]
        else Finding("journal", "bad", "cannot write: values are sent live only", cure)
    )
    for kind in ("devices", "sinks"):
        for name, facts in status[kind].items():
            subject = f"{kind.removesuffix('s')} {name}"
            error = facts.get("last_error")
            if facts.get("connected", True) and facts["state"] == "running" and not error:
                yield Finding(subject, "ok", "connected")
            else:
                yield Finding(subject, "bad", error or "not connected", _CURES[kind])
    for name, facts in status["models"].items():
        if facts.get("error"):
            yield Finding(f"model {name}", "bad", facts["error"], "See `edge-agent models list`.")
    for name, error in status.get("parts", {}).items():
        yield Finding(name, "bad", error, "Then `edge-agent reload`.")


_START: Final = "systemctl start edge-agent, and ask again."

_CURES: Final = {
    "devices": "Cable, power, address, unit id: `edge-agent probe` and docs/modbus.md.",
    "sinks": "Name, port, certificate, password of the broker; `edge-agent explain CODE`.",
}


async def asked_from_here(settings: Settings) -> AsyncIterator[Finding]:
    """Brokers and registries, asked by this command because no agent runs: connect, say goodbye."""
    ctx = Context(SystemClock(), Stats(), settings.gateway.id, "", Path(settings.data_dir))
    if settings.web is not None:
        yield _page(settings.web)
    for name, section in _peers(settings):
        if not hasattr(section, "probe"):
            continue
        if any(_sealed(getattr(section, field)) for field in type(section).model_fields):
            yield Finding(name, "warning", "not asked: only the service reads its password", _START)
            continue
        try:
            yield Finding(name, "ok", await section.probe(ctx))
        except AgentError as e:
            yield _refused(name, e)
    for name, model in settings.models.items():
        if model.registry is None:
            continue
        origin: Any = settings.registries[model.registry]
        registry: Registry = origin.build(name, ctx)
        subject = f"registry {model.registry}, model {name}"
        try:
            offer = await registry.resolve(name, model.channel or "", None)
        except AgentError as e:
            yield _refused(subject, e)
        else:
            yield Finding(subject, "ok", f"offers version {offer.version}" if offer else "answers")


def _page(section: WebSection) -> Finding:
    try:
        with listening(section):
            return Finding("page", "ok", f"{section.listen} is free")
    except AgentError as e:
        return _refused("page", e)


def _refused(subject: str, e: AgentError) -> Finding:
    cure = e.fix or f"edge-agent explain {e.code}"
    return Finding(subject, "bad", f"{e.what} [{e.code}]", cure)


def _sealed(value: object) -> bool:
    """A secret that systemd gives to the service alone."""
    credential = isinstance(value, Secret) and value.credential is not None
    return credential and "CREDENTIALS_DIRECTORY" not in os.environ


def _peers(settings: Settings) -> Iterator[tuple[str, Any]]:
    groups = {"sink": settings.sinks, "device": settings.devices, "registry": settings.registries}
    for kind, sections in groups.items():
        for name, section in sections.items():
            yield f"{kind} {name}", section


def _open_to_all(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
