"""Certificates for tests: an authority, and who it vouches for on 127.0.0.1."""

import ssl
import subprocess
from pathlib import Path

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A certificate authority in a folder: ``ca.crt``, and ``NAME.crt`` with ``NAME.key``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._openssl("req", "-x509", *_EC, "-days", "90", "-keyout", "ca.key", "-out", "ca.crt",
                      "-subj", "/CN=ca")  # fmt: skip
        self.ca = str(folder / "ca.crt")

    def issue(self, name: str, days: int = 2) -> tuple[str, str]:
        """Paths of a new certificate for 127.0.0.1, good for *days*, and of its key."""
        (self._folder / "san").write_text("subjectAltName=IP:127.0.0.1\n", encoding="utf-8")
        self._openssl("req", *_EC, "-keyout", f"{name}.key", "-out", f"{name}.csr",
                      "-subj", f"/CN={name}")  # fmt: skip
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                      "-CAcreateserial", "-days", str(days), "-out", f"{name}.crt",
                      "-extfile", "san")  # fmt: skip
        return str(self._folder / f"{name}.crt"), str(self._folder / f"{name}.key")

    def server(self) -> ssl.SSLContext:
        """A server that wants to see a certificate of this authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(*self.issue("server"))
        return context

    def _openssl(self, *args: str) -> None:
        subprocess.run(
            ["openssl", *args], cwd=self._folder, check=True, capture_output=True, timeout=30
        )
