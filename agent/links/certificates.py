"""How long certificates are good for."""

import math
from datetime import datetime
from pathlib import Path


def days_left(cert: str | None, ca: str | None, now: datetime) -> float:
    """Days until the first certificate of the chain in *cert* is over, or the last one in *ca*.

    A file of authorities may keep an old one beside its successor: there the last one counts.
    NaN when no file can be read: who connects with them says so.
    """
    ends = [*_ends(cert)[:1], *_ends(ca)[-1:]]
    return min(((end - now).total_seconds() / 86400.0 for end in ends), default=math.nan)


def _ends(path: str | None) -> list[datetime]:
    """When the certificates of a PEM file are over, in order of time."""
    from cryptography import x509  # noqa: PLC0415 - only for gateways that have certificates

    try:
        found = x509.load_pem_x509_certificates(b"" if path is None else Path(path).read_bytes())
    except (OSError, ValueError):
        return []
    return sorted(one.not_valid_after_utc for one in found)
