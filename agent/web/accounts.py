"""Who may do what on the page: accounts with a role, one-time codes, sessions, patience."""

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from agent.core.errors import PermanentError

SESSION_S: Final = 8 * 3600.0
"""A shift; then the password is asked for again."""

CODE_S: Final = 3600.0
"""A one-time code is good for so long."""

MIN_LENGTH: Final = 10
"""Characters of a password (NIST SP 800-63B asks for 8 at least)."""

TRIES: Final = 5
WITHIN_S: Final = 60.0
"""More wrong passwords than `TRIES` within `WITHIN_S` from one address must wait."""

MAX_ADDRESSES: Final = 1000
"""Addresses whose wrong passwords are remembered."""


class Role(IntEnum):
    """What somebody may do; each may do what those before it may."""

    VIEWER = 1
    TECHNICIAN = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has logged in.

    Attributes:
        csrf: What a change must carry besides the cookie.
        until_s: When it ends (monotonic clock).
    """

    user: str
    role: Role
    csrf: str
    until_s: float


class Accounts:
    """Accounts in ``accounts.json`` of *folder*, readable by the agent's user only.

    Args:
        folder: Created when it is needed.
        now_s: A clock that is never set: how long sessions and codes are good.
    """

    def __init__(self, folder: Path, now_s: Callable[[], float] = time.monotonic) -> None:
        self._path, self._now_s = folder / "accounts.json", now_s
        self._sessions: dict[str, Session] = {}
        self._wrong: dict[str, deque[float]] = {}

    def known(self) -> dict[str, Role]:
        """Every account and its role."""
        return {name: Role[a["role"].upper()] for name, a in self._read()["users"].items()}

    def code(self, role: Role = Role.ADMIN) -> str:
        """A new one-time code, with which an account of *role* can be made once."""
        kept, code = self._read(), "-".join(secrets.token_hex(2) for _ in range(4))
        until_s = self._now_s() + CODE_S
        kept["code"] = {"hash": _digest(code), "role": role.name.lower(), "until_s": until_s}
        self._write(kept)
        return code

    def enrol(self, code: str, user: str, password: str, address: str) -> tuple[str, Session]:
        """Make the account that *code* is for and log in: token and session.

        Raises `PermanentError` E761 for the code, E763 when it has to wait, E764 for the rest.
        """
        self._patient(address)
        kept = self._read()
        waiting = kept.get("code") or {"hash": "", "until_s": 0.0}
        good = hmac.compare_digest(waiting["hash"], _digest(code.strip()))
        if not good or not self._now_s() < waiting["until_s"] <= self._now_s() + CODE_S:
            self._wrong[address].append(self._now_s())
            raise PermanentError(
                "this code is not good (any more)",
                fix="Make a new one: `edge-agent web code`.",
                code="E761",
            )
        _check(user, password)
        del kept["code"]
        kept["users"][user] = {"role": waiting["role"]} | _hashed(password)
        self._write(kept)
        return self._session(user, Role[waiting["role"].upper()])

    def log_in(self, user: str, password: str, address: str) -> tuple[str, Session]:
        """Token and session. Raises `PermanentError` E762, or E763 when it has to wait."""
        return self._session(user, self.check(user, password, address))

    def check(self, user: str, password: str, address: str) -> Role:
        """The role of an account. Raises like `log_in`."""
        self._patient(address)
        account = self._read()["users"].get(user)
        if account is None or not _right(account, password):
            self._wrong[address].append(self._now_s())
            raise PermanentError(
                "name or password is wrong",
                fix="An admin makes a new code with `edge-agent web code`.",
                code="E762",
            )
        self._wrong.pop(address, None)
        return Role[account["role"].upper()]

    def session(self, token: str | None) -> Session | None:
        """Who *token* belongs to; None when nobody is logged in with it."""
        found = self._sessions.get(token or "")
        if found is None or found.until_s < self._now_s() or found.user not in self.known():
            self._sessions.pop(token or "", None)
            return None
        return found

    def log_out(self, token: str | None) -> None:
        """Forget the session of *token*."""
        self._sessions.pop(token or "", None)

    def _patient(self, address: str) -> None:
        wrong = self._wrong.setdefault(address, deque(maxlen=TRIES))
        if len(wrong) == TRIES and self._now_s() - wrong[0] < WITHIN_S:
            raise PermanentError(
                "too many wrong passwords", fix="Wait a minute, then try again.", code="E763"
            )
        while len(self._wrong) > MAX_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]

    def _session(self, user: str, role: Role) -> tuple[str, Session]:
        token = secrets.token_urlsafe(32)
        session = Session(user, role, secrets.token_urlsafe(16), self._now_s() + SESSION_S)
        self._sessions[token] = session
        return token, session

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = {}
        return {"users": {}} | (kept if isinstance(kept, dict) else {})

    def _write(self, kept: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path.with_suffix(f".{os.getpid()}")  # a command may write at the same time
        with open(draft, "w", encoding="utf-8", opener=_private) as f:
            json.dump(kept, f)
            f.flush()
            os.fsync(f.fileno())
        draft.replace(self._path)


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _hashed(password: str) -> dict[str, str]:
    salt = secrets.token_bytes(16)
    return {"salt": salt.hex(), "scrypt": _scrypt(password, salt)}


def _right(account: dict[str, str], password: str) -> bool:
    found = _scrypt(password, bytes.fromhex(account["salt"]))
    return hmac.compare_digest(found, account["scrypt"])


def _scrypt(password: str, salt: bytes) -> str:
    """RFC 7914 with 16 MB; about 50 ms, which is what a wrong guess costs."""
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1).hex()


def _check(user: str, password: str) -> None:
    if not re.fullmatch(r"[\w.@-]{1,64}", user):
        what, fix = "this is no name", "Use letters, digits, `_`, `.`, `-` and `@`."
        raise PermanentError(what, fix=fix, code="E764")
    if len(password) < MIN_LENGTH:
        what = f"the password has fewer than {MIN_LENGTH} characters"
        raise PermanentError(what, fix="Choose a longer one.", code="E764")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
