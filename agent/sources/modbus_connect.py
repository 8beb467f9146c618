"""Where a Modbus device is: ``connect:`` of the file, and how to get there."""

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from agent.config.base import Refusal, Seconds, Section
from agent.links.modbus_dial import Dial, Port, RtuTcpDial, SerialDial, TcpDial, TlsFiles
from agent.links.modbus_rtu import Timing

Scheme = Literal["tcp", "tls", "rtu+tcp", "rtu"]

_NET: Final = re.compile(
    r"^(tcp|tls|rtu\+tcp)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?$"
)
_PORT: Final = re.compile(r"^rtu://(/[^\s?#]+)$")
_DEFAULT: Final[dict[str, int]] = {"tcp": 502, "tls": 802, "rtu+tcp": 502}
"""Registered ports: 502 Modbus, 802 Modbus/TCP Security."""

_PARITY: Final = {"none": "N", "even": "E", "odd": "O"}


class SerialSection(Section):
    """A serial line; what is left out is as the standard says (V1.02 2.5.1: 19200, even, 1)."""

    baud: int = Field(19200, ge=300, le=4_000_000)
    """Bits per second."""
    parity: Literal["none", "even", "odd"] = "even"
    """Parity bit."""
    stop: Literal[1, 2] | None = None
    """Stop bits; 1 with parity, 2 without."""
    rs485: bool = False
    """Let the driver switch the transmitter on and off."""
    rts_on_send: bool = True
    """RTS is high while sending (`rs485` only)."""
    turn_s: Seconds = Field(0.0, alias="turn", le=1)
    """Pause before and after sending (`rs485` only)."""
    pause_s: Seconds = Field(0.0, alias="pause", le=10)
    """Silence between two frames, where the standard's is too short."""
    local_echo: bool = False
    """The line hears itself: what was sent comes back first."""

    @property
    def stop_bits(self) -> int:
        """Without parity a second stop bit takes its place (V1.02 2.5.1)."""
        return self.stop or (2 if self.parity == "none" else 1)

    def timing(self) -> Timing:
        """The clockwork of the line."""
        bits = 9 + (self.parity != "none") + self.stop_bits
        return Timing.of(self.baud, bits, self.pause_s, local_echo=self.local_echo)


@dataclass(frozen=True, slots=True)
class Address:
    """``connect:`` taken apart.

    Attributes:
        at: Host, or path of the serial port. port: TCP port; 0 on a serial line.
    """

    scheme: Scheme
    at: str
    port: int = 0


def parse(value: str) -> Address:
    """``tcp://10.0.0.5:502`` and the like; an error of the file when it is no address."""
    if found := _PORT.match(value):
        return Address("rtu", found[1])
    found = _NET.match(value)
    port = int(found[3] or _DEFAULT[found[1]]) if found else 0
    if not found or not 1 <= port <= 0xFFFF:
        fix = 'Write "tcp://10.0.0.5:502", "tls://…:802", "rtu+tcp://…:4001" or "rtu:///dev/…".'
        raise PydanticCustomError(
            "connect",
            "`{value}` is no Modbus address",
            {"value": value, "code": "E301", "fix": fix},
        )
    scheme: Scheme = found[1]  # type: ignore[assignment]
    return Address(scheme, found[2].strip("[]"), port)


def dial(address: Address, serial: SerialSection | None, tls: TlsFiles) -> Dial:
    """How to get to *address*."""
    if address.scheme == "tcp":
        return TcpDial(address.at, address.port)
    if address.scheme == "tls":
        return TcpDial(address.at, address.port, tls)
    if address.scheme == "rtu+tcp":
        return RtuTcpDial(address.at, address.port, serial.timing() if serial else Timing())
    serial = serial or SerialSection.model_validate({})
    port = Port(
        address.at,
        serial.baud,
        8,
        _PARITY[serial.parity],
        serial.stop_bits,
        serial.rs485,
        serial.rts_on_send,
        serial.turn_s,
    )
    return SerialDial(port, serial.timing())


def misplaced(scheme: Scheme, given: Mapping[str, object]) -> Iterator[Refusal]:
    """Settings of *given* (None: left out) that belong to another kind of connection."""
    fits = {"serial": {"rtu", "rtu+tcp"}, "ca": {"tls"}, "cert": {"tls"}, "key": {"tls"}}
    for name, value in given.items():
        if value is not None and scheme not in fits[name]:
            other = "rtu" if name == "serial" else "tls"
            what = f"`{name}` has no meaning for a device at {scheme}://"
            yield Refusal("E309", what, f"Remove it, or connect by {other}://.", (name,))
    if (given["cert"] is None) != (given["key"] is None):
        what = "a client certificate needs both `cert` and `key`"
        yield Refusal("E309", what, "Give the paths of both PEM files.", ())


def _connectable(value: str) -> str:
    parse(value)
    return value


class LineSection(Section):
    """Base of the devices on a Modbus line: where it is, and how to talk on it."""

    connect: Annotated[str, AfterValidator(_connectable)]
    """`tcp://HOST:502`, `tls://HOST:802`, `rtu+tcp://HOST:502` or `rtu:///dev/serial/by-id/…`."""
    timeout_s: Seconds = Field(1.0, alias="timeout", ge=0.01)
    """A device that takes longer has not answered."""
    serial: SerialSection | None = None
    """Settings of the serial line."""
    ca: str | None = None
    """PEM file of the CA that signed the device's certificate (TLS)."""
    cert: str | None = None
    """PEM file of our own certificate (TLS)."""
    key: str | None = None
    """PEM file of its key (TLS)."""

    @property
    def line(self) -> tuple[Address, Hashable]:
        """The connection, and how to talk on it: devices that share the one must agree."""
        return parse(self.connect), tuple(self.manner.values())

    @property
    def manner(self) -> dict[str, Any]:
        """The settings that say how to talk; None: left out."""
        return {k: getattr(self, k) for k in ("serial", "ca", "cert", "key")}

    def dial(self) -> Dial:
        """How to get there."""
        return dial(parse(self.connect), self.serial, TlsFiles(self.ca, self.cert, self.key))
