"""How to reach Modbus devices: TCP, TLS, a serial line, or a serial line behind TCP."""

import asyncio
import errno
import grp
import os
import ssl
import termios
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.client.base import ModbusBaseClient
from pymodbus.framer import FramerType

from agent.config.cures import readable
from agent.links.modbus_line import Line
from agent.links.modbus_rtu import Late, RtuLine, Timing
from agent.links.names import Lookup
from agent.links.tls import named_files, trusting


class NotConnected(Exception):
    """There is no connection now; the text says why, in a technician's words."""


class Dial(Protocol):
    """Makes connections to one place, again and again."""

    async def connect(self, timeout_s: float) -> Line:
        """A new connection; raises `NotConnected`."""
        ...


@dataclass(slots=True, eq=False)
class TcpDial:
    """MBAP over TCP, or over TLS (Modbus/TCP Security, the same frames inside).

    Attributes:
        tls: Files of CA, certificate and key; None for plain TCP.
    """

    host: str
    port: int
    tls: "TlsFiles | None" = None
    _lookup: Lookup = field(init=False)

    def __post_init__(self) -> None:
        self._lookup = Lookup(self.host)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    async def connect(self, timeout_s: float) -> Line:
        """A connection with MBAP framing."""
        client = await self.client(timeout_s)
        line = Line(client)
        if self.tls is not None:
            # pymodbus' own TLS client takes every TLS record for a frame, and the address for
            # the name in the certificate.
            line.call_create = partial(
                asyncio.get_running_loop().create_connection,
                line.handle_new_connection,
                client.comm_params.host,
                self.port,
                ssl=await asyncio.to_thread(self.tls.context),
                server_hostname=self.host,
            )
        return await _opened(line, str(self), timeout_s)

    async def client(self, timeout_s: float) -> ModbusBaseClient:
        """pymodbus' client for the next address of the host, not yet connected."""
        address = await _address(self._lookup, self.host, _limit(timeout_s))
        return AsyncModbusTcpClient(address, port=self.port, retries=0, reconnect_delay=0)


@dataclass(slots=True, eq=False)
class RtuTcpDial:
    """RTU frames over a TCP connection to a serial server."""

    host: str
    port: int
    timing: Timing
    _late: Late = field(default_factory=dict)
    _tcp: TcpDial = field(init=False)

    def __post_init__(self) -> None:
        self._tcp = TcpDial(self.host, self.port)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    async def connect(self, timeout_s: float) -> Line:
        """A connection with RTU framing."""
        client = await self._tcp.client(timeout_s)
        line = RtuLine(client, self.timing, self._late, stream=True)
        return await _opened(line, str(self), timeout_s)


@dataclass(frozen=True, slots=True)
class Port:
    """A serial port and how to talk on it.

    Attributes:
        parity: ``N``, ``E`` or ``O``.
        rs485: Let the kernel switch the driver of a two-wire line (TIOCSRS485).
        rts_on_send: RTS level while sending, with *rs485*.
        turn_s: Seconds between switching and sending, and after sending, with *rs485*.
    """

    path: str
    baud: int
    bits: int
    parity: str
    stop: int
    rs485: bool = False
    rts_on_send: bool = True
    turn_s: float = 0.0


@dataclass(slots=True, eq=False)
class SerialDial:
    """RTU on a serial port."""

    port: Port
    timing: Timing
    _late: Late = field(default_factory=dict)

    def __str__(self) -> str:
        return self.port.path

    async def connect(self, timeout_s: float) -> Line:
        """The opened port."""
        port = self.port
        client = AsyncModbusSerialClient(
            node(port.path),
            framer=FramerType.RTU,
            baudrate=port.baud,
            bytesize=port.bits,
            parity=port.parity,
            stopbits=port.stop,
            retries=0,
            reconnect_delay=0,
        )
        line = RtuLine(client, self.timing, self._late, stream=False)
        try:
            await _opened(line, f"the serial port {port.path}", timeout_s)
        except NotConnected as e:
            if cure := _admitted(port.path):
                raise NotConnected(f"{e}: {cure}") from e
            raise
        if port.rs485:
            self._switch(line)
        return line

    def _switch(self, line: Line) -> None:
        from serial.rs485 import RS485Settings  # noqa: PLC0415 - for those who need it

        transport: Any = line.transport
        try:
            transport.sync_serial.rs485_mode = RS485Settings(
                rts_level_for_tx=self.port.rts_on_send,
                rts_level_for_rx=not self.port.rts_on_send,
                delay_before_tx=self.port.turn_s,
                delay_before_rx=self.port.turn_s,
            )
        except (OSError, ValueError) as e:
            line.end()
            raise NotConnected(
                f"{self.port.path} cannot switch an RS-485 driver ({e}); its converter may do so "
                f"by itself: leave `rs485` out"
            ) from e


_HOST: Final = Path("/dev/host")
"""Where our unit shows the machine's /dev, for its own holds no ports (edge-agent.service)."""


def node(path: str, host: Path = _HOST) -> str:
    """Where this process finds the serial port *path* of the machine, links followed."""
    if not host.is_dir():
        return path
    there = Path(path)
    for _ in range(8):  # more links in a row are a loop
        there = host / path.removeprefix("/dev/") if path.startswith("/dev/") else Path(path)
        if not there.is_symlink():
            break
        path = os.path.normpath(Path(path).parent / there.readlink())
    return str(there)


def _admitted(path: str) -> str:
    """The command that lets the agent open a port which is there and is refused; else empty."""
    where = node(path)
    try:
        os.close(os.open(where, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    except PermissionError as e:
        if e.errno == errno.EACCES:  # by the file's own rights
            group = _group(Path(where).stat().st_gid)
            if group == "root":
                return f"run: sudo chgrp dialout {path}"
            return f"run: sudo usermod -aG {group} edge-agent && sudo systemctl restart edge-agent"
        kind = _driver(os.major(Path(where).stat().st_rdev))
        return f"run: sudo systemctl set-property edge-agent DeviceAllow='char-{kind} rw'"
    except OSError:
        pass
    return ""


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _driver(major: int) -> str:
    """The name that a unit's `DeviceAllow=` knows a kind of device by."""
    lines = Path("/proc/devices").read_text(encoding="ascii").partition("Block")[0].splitlines()
    return next((s.split()[1] for s in lines if s.split()[:1] == [str(major)]), str(major))


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What both sides prove themselves with (Modbus/TCP Security: certificates on both)."""

    ca: str | None
    cert: str | None
    key: str | None

    def context(self) -> ssl.SSLContext:
        """A context that trusts only *ca* (else the system's); reads files."""
        try:
            context = trusting(self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as e:
            raise NotConnected(
                f"the certificate files cannot be read ({e}): "
                f"{named_files(self.ca, self.cert, self.key)}. "
                f"{readable(self.ca, self.cert, self.key)}".rstrip()
            ) from e
        return context


def _limit(timeout_s: float) -> float:
    """Seconds that a look-up or a connection may take."""
    return max(timeout_s, 1.0)


async def _address(lookup: Lookup, host: str, limit_s: float) -> str:
    try:
        async with asyncio.timeout(limit_s):
            return await lookup.address()
    except TimeoutError as e:
        raise NotConnected(f"the name {host} could not be looked up within {limit_s:g} s") from e
    except OSError as e:
        raise NotConnected(f"the name {host} is not known ({e.strerror or e})") from e


async def _opened(line: Line, where: str, timeout_s: float) -> Line:
    """*line*, connected. pymodbus' own `connect` keeps the reason of a failure to itself."""
    try:
        async with asyncio.timeout(_limit(timeout_s)):
            line.transport, _ = await line.call_create()
    except TimeoutError as e:
        raise NotConnected(f"{where} did not answer within {_limit(timeout_s):g} s") from e
    except ssl.SSLCertVerificationError as e:
        raise NotConnected(f"the certificate of {where} is not accepted: {e.verify_message}") from e
    except (OSError, ValueError, termios.error) as e:
        raise NotConnected(f"{where} {_refusal(e)}") from e
    return line


def _refusal(error: Exception) -> str:
    """Why there is no connection, and what to look at."""
    match error.args[0] if error.args else None:
        case errno.ENOENT:
            return "is not there: is the converter plugged in?"
        case errno.EACCES:
            return "may not be opened by the user of the agent"
        case errno.EPERM:
            return "may not be opened by this service"
        case errno.ECONNREFUSED:
            return "refuses the connection: check address, port, and that the service is on"
        case errno.EHOSTUNREACH | errno.ENETUNREACH:
            return "cannot be reached: check cable, address and netmask"
        case errno.EINVAL:
            return "cannot be set to this baud rate, parity and stop bits"
        case _:
            return f"does not take the connection ({getattr(error, 'strerror', '') or error})"
