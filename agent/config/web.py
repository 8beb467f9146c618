"""The local web page: where it listens, and who may see it."""

import ipaddress
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, model_validator
from pydantic_core import PydanticCustomError

from agent.config.base import Section

DEFAULT: Final = "127.0.0.1:8080"


def _address(value: object) -> object:
    if isinstance(value, str):
        host, _, port = value.rpartition(":")
        try:
            ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            if 0 <= int(port) <= 65535:
                return value
        except ValueError:
            pass
    raise PydanticCustomError(
        "listen",
        "`{value}` is no address and port to listen on",
        {"value": str(value), "fix": f"Write `listen: {DEFAULT}`, or an IP of this machine."},
    )


class WebSection(Section):
    """The local web page; off without this section. Off loopback it asks for TLS and a login."""

    listen: Annotated[str, BeforeValidator(_address)] = DEFAULT
    """Address and port. `edge-agent web enable --listen IP` makes what another one needs."""
    cert: str | None = None
    """Certificate of the page (PEM); with `key`. TLS is on where it is given."""
    key: str | None = None
    """Private key of the certificate (PEM)."""
    metrics: Literal["open", "login"] = "login"
    """Who gets `/metrics` where the page needs a login: `open`: everybody."""

    @property
    def host(self) -> str:
        """The address without the port."""
        return self.listen.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        """0: one that the system chooses."""
        return int(self.listen.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """Does it listen for this machine only."""
        return ipaddress.ip_address(self.host).is_loopback

    @model_validator(mode="after")
    def _safe(self) -> "WebSection":
        if (self.cert is None) != (self.key is None):
            told = {"fix": "Write both, or neither."}
            raise PydanticCustomError("web_tls", "`cert` and `key` go together", told)
        if not self.loopback and self.cert is None:
            raise PydanticCustomError(
                "web_tls",
                "a page that others than this machine can reach needs TLS",
                {"fix": f"Run `edge-agent web enable --listen {self.host}`, or use {DEFAULT}."},
            )
        return self
