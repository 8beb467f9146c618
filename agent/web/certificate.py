"""A certificate of the gateway's own for its page."""

import ipaddress
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make(cert: Path, key: Path, address: str, days: int) -> str:
    """Write a key and a self-signed certificate for *address*; its SHA-256 fingerprint."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:64])])
    now = datetime.now(UTC)
    ips = [x509.IPAddress(ipaddress.ip_address(one)) for one in _addresses(address)]
    names = [*ips, x509.DNSName(socket.gethostname())]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    cert.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain
            )
        )
    return made.fingerprint(hashes.SHA256()).hex(":").upper()


def _addresses(address: str) -> list[str]:
    """*address*; where that means all of them, every address of this machine."""
    if not ipaddress.ip_address(address).is_unspecified:
        return [address]
    found = (a for some in psutil.net_if_addrs().values() for a in some)
    kinds = (socket.AF_INET, socket.AF_INET6)
    return sorted({a.address.partition("%")[0] for a in found if a.family in kinds})
