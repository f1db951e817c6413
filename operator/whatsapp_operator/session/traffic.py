"""When this process last sent and received over TCP, as the kernel knows it.

The library tells neither how long a keepalive took nor that nothing has come for long.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LONGEST_ANSWER: Final = 10.0
"""Seconds the library waits for the answer to a keepalive; what comes later is something else."""

_TCP_INFO: Final = struct.Struct("=B43xI4xI")
"""Of struct tcp_info (linux/tcp.h): tcpi_state, tcpi_last_data_sent and tcpi_last_data_recv, in milliseconds ago."""
_ESTABLISHED: Final = 1


@dataclass(frozen=True, slots=True)
class Traffic:
    """In seconds: since data was last sent, and since it was last received."""

    sent: float
    received: float

    @property
    def latency(self) -> float | None:
        """From the last thing sent to what was received after it, on an idle connection a keepalive and its answer.

        None when nothing was received since, or too late for an answer.
        """
        delay = self.sent - self.received
        return delay if 0.0 < delay <= LONGEST_ANSWER else None


def parse(info: bytes) -> Traffic | None:
    """None for a socket that is not connected, and where the kernel tells less than Linux does."""
    if len(info) < _TCP_INFO.size:
        return None
    state, sent, received = _TCP_INFO.unpack_from(info)
    return Traffic(sent / 1000, received / 1000) if state == _ESTABLISHED else None


def latest(connections: Iterable[Traffic]) -> Traffic | None:
    """That of the connection which was last received from."""
    return min(connections, key=lambda traffic: traffic.received, default=None)


def of_process() -> Traffic | None:
    """The latest of this process's TCP connections; None when it has none, or they cannot be seen."""
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    except OSError:
        return None
    return latest(traffic for descriptor in descriptors if (traffic := _of_descriptor(descriptor)) is not None)


def _of_descriptor(descriptor: int) -> Traffic | None:
    with contextlib.suppress(OSError):  # it is no socket, or was closed since
        connection = socket.socket(fileno=descriptor)
        try:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                return parse(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
        finally:
            connection.detach()  # it belongs to the library
    return None
