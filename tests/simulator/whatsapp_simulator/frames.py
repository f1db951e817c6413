"""Frames (3-byte big-endian length and data) over a WebSocket's binary messages, which need not match frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, Protocol

from aiohttp import WSMsgType, web

from whatsapp_simulator.noise import PROLOGUE

LENGTH_SIZE: Final = 3
MAX_MESSAGE: Final = 1 << 25


class FrameError(ValueError):
    """What the client sent is not frames of this protocol."""


class Frames(Protocol):
    """Both directions of one client's stream."""

    delay: float
    """Seconds by which what is sent is late, the end of the stream included; the order stays."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def send(self, frame: bytes) -> None:
        """Send one frame; raises ConnectionError when the stream is closed."""

    async def close(self) -> None:
        """Close the stream in order."""

    def abort(self) -> None:
        """Cut the stream without a word."""


class FrameBuffer:
    """Cuts a byte stream into frames. The first ones follow the client's prologue."""

    def __init__(self, prologue: bytes = PROLOGUE) -> None:
        self._buffer = bytearray()
        self._prologue = prologue

    def feed(self, data: bytes) -> list[bytes]:
        """Take in data and return the frames that it completes.

        Raises:
            FrameError: the stream does not start with the prologue.
        """
        self._buffer += data
        if self._prologue:
            size = len(self._prologue)
            if not self._prologue.startswith(self._buffer[:size]):
                raise FrameError("the stream does not start with the protocol's prologue")
            if len(self._buffer) < size:
                return []
            del self._buffer[:size]
            self._prologue = b""
        frames = []
        while len(self._buffer) >= LENGTH_SIZE:
            end = LENGTH_SIZE + int.from_bytes(self._buffer[:LENGTH_SIZE], "big")
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[LENGTH_SIZE:end]))
            del self._buffer[:end]
        return frames


def framed(data: bytes) -> bytes:
    """Data with its length ahead; raises ValueError where it is too long for one frame."""
    if len(data) >= 1 << (8 * LENGTH_SIZE):
        raise ValueError("too long for a frame")
    return len(data).to_bytes(LENGTH_SIZE, "big") + data


class WebSocketFrames:
    """Frames over the server's side of a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._socket = socket
        self._request = request
        self._buffer = FrameBuffer()
        self._order = asyncio.Lock()
        self._late: set[asyncio.Task[None]] = set()
        self.delay = 0.0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for message in self._socket:
            if message.type is WSMsgType.BINARY:
                for frame in self._buffer.feed(message.data):
                    yield frame

    async def send(self, frame: bytes) -> None:
        if not self.delay:
            await self._socket.send_bytes(framed(frame))
            return
        due = asyncio.get_running_loop().time() + self.delay
        task = asyncio.create_task(self._send_at(due, framed(frame)))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _send_at(self, due: float, data: bytes) -> None:
        async with self._order:
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            with contextlib.suppress(ConnectionError):
                await self._socket.send_bytes(data)

    async def close(self) -> None:
        await asyncio.sleep(self.delay)
        async with self._order:
            await self._socket.close()

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
