"""Whom a connection of ours trusts."""

import ssl


def trusting(ca: str | None) -> ssl.SSLContext:
    """A context that trusts only the authorities in the file *ca*, or the system's without one.

    Python 3.13 began to refuse authorities whose certificate lacks what RFC 5280 asks for (no key
    usage, for example), as plants' own often do. A gateway whose base system goes from Debian 12
    to 13 must not lose its broker by that: chain, name and time are checked as before.

    Raises:
        OSError: *ca* cannot be read, or holds no certificate (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def named_files(ca: str | None, cert: str | None, key: str | None) -> str:
    """The files that a connection is told to use, as a message names them."""
    named = {"ca": ca, "cert": cert, "key": key}
    return ", ".join(f"{name} {path}" for name, path in named.items() if path is not None)
