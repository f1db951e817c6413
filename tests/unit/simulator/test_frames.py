"""Frames out of a byte stream that is cut anywhere, and frames that are late."""

import asyncio
from itertools import pairwise
from typing import cast

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_simulator.frames import FrameBuffer, FrameError, WebSocketFrames, framed
from whatsapp_simulator.noise import PROLOGUE


@given(st.lists(st.binary(max_size=50), max_size=8), st.lists(st.integers(0, 500)))
def test_frames_survive_any_cut(frames: list[bytes], cuts: list[int]) -> None:
    data = PROLOGUE + b"".join(framed(frame) for frame in frames)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    buffer = FrameBuffer()
    received = [frame for start, end in pairwise(edges) for frame in buffer.feed(data[start:end])]
    assert received == frames


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"WA\x06\x02", b"X"])
def test_another_prologue_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameBuffer().feed(data)


def test_a_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        framed(bytes(1 << 24))


class Socket:
    """The server's side of a WebSocket, which notes what is sent."""

    def __init__(self) -> None:
        self.events: list[bytes | str] = []
        self.broken = False

    async def send_bytes(self, data: bytes) -> None:
        if self.broken:
            raise ConnectionResetError
        self.events.append(data)

    async def close(self) -> None:
        self.events.append("closed")


@pytest.fixture
def socket() -> Socket:
    return Socket()


@pytest.fixture
def frames(socket: Socket) -> WebSocketFrames:
    return WebSocketFrames(cast(web.WebSocketResponse, socket), cast(web.Request, None))


async def test_frames_are_sent_at_once(frames: WebSocketFrames, socket: Socket) -> None:
    await frames.send(b"1")
    assert socket.events == [framed(b"1")]


async def test_late_frames_keep_their_order_and_precede_the_end(frames: WebSocketFrames, socket: Socket) -> None:
    frames.delay = 0.05
    start = asyncio.get_running_loop().time()
    sent = [bytes([number]) for number in range(20)]
    for frame in sent:
        await frames.send(frame)
    assert socket.events == []
    await frames.close()
    assert socket.events == [*map(framed, sent), "closed"]
    assert asyncio.get_running_loop().time() - start >= frames.delay


async def test_a_late_frame_for_a_client_that_is_gone_is_dropped(frames: WebSocketFrames, socket: Socket) -> None:
    frames.delay = 0.01
    await frames.send(b"1")
    socket.broken = True
    await frames.close()
    assert socket.events == ["closed"]
