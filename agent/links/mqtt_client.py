"""paho's client as the link uses it: sockets that are closed, and PUBACKs that cost little."""

import socket
import ssl
import struct
from typing import Any, Final, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.links.mqtt_peer import MAX_PACKET

CONNECT_TIMEOUT_S: Final = 10.0

_RECEIVE: Final = 4096
"""Bytes asked from the socket at least."""

_AT_ONCE: Final = 65536
"""Bytes asked from the socket at most: the room for them is taken before they come."""

_TAKEN: Final = ReasonCode(PacketTypes.PUBACK)
_NOBODY: Final = ReasonCode(PacketTypes.PUBACK, identifier=0x10)
_ANSWERS: Final = {b"": _TAKEN, b"\x10": _NOBODY, b"\x10\0": _NOBODY}
"""What stands behind the packet id of nearly every PUBACK: taken, or taken for no subscriber."""

_NO_PROPERTIES: Final = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]


_COUNTERS: Final = struct.Struct("=120xQQ")
"""Where struct tcp_info of Linux has ``tcpi_bytes_acked`` and ``tcpi_bytes_received``."""


def carried(sock: Any) -> int:
    """Bytes that a TCP connection has carried both ways, each once, without its own heads."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTERS.size)
        acked, received = _COUNTERS.unpack(info)
    except (OSError, AttributeError, struct.error):
        return 0
    return max(0, int(acked) + int(received) - 1)  # the SYN counts as one


class Client(paho.Client):
    """paho, connecting to an address that was looked up without it, and cheaper per PUBACK.

    paho asks the kernel for every byte of a packet's head, and builds tables of reason codes and
    properties for each PUBACK, though nearly all of them say "taken" in two to four bytes.

    Attributes:
        unread: Bytes taken from the socket that paho has not asked for yet.
    """

    address = ""
    unread = b""

    def _create_socket_connection(self) -> socket.socket:
        return socket.create_connection((self.address, self._port), timeout=CONNECT_TIMEOUT_S)

    def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
        """As paho does it, but a handshake that fails leaves no socket open."""
        if self._ssl_context is None:
            raise ValueError("TLS without its settings")
        sock = self._ssl_context.wrap_socket(
            tcp_sock, server_hostname=self._host, do_handshake_on_connect=False
        )
        try:
            sock.settimeout(CONNECT_TIMEOUT_S)
            sock.do_handshake()
        except (OSError, ValueError):
            sock.close()
            raise
        return sock

    def _sock_recv(self, bufsize: int) -> bytes:
        data = self.unread or super()._sock_recv(min(max(bufsize, _RECEIVE), _AT_ONCE))
        self.unread = data[bufsize:]
        return data[:bufsize]

    def _packet_read(self) -> MQTTErrorCode:
        """What a broker sends beyond the largest packet is read and let go: MQTT 3.1.1 cannot
        forbid a message of 256 MB, and a session would bring it again and again.
        """
        code = super()._packet_read()
        if self._in_packet["remaining_length"] > MAX_PACKET:
            del self._in_packet["packet"][MAX_PACKET:]
        return code

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        reason = _ANSWERS.get(bytes(packet[2:]))
        if reason is None or len(packet) < 2 or cmd != "PUBACK":
            return super()._handle_pubackcomp(cmd)
        mid = packet[0] << 8 | packet[1]
        with self._out_message_mutex:
            if mid in self._out_messages:
                return self._do_on_publish(mid, reason, _NO_PROPERTIES)
        return MQTTErrorCode.MQTT_ERR_SUCCESS
