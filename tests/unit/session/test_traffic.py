"""What the kernel says of a connection, and what follows from it."""

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.waiting import eventually
from whatsapp_operator.session import traffic
from whatsapp_operator.session.traffic import Traffic


def tcp_info(state: int, sent: int, received: int) -> bytes:
    return bytes([state]) + bytes(43) + struct.pack("=III", sent, 0, received) + bytes(176)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (tcp_info(1, 25_000, 24_960), Traffic(25.0, 24.96)),
        (tcp_info(1, 25_000, 24_960)[:56], Traffic(25.0, 24.96)),
        (tcp_info(1, 0, 0), Traffic(0.0, 0.0)),
        (tcp_info(2, 25_000, 24_960), None),
        (tcp_info(8, 25_000, 24_960), None),
        (tcp_info(1, 25_000, 24_960)[:55], None),
        (b"", None),
    ],
)
def test_the_kernels_structure(info: bytes, expected: Traffic | None) -> None:
    assert traffic.parse(info) == expected


@pytest.mark.parametrize(
    ("sent", "received", "latency"),
    [
        (5.0, 4.75, 0.25),
        (5.0, 5.0, None),  # within the kernel's resolution: an answer of ours as well as one of theirs
        (1.0, 30.0, None),  # not answered yet
        (30.0, 1.0, None),  # no answer takes that long
    ],
)
def test_latency_is_that_of_an_answer(sent: float, received: float, latency: float | None) -> None:
    assert Traffic(sent, received).latency == latency


def test_the_connection_that_was_heard_of_last_counts() -> None:
    assert traffic.latest([]) is None
    assert traffic.latest([Traffic(1.0, 90.0), Traffic(30.0, 2.0)]) == Traffic(30.0, 2.0)


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


def test_sees_a_real_connection_and_leaves_it_open(connection: tuple[socket.socket, socket.socket]) -> None:
    client, server = connection
    client.sendall(b"question")
    assert server.recv(8) == b"question"

    def older() -> Traffic | None:
        seen = traffic.of_process()
        return seen if seen is not None and seen.received > 0.05 else None

    before = eventually(older, "silence that grows")
    server.sendall(b"answer")
    assert client.recv(6) == b"answer"
    after = traffic.of_process()
    assert after is not None
    assert after.received < before.received
