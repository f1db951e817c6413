"""A simulator for each worker of the run, and for each test its own numbers, API server and session."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import MakeSession, SessionProcess
from tests.integration.simulator_process import SimulatorProcess


@pytest.fixture(scope="session")
def running_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator") / "state") as running:
        yield running


@pytest.fixture
def simulator(running_simulator: SimulatorProcess) -> Iterator[SimulatorProcess]:
    yield running_simulator
    assert running_simulator.call("DELETE", "/faults").status == 204


@pytest.fixture
def phone(simulator: SimulatorProcess) -> str:
    """A number without devices."""
    return simulator.new_phone()


@pytest.fixture
def other(simulator: SimulatorProcess) -> str:
    """Another number without devices."""
    return simulator.new_phone()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[RecordingApi]:
    with RecordingApi(tmp_path / "api") as running:
        yield running


@pytest.fixture
def make_session(tmp_path: Path, simulator: SimulatorProcess, api: RecordingApi) -> MakeSession:
    """A session with limits, a desired state or settings of its own."""
    return partial(SessionProcess, tmp_path / "session", simulator, api)


@pytest.fixture
def session(make_session: MakeSession) -> Iterator[SessionProcess]:
    """Without credentials, and with the limits of a pod."""
    with make_session() as running:
        yield running


@pytest.fixture
def connected(session: SessionProcess, phone: str) -> SessionProcess:
    """Paired with `phone`."""
    session.pair(phone)
    return session
