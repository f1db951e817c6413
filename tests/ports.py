"""Ports for servers that tests start."""

import random
import socket
from contextlib import suppress

# Below those that the kernel gives to connections: one of these could take a port between its choice and its use.
_RANGE = range(20_000, 32_000)


def free_port() -> int:
    """A port of loopback on which nobody listens now."""
    while True:
        port = random.choice(_RANGE)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
