"""The whole of a gateway's data as one archive, also while the agent runs; and back again."""

import os
import shutil
import sqlite3
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from agent.core.errors import AgentError
from agent.storage.database import FILE
from agent.storage.files import FOLDER, sync_folder

CONFIG: Final = "edge-agent.yaml"
"""Name of the configuration in the archive."""

BESIDE: Final = ("conf.d", "profiles")
"""Folders beside the configuration whose ``*.yaml`` belong to it."""

_DATA: Final = "data"
_FILTER: Final[Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def pack(data_dir: Path, config: Path | None, target: Path) -> int:
    """Write *target* (.tar.gz) with everything in *data_dir*; how many files.

    The tables are copied first, as they are at one instant. Block files only grow, so each holds
    at least what the tables say; one that is given up meanwhile is counted as missing later.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as folder:
        tables = Path(folder) / FILE
        _copy_tables(data_dir / FILE, tables)
        part = Path(folder) / "part"
        with tarfile.open(part, "w:gz", compresslevel=6) as archive:
            archive.add(tables, f"{_DATA}/{FILE}")
            count = 1
            if config is not None and config.is_file():
                archive.add(config, CONFIG)
                beside = _beside(config)
                for path in beside:
                    archive.add(path, f"{path.parent.name}/{path.name}")
                count += 1 + len(beside)
            for path in sorted(data_dir.rglob("*")):
                name = path.relative_to(data_dir)
                if path.is_file() and not _skipped(name):
                    try:
                        archive.add(path, f"{_DATA}/{name}")
                        count += 1
                    except FileNotFoundError:  # given up in this moment
                        continue
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o600)
        part.rename(target)
    sync_folder(target.parent)
    return count


def _beside(config: Path) -> list[Path]:
    return [path for name in BESIDE for path in sorted(config.with_name(name).glob("*.yaml"))]


def _skipped(name: Path) -> bool:
    """The live tables, what was set aside, sockets, half-written files, and the gateway's own key:
    a box that takes its place learns with one of its own.
    """
    return name.name.startswith(FILE) or name.suffix in {".sock", ".part", ".tmp", ".key"}


def _copy_tables(source: Path, target: Path) -> None:
    try:
        live = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            copy = sqlite3.connect(target)
            try:
                live.backup(copy)
            finally:
                copy.close()
        finally:
            live.close()
    except sqlite3.Error as e:
        raise AgentError(
            f"the journal cannot be copied ({e})",
            where=str(source),
            fix="Start the agent once, or name its configuration with --config.",
            code="E506",
        ) from e


def config_in(source: Path) -> str:
    """The configuration in a backup; empty when there is none. Raises `AgentError`."""
    try:
        with tarfile.open(source, "r:gz") as archive:
            file = archive.extractfile(CONFIG)
            return file.read().decode() if file is not None else ""
    except KeyError:
        return ""
    except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as e:
        raise _no_backup(source, e) from e


def _no_backup(source: Path, error: Exception) -> AgentError:
    return AgentError(
        f"this is no backup of an agent ({error})",
        where=str(source),
        fix="Name a file that `edge-agent backup` has written.",
        code="E510",
    )


def unpack(source: Path, data_dir: Path, config: Path) -> bool:
    """Put everything back, under a new lineage; whether *config* was taken from the archive.

    Raises `AgentError` when there is a journal already, or the file is no backup.
    """
    if (data_dir / FILE).exists() or (data_dir / FOLDER).exists():
        raise AgentError(
            "there is a journal already",
            where=str(data_dir),
            fix="Stop the agent and move its data away first; nothing is overwritten.",
            code="E509",
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=".restore-") as name:
        folder = Path(name)
        try:
            with tarfile.open(source, "r:gz") as archive:
                _extract(archive, folder)
            _new_lineage(folder / _DATA / FILE)
        except (tarfile.TarError, OSError, EOFError, sqlite3.Error) as e:
            raise _no_backup(source, e) from e
        _own(folder, data_dir.stat())
        parts = sorted((folder / _DATA).iterdir(), key=lambda p: p.name == FILE)
        for path in parts:  # the tables last: without them there is nothing to start from
            path.rename(data_dir / path.name)
        sync_folder(data_dir)
        taken = (folder / CONFIG).is_file() and not config.exists()
        if taken:
            config.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / CONFIG, config)
            for path in _beside(folder / CONFIG):
                there = config.with_name(path.parent.name) / path.name
                there.parent.mkdir(exist_ok=True)
                if not there.exists():
                    shutil.copy2(path, there)
    return taken


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Plain files and folders below *folder*; Debian 12 has no filter for that yet."""
    for member in archive.getmembers():
        plain = member.isfile() or member.isdir()
        if not plain or member.name.startswith("/") or ".." in Path(member.name).parts:
            raise tarfile.TarError(f"{member.name} does not belong there")
        archive.extract(member, folder, **_FILTER)


def _new_lineage(tables: Path) -> None:
    """The machine that goes on has another name: the one before may have gone on as well."""
    if not tables.is_file():
        raise FileNotFoundError(2, "no tables in it", str(tables))
    conn = sqlite3.connect(tables)
    try:
        conn.execute("UPDATE meta SET value = 'restored' WHERE key = 'machine'")
        conn.commit()
    finally:
        conn.close()


def _own(folder: Path, like: os.stat_result) -> None:
    """Give everything to whom the data belongs, when root does this."""
    if os.geteuid() == 0:
        for path in folder.rglob("*"):
            os.chown(path, like.st_uid, like.st_gid)
