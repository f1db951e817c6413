import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.apiserver import ApiServer
from tests.cluster.control_plane import ControlPlane
from tests.cluster.control_plane import control_plane as run_control_plane
from tests.integration.controller_stand_ins import live_api

ON_A_CONTROL_PLANE = (
    "test_admission.py",
    "test_chart.py",
    "test_cli.py",
    "test_controller",
    "test_crd.py",
    "test_gitops.py",
)
# Workers with a control plane. They keep the processor busy; most of the tests without one wait.
CONTROL_PLANES = 3
# What is begun late, the others wait for. The first one goes alone, without its module.
LONGEST_FIRST = (
    "test_controller_perturbations.py::test_a_crash_at_each_write",
    "test_controller_perturbations.py",
    "test_cli.py",
    "test_controller_claims.py",
    "test_controller_replicas.py",
    "test_controller_oracle.py",
    "test_controller_faults.py",
    "test_controller_rollout.py",
    "test_controller.py",
    "test_controller_rights.py",
    "test_controller_drift.py",
    "test_controller_failures.py",
    "test_admission.py",
    "session/test_many.py",
    "session/test_kills.py",
    "test_simulator_faults.py",
    "session/test_connection.py",
    "session/test_secrets.py",
    "session/test_pairing.py",
)


class Scheduling(LoadScopeScheduling):
    """Spreads tests one by one over the workers, but keeps a module on a control plane on one, of a few workers.

    So does `--dist loadgroup`, but not with this pytest: https://github.com/pytest-dev/pytest-xdist/issues/1386.
    """

    def _split_scope(self, nodeid: str) -> str:
        alone = nodeid.endswith(LONGEST_FIRST[0])
        return nodeid.partition("::")[0] if _on_a_control_plane(nodeid) and not alone else nodeid

    def _assign_work_unit(self, node: WorkerController) -> None:
        wanted = node in self.nodes[:CONTROL_PLANES]
        first = next((scope for scope in self.workqueue if _on_a_control_plane(scope) == wanted), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


def _on_a_control_plane(nodeid: str) -> bool:
    return nodeid.partition("::")[0].rpartition("/")[2].startswith(ON_A_CONTROL_PLANE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, part in enumerate(LONGEST_FIRST) if part in item.nodeid), 99))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    # By number of tests, which tells nothing of their time.
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def install(kubeconfig: Path) -> None:
    """Early, as the garbage collector looks only every 30 s for definitions that are new to it."""
    ApiServer.from_kubeconfig(kubeconfig).install()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real control plane (no nodes) for a whole run, or for an xdist worker; torn down too when it is terminated."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        with run_control_plane(prepare=install) as running:
            yield running
    finally:
        signal.signal(signal.SIGTERM, previous)


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The API server with everything installed and a node to bind pods to."""
    with live_api(control_plane) as server:
        yield server
