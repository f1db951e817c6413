"""Many sessions at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import SessionProcess
from tests.integration.simulator_process import SimulatorProcess

SESSIONS = 50
AT_ONCE = 4
"""Starting, and so using the processors; the others wait."""


def test_a_simulator_restart_under_fifty_connected_sessions_loses_none(tmp_path: Path) -> None:
    with ExitStack() as stack:
        simulator = stack.enter_context(SimulatorProcess(tmp_path / "simulator"))
        starters = stack.enter_context(ThreadPoolExecutor(AT_ONCE))

        def connect(number: int) -> tuple[SessionProcess, str]:
            phone = simulator.new_phone()
            directory = tmp_path / str(number)
            api = stack.enter_context(RecordingApi(directory / "api"))
            session = stack.enter_context(SessionProcess(directory / "session", simulator, api, log_level="INFO"))
            session.pair(phone)
            return session, phone

        sessions = list(starters.map(connect, range(SESSIONS)))
        before = [session.api.report for session, _ in sessions]
        told = [len(session.api.reports) for session, _ in sessions]

        simulator.restart()

        for (session, phone), first, since in zip(sessions, before, told, strict=True):
            again = session.back(first)
            assert again["machine"] == "Connected"
            assert again["device"] == first["device"]
            assert again["pairing"]["id"] in (first["pairing"]["id"], None)
            assert "ShowingQR" not in session.api.machines[since:]
            assert len(simulator.devices(phone)) == 1
