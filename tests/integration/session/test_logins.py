"""Rows of the failure table that concern logins that are refused, and other clients with the same credentials."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import MakeSession, SessionProcess, retry_at, seconds_to_retry
from tests.integration.simulator_process import SimulatorProcess

STARTS = "whatsapp_session_worker_starts_total"
CONNECTS = "whatsapp_session_connects_total"


# Refused logins.


@pytest.mark.parametrize("reason", ["400", "409", "414", "415", "418", "500", "503", "599"])
def test_a_refused_login_is_tried_again(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str, reason: str
) -> None:
    first = connected.api.report
    simulator.refuse_login(phone, reason)
    again = connected.back(first)
    assert again["credentials"]["valid"] is True
    assert again["device"] == first["device"]
    assert len(simulator.devices(phone)) == 1


@pytest.mark.parametrize(
    ("reason", "machine", "told"),
    [
        ("400", "Connecting", "ConnectFailure"),
        ("403", "Connecting", "ConnectFailure"),
        ("503", "Connecting", "ConnectFailure"),
        ("405", "Held", "ClientOutdated"),
    ],
)
def test_a_registration_that_is_refused_is_tried_again(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str, reason: str, machine: str, told: str
) -> None:
    simulator.strike("failure", reason=reason)
    with make_session(limits={"outdated": 2.0}) as session:
        report = session.told(machine, told, since=0)
        assert report["connection"]["nextRetryAt"] is not None
        assert session.attempt(1)["pairing"]["failed"] == 0
        session.pair(phone)


@pytest.mark.parametrize("code", ["101", "106"])
def test_a_temporary_ban_is_waited_for(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str, code: str
) -> None:
    simulator.refuse_login(phone, "402", code=code, expire=7200)
    report = connected.told("Held", "TemporaryBan")
    assert 7100 < seconds_to_retry(report) < 2 * 7200
    assert report["credentials"]["valid"] is True
    assert report["connection"]["lastReason"] in ("TemporaryBan", "Reconnecting")
    assert connected.worker_pids == []
    assert len(simulator.devices(phone)) == 1


def test_a_temporary_ban_of_an_unknown_kind_is_waited_for(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    simulator.refuse_login(phone, "402", code="999", expire=7200)
    report = connected.told("Held", "TemporaryBan")
    assert seconds_to_retry(report) > 60
    assert report["credentials"]["valid"] is True


def test_a_temporary_ban_ends(make_session: MakeSession, simulator: SimulatorProcess, phone: str) -> None:
    with make_session(limits={"ban": 1.0}) as session:
        first = session.pair(phone)
        simulator.refuse_login(phone, "402", code="101", expire=2)
        session.told("Held", "TemporaryBan")
        assert session.back(first)["device"] == first["device"]
        assert len(simulator.devices(phone)) == 1


def test_an_outdated_client_keeps_its_credentials(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    with make_session(limits={"outdated": 2.0}) as session:
        first = session.pair(phone)
        simulator.refuse_login(phone, "405", times=2)
        report = session.told("Held", "ClientOutdated")
        assert report["connection"]["nextRetryAt"]
        assert report["credentials"]["valid"] is True
        assert session.back(first)["device"] == first["device"]
        assert simulator.faults() == []


def test_an_outdated_client_is_tried_at_once_with_a_new_pod(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    first = connected.api.report
    simulator.refuse_login(phone, "405")
    assert 1800 < seconds_to_retry(connected.told("Held", "ClientOutdated")) < 2 * 3600
    assert connected.worker_pids == []
    connected.stop()
    connected.start()
    assert connected.back(first)["device"] == first["device"]


# Another client with the same credentials.


def test_a_replaced_stream_is_not_fought_over(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    with make_session(limits={"replaced": 2.0}) as session:
        first = session.pair(phone)
        simulator.strike("stream-error", phone=phone, conflict="replaced", times=3)
        holds: list[dict[str, Any]] = []
        for number in (1, 2, 3):
            holds.append(
                session.reported(
                    f"hold {number}",
                    lambda r: r["machine"] == "Held" and r["connection"]["replaced"] == number,  # noqa: B023
                )
            )
            assert holds[-1]["reason"] == "StreamReplaced"
            assert session.worker_pids == []
        ends = [retry_at(hold) for hold in holds]
        assert ends[1] - ends[0] > 3, "each lasts twice as long as the one before"
        assert ends[2] - ends[1] > 6
        assert session.back(first)["device"] == first["device"]


def test_a_copy_of_the_credentials_takes_the_connection_over(
    tmp_path: Path, simulator: SimulatorProcess, api: RecordingApi, connected: SessionProcess
) -> None:
    connected.stop()
    with (
        RecordingApi(tmp_path / "api of the copy") as other_api,
        SessionProcess(tmp_path / "copy", simulator, other_api) as copy,
    ):
        copy.stop()
        shutil.copytree(connected.volume, copy.volume, dirs_exist_ok=True)
        connected.start()
        first = connected.machine("Connected")
        copy.start()
        copy.machine("Connected")
        assert 200 < seconds_to_retry(connected.told("Held", "StreamReplaced")) <= 300
        assert connected.worker_pids == []
        assert copy.api.report["device"] == first["device"]
