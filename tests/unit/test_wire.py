"""Frames put together from whatever pieces a socket delivers."""

import socket
from collections.abc import Iterator

import pytest

from agent.inference import wire

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a stream."""
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def test_a_frame_in_single_bytes_is_the_frame(pair: Pair) -> None:
    """However a frame is cut on its way, it arrives as it was sent."""
    inbox = wire.Inbox(wire.REPLY, 100)
    for byte in wire.REPLY.pack(5, 1, 2) + b"hello":
        pair[0].send(bytes([byte]))
        frame = inbox.receive(pair[1])
    assert frame is not None
    assert frame[0] == (5, 1, 2)
    assert bytes(frame[1]) == b"hello"


def test_a_frame_larger_than_the_buffer_arrives_whole(pair: Pair) -> None:
    """A model of many megabytes is one frame, and the next small one is right again."""
    inbox, large = wire.Inbox(wire.REPLY, 10_000_000), bytes(range(256)) * 2000
    pair[0].setblocking(False)
    for payload in (large, b"small"):
        rest: memoryview | None = memoryview(wire.REPLY.pack(len(payload), 1, 0) + payload)
        frame = None
        while frame is None:
            if rest:
                rest = wire.send(pair[0], [rest])
            frame = inbox.receive(pair[1])
        assert bytes(frame[1]) == payload


@pytest.mark.parametrize(
    "sent",
    [wire.REPLY.pack(101, 1, 0), wire.REPLY.pack(2**63, 1, 0), wire.REPLY.pack(1, 1, 0) + b"ab"],
)
def test_what_is_no_frame_is_refused_before_memory_is_taken(pair: Pair, sent: bytes) -> None:
    """A size beyond the limit, or more than the one frame that is due, ends the connection."""
    pair[0].send(sent)
    with pytest.raises(wire.WireError):
        wire.Inbox(wire.REPLY, 100).receive(pair[1])


def test_the_end_of_the_stream_is_told(pair: Pair) -> None:
    """A closed socket is the end, also in the middle of a frame."""
    pair[0].send(wire.REPLY.pack(5, 1, 0))
    inbox = wire.Inbox(wire.REPLY, 100)
    assert inbox.receive(pair[1]) is None
    pair[0].close()
    with pytest.raises(EOFError):
        inbox.receive(pair[1])
