"""Frames out of a byte stream that is cut anywhere."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_simulator.frames import FrameBuffer, FrameError, framed
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
