import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.cluster.control_plane import ControlPlane
from tests.cluster.control_plane import control_plane as run_control_plane

ON_A_CONTROL_PLANE = ("test_admission.py", "test_controller", "test_crd.py")


class Scheduling(LoadScopeScheduling):
    """Spreads tests one by one over the workers, but keeps a module on a control plane on one.

    So does `--dist loadgroup`, but not with this pytest: https://github.com/pytest-dev/pytest-xdist/issues/1386.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module.rpartition("/")[2].startswith(ON_A_CONTROL_PLANE) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real control plane (no nodes) for a whole run, or for an xdist worker; torn down too when it is terminated."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        with run_control_plane() as running:
            yield running
    finally:
        signal.signal(signal.SIGTERM, previous)
