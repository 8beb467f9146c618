"""Moves paho's bytes when the loop says so: paho without its thread."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from agent.links.mqtt_client import Client


class Pump:
    """From `start` on, the socket of a connected client belongs to the loop.

    Args:
        full: Whether reading shall rest; `resume` goes on with it.
        at_once: Small packets do not wait for each other.
    """

    def __init__(self, client: Client, full: Callable[[], bool], *, at_once: bool) -> None:
        self._client, self._full, self._at_once = client, full, at_once
        self._loop = asyncio.get_running_loop()
        self._sock: Any = None
        self._watched = self._resting = False

    def start(self) -> bool:
        """Read and write from now on; False when the connection is gone already."""
        client = self._client
        self._sock = client.socket()
        if self._sock is None:
            return False
        if self._at_once:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.on_socket_register_write = self._wants_write
        client.on_socket_unregister_write = self._wrote
        client.on_socket_close = lambda *_: self.stop()
        self._loop.add_reader(self._sock, self._read)
        if client.want_write():
            self._wants_write()
        return True

    def stop(self) -> None:
        """Leave the socket alone."""
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)

    def resume(self) -> None:
        """Read again, if reading rests and there is a connection."""
        if not self._resting or self._client.socket() is None:
            return
        self._resting = False
        self._loop.add_reader(self._sock, self._read)
        if self._client.unread or self._pending():
            self._loop.call_soon(self._read)

    def _wants_write(self, *_: object) -> None:
        self._loop.call_soon(self._write)

    def _write(self) -> None:
        """Write what is queued; watch the socket only while it takes no more, which is rare."""
        client = self._client
        client.loop_write()
        if client.want_write() and client.socket() is not None:
            self._watched = True
            self._loop.add_writer(self._sock, client.loop_write)

    def _wrote(self, *_: object) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        client = self._client
        client.loop_read()
        while client.socket() and (client.unread or self._pending()):
            if self._full():
                break
            client.loop_read()
        if self._full() and not self._resting and client.socket():
            self._resting = True
            self._loop.remove_reader(self._sock)

    def _pending(self) -> bool:
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0
