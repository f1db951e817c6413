import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.control_plane import control_plane as run_control_plane


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real control plane (no nodes) for the whole session; torn down too when pytest is terminated."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        with run_control_plane() as running:
            yield running
    finally:
        signal.signal(signal.SIGTERM, previous)
