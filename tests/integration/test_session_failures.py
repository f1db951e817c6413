"""Failures made by the simulator and the machine around it, and how the session pod tells of and survives them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.session_process import RecordingApi, SessionProcess
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually

PHONE = "+15551230001"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator") / "state") as running:
        running.add_phone(PHONE)
        yield running


@pytest.fixture(autouse=True)
def no_faults_left(simulator: SimulatorProcess) -> Iterator[None]:
    yield
    simulator.call("DELETE", "/faults")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[RecordingApi]:
    with RecordingApi(tmp_path / "api") as running:
        yield running


@pytest.fixture
def session(tmp_path: Path, simulator: SimulatorProcess, api: RecordingApi) -> Iterator[SessionProcess]:
    with SessionProcess(tmp_path / "session", simulator, api) as running:
        yield running


@pytest.fixture
def connected(session: SessionProcess) -> SessionProcess:
    session.machine("ShowingQR")
    session.pair(PHONE)
    return session


def refuse_login(simulator: SimulatorProcess, reason: str, **fault: Any) -> None:
    """The next login is refused, and there is one soon."""
    assert simulator.fault(kind="failure", phone=PHONE, reason=reason, **fault).status == 201
    assert simulator.fault(kind="drop", phone=PHONE).status == 201


def told(session: SessionProcess, machine: str, reason: str) -> dict[str, Any]:
    return session.reported(f"{machine}, {reason}", lambda r: (r["machine"], r["reason"]) == (machine, reason))


@pytest.mark.parametrize(
    ("settings", "reason", "word"),
    [
        ({"proxy_url": "http://127.0.0.1:1"}, "ProxyFailed", ""),
        ({"proxy_url": "socks5://127.0.0.1:1"}, "ProxyFailed", ""),
        ({"ca_dir": "/nonexistent"}, "ConnectFailure", "certificate"),
    ],
    ids=["http-proxy", "socks-proxy", "certificate"],
)
def test_a_failed_dial_is_told_and_retried(
    tmp_path: Path, simulator: SimulatorProcess, api: RecordingApi, settings: dict[str, str], reason: str, word: str
) -> None:
    with SessionProcess(tmp_path / "session", simulator, api, **settings) as session:
        report = told(session, "Connecting", reason)
        assert word in report["message"]
        assert report["connection"]["nextRetryAt"] is not None
        starts = "whatsapp_session_worker_starts_total 2\n"
        eventually(lambda: starts in session.get("/metrics"), "another try")


def test_a_proxy_that_refuses_shows_only_its_status(
    tmp_path: Path, simulator: SimulatorProcess, api: RecordingApi
) -> None:
    simulator.fault(kind="refuse-dial", status=407)
    with SessionProcess(tmp_path / "session", simulator, api) as session:
        assert "status 407" in told(session, "Connecting", "ProxyFailed")["message"]
        session.machine("ShowingQR")


def test_a_temporary_ban_is_waited_for(connected: SessionProcess, simulator: SimulatorProcess) -> None:
    refuse_login(simulator, "402", code="101", expire=7200)
    report = told(connected, "Held", "TemporaryBan")
    assert report["connection"]["nextRetryAt"] is not None
    assert report["credentials"]["valid"] is True
    assert connected.worker_pids == []


def test_an_outdated_client_keeps_its_credentials(connected: SessionProcess, simulator: SimulatorProcess) -> None:
    refuse_login(simulator, "405")
    assert told(connected, "Held", "ClientOutdated")["credentials"]["valid"] is True
    connected.stop()
    connected.start()
    connected.machine("Connected")


def test_a_main_device_that_is_gone_is_paired_anew(connected: SessionProcess, simulator: SimulatorProcess) -> None:
    refuse_login(simulator, "403")
    report = connected.machine("ShowingQR")
    assert report["connection"]["lastReason"] == "MainDeviceGone"


def test_a_logout_is_held_where_asked_for(session: SessionProcess, simulator: SimulatorProcess) -> None:
    session.stop()
    session.ask(recovery={"onLoggedOut": "Hold", "inactiveExpirySeconds": 7776000})
    session.start()
    session.machine("ShowingQR")
    session.pair(PHONE)
    refuse_login(simulator, "401")
    assert told(session, "Held", "LoggedOut")["credentials"]["present"] is False
    session.ask(relinkRequestID="again")
    session.machine("ShowingQR")


@pytest.mark.parametrize("reason", ["400", "409", "418", "500", "503", "599"])
def test_a_refused_login_is_tried_again(connected: SessionProcess, simulator: SimulatorProcess, reason: str) -> None:
    refuse_login(simulator, reason)
    connected.reported("connected again", lambda r: r["machine"] == "Connected" and r["connection"]["disconnects"] > 0)
    assert connected.api.report["credentials"]["valid"] is True


@pytest.mark.parametrize("code", ["500", "503", "515", "516"])
def test_a_stream_error_is_survived(connected: SessionProcess, simulator: SimulatorProcess, code: str) -> None:
    assert simulator.fault(kind="stream-error", phone=PHONE, code=code).status == 201
    again = "whatsapp_session_connects_total 2\n"
    eventually(lambda: again in connected.get("/metrics"), "a second login")
    connected.machine("Connected")


def test_a_replaced_stream_is_not_fought_over(connected: SessionProcess, simulator: SimulatorProcess) -> None:
    assert simulator.fault(kind="stream-error", phone=PHONE, conflict="replaced").status == 201
    assert told(connected, "Held", "StreamReplaced")["connection"]["nextRetryAt"] is not None
    assert connected.worker_pids == []


def test_a_bad_hmac_fails_the_attempt(session: SessionProcess, simulator: SimulatorProcess) -> None:
    session.machine("ShowingQR")
    simulator.fault(kind="bad-hmac", phone=PHONE)
    assert simulator.scan(PHONE, session.qr()).status == 409
    report = session.reported("attempt 2", lambda r: r["machine"] == "ShowingQR" and r["pairing"]["attempt"] == 2)
    assert report["pairing"]["history"][0]["reason"] == "NotPaired"
    session.pair(PHONE)


def test_a_qr_window_cut_by_the_network_is_opened_again(tmp_path: Path, api: RecordingApi) -> None:
    with SimulatorProcess(tmp_path / "simulator") as simulator:
        simulator.add_phone(PHONE)
        with SessionProcess(tmp_path / "session", simulator, api) as session:
            first = session.machine("ShowingQR")["pairing"]["id"]
            simulator.restart()
            report = session.reported("a new window", lambda r: r["pairing"]["id"] not in (None, first))
            assert report["pairing"]["attempt"] == 1
            eventually(lambda: api.secret, "the new QR")
            session.pair(PHONE)


def test_a_server_that_is_away_is_waited_for(tmp_path: Path, api: RecordingApi) -> None:
    with SimulatorProcess(tmp_path / "simulator") as simulator:
        simulator.add_phone(PHONE)
        with SessionProcess(tmp_path / "session", simulator, api) as session:
            session.machine("ShowingQR")
            jid = session.pair(PHONE)["device"]["jid"]
            simulator.restart()
            report = session.reported(
                "connected again", lambda r: r["machine"] == "Connected" and r["connection"]["disconnects"] > 0
            )
            assert report["device"]["jid"] == jid


def test_a_worker_that_stands_still_is_not_connected(connected: SessionProcess) -> None:
    (worker,) = connected.worker_pids
    os.kill(worker, signal.SIGSTOP)
    connected.reported("a disconnect", lambda r: r["connection"]["disconnects"] == 1, seconds=60)
    connected.machine("Connected")
    assert worker not in connected.worker_pids
