"""Rows of the failure table that concern pairing: windows, scans that come to nothing, wrong phones, passkeys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import QR_CODE, MakeSession, SessionProcess
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually

STARTS = "whatsapp_session_worker_starts_total"


def reasons(report: dict[str, Any]) -> list[str]:
    return [entry["reason"] for entry in report["pairing"]["history"]]


# Windows.


def test_windows_without_a_scan_are_exhausted_and_begun_anew_by_a_relink(
    make_session: MakeSession, api: RecordingApi, phone: str
) -> None:
    with make_session(
        limits={"window": 3.0, "window_grace": 0.5}, desired={"pairing": {**QR_CODE, "attempts": 2}}
    ) as session:
        ids = [session.attempt(number)["pairing"]["id"] for number in (1, 2)]
        report = session.told("Held", "AttemptsExhausted")
        assert reasons(report) == ["Expired", "Expired"]
        assert [entry["id"] for entry in report["pairing"]["history"]] == ids
        assert report["pairing"]["state"] == "Exhausted"
        assert (report["pairing"]["failed"], report["pairing"]["seq"]) == (2, 2)
        session.rests()

        session.ask(relinkRequestID="the phone is at hand")
        report = session.attempt(1)
        assert report["relinkOutcome"] == "Completed"
        session.pair(phone)


def test_windows_that_are_exhausted_stay_so_over_a_restart(make_session: MakeSession, api: RecordingApi) -> None:
    limits = {"window": 1.0, "window_grace": 0.5}
    with make_session(limits=limits, desired={"pairing": {**QR_CODE, "attempts": 1}}) as session:
        session.told("Held", "AttemptsExhausted")
        session.stop()
        told = len(api.reports)
        session.start()
        session.told("Held", "AttemptsExhausted", since=told)
        session.ask(pairing={**QR_CODE, "attempts": 2})
        assert session.attempt(2)["pairing"]["failed"] == 1


def test_qrs_that_run_out_end_the_window(make_session: MakeSession, simulator: SimulatorProcess, phone: str) -> None:
    simulator.strike("few-refs", refs=1)
    # The library shows a single QR for as long as a later one.
    with make_session(limits={"first_qr": 20.0}) as session:
        session.attempt(1)
        assert reasons(session.attempt(2)) == ["Expired"]
        session.pair(phone)


def test_a_window_that_the_network_cuts_is_opened_again(tmp_path: Path, api: RecordingApi) -> None:
    with SimulatorProcess(tmp_path / "simulator") as simulator:
        phone = simulator.new_phone()
        with SessionProcess(tmp_path / "session", simulator, api) as session:
            first = session.machine("ShowingQR")["pairing"]["id"]
            simulator.restart()
            report = session.reported("a new window", lambda r: r["pairing"]["id"] not in (None, first))
            assert report["pairing"]["attempt"] == 1
            session.pair(phone)


# Scanned, but refused.


@pytest.mark.parametrize("fault", ["bad-hmac", "bad-account-signature"])
def test_a_scan_that_the_client_refuses_fails_the_attempt(
    session: SessionProcess, simulator: SimulatorProcess, phone: str, fault: str
) -> None:
    session.machine("ShowingQR")
    simulator.strike(fault, phone=phone)
    assert simulator.scan(phone, session.qr()).status == 409
    failed = session.reported("told", lambda r: r["pairing"]["failed"] == 1, since=0)
    assert failed["reason"] == "NotPaired"
    assert failed["message"] == "The phone scanned, but what it or the server sent could not be verified."
    report = session.attempt(2)
    assert reasons(report) == ["NotPaired"]
    assert report["pairing"]["history"][0]["message"] == failed["message"]
    assert simulator.devices(phone) == []
    session.pair(phone)
    assert len(simulator.devices(phone)) == 1


def test_a_phone_without_multi_device_fails_the_attempt(
    session: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    session.machine("ShowingQR")
    simulator.strike("no-multidevice", phone=phone)
    assert simulator.scan(phone, session.qr()).status == 409
    report = session.attempt(2)
    assert reasons(report) == ["NotPaired"]
    assert "cannot link devices" in report["pairing"]["history"][0]["message"]
    assert simulator.devices(phone) == []
    session.pair(phone)


def test_a_phone_that_never_finishes_costs_its_window(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    with make_session(limits={"window": 5.0, "window_grace": 1.0}) as session:
        session.machine("ShowingQR")
        simulator.strike("phone-never-finishes", phone=phone)
        assert simulator.scan(phone, session.qr()).status == 504
        assert reasons(session.attempt(2)) == ["Expired"]
        session.pair(phone)


def test_a_scan_whose_login_does_not_come_is_logged_in_by_another_worker(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    with make_session(limits={"login": 2.0, "connect": 4.0}) as session:
        session.machine("ShowingQR")
        simulator.strike("hang", phone=phone)
        report = session.pair(phone)
        assert session.metric(STARTS) == 2
        assert report["pairing"]["attempt"] == 1
        assert report["pairing"]["failed"] == 0
        assert len(simulator.devices(phone)) == 1


def test_a_scan_that_never_logs_in_is_wiped_and_paired_anew(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    with make_session(limits={"login": 2.0, "connect": 3.0, "ping": 0.5}) as session:
        session.machine("ShowingQR")
        simulator.strike("hang", phone=phone, times=None)
        assert simulator.scan(phone, session.qr()).status == 201
        report = session.attempt(2)
        assert reasons(report) == ["NotPaired"]
        assert "did not let it log in" in report["pairing"]["history"][0]["message"]
        assert report["credentials"]["present"] is False
        assert session.metric(STARTS) == 4  # the one that was scanned, two that could not log in, the next QR
        simulator.call("DELETE", "/faults")
        session.pair(phone)


@pytest.mark.parametrize("reason", ["500", "503", "418"])
def test_a_login_after_the_scan_that_is_refused_for_a_while_costs_no_pairing(
    session: SessionProcess, simulator: SimulatorProcess, phone: str, reason: str
) -> None:
    session.machine("ShowingQR")
    simulator.strike("failure", phone=phone, reason=reason)
    report = session.pair(phone)
    assert report["pairing"]["failed"] == 0
    assert len(simulator.devices(phone)) == 1


def test_prekeys_that_are_not_answered_never_cost_the_pairing(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    # Each of the library's requests waits 75 s for its answer before the login is complete.
    with make_session(limits={"login": 2.0, "connect": 3.0, "ping": 0.5, "sync": 3.0, "backoff_cap": 0.5}) as session:
        session.machine("ShowingQR")
        simulator.strike("ignore-prekeys", phone=phone, times=None)
        assert simulator.scan(phone, session.qr()).status == 201
        session.reported("scanned", lambda r: r["credentials"]["present"], since=0)
        eventually(lambda: session.metric(STARTS) > 4, "workers that wait for their prekeys")
        assert session.api.report["pairing"]["failed"] == 0
        assert session.api.report["credentials"]["valid"] is True
        simulator.call("DELETE", "/faults")
        session.machine("Connected")
        assert len(simulator.devices(phone)) == 1


# The wrong phone.


def test_another_phone_is_unlinked_and_the_next_attempt_shown(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str, other: str
) -> None:
    with make_session(desired={"phone": phone}) as session:
        session.machine("ShowingQR")
        assert simulator.scan(other, session.qr()).status == 201
        told = session.reported("a failed attempt", lambda r: r["pairing"]["failed"] == 1, since=0)
        assert reasons(told) == ["PhoneMismatch"]
        assert simulator.devices(other) == []
        report = session.attempt(2)
        assert report["device"] is None
        session.pair(phone)


def test_another_phone_uses_up_the_attempts(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str, other: str
) -> None:
    with make_session(desired={"phone": phone, "pairing": {**QR_CODE, "attempts": 1}}) as session:
        session.machine("ShowingQR")
        assert simulator.scan(other, session.qr()).status == 201
        assert reasons(session.told("Held", "AttemptsExhausted")) == ["PhoneMismatch"]
        assert simulator.devices(other) == []
        session.rests()


@pytest.mark.parametrize(
    ("declared", "linked"),
    [("+5511987654321", "+551187654321"), ("+551187654322", "+5511987654322")],
    ids=["declared-with-the-9", "declared-without-the-9"],
)
def test_another_spelling_of_the_same_account_is_no_mismatch(
    make_session: MakeSession, simulator: SimulatorProcess, declared: str, linked: str
) -> None:
    simulator.add_phone(linked)
    with make_session(desired={"phone": declared}, limits={"stable": 1.0}) as session:
        session.pair(linked)
        report = session.reported("it stays", lambda r: r["pairing"]["succeeded"] == 1)
        assert report["machine"] == "Connected"
        assert len(simulator.devices(linked)) == 1


@pytest.mark.parametrize("by_relink", [True, False], ids=["relink", "free-again"])
def test_a_phone_that_another_session_claims_is_unlinked_and_held(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str, other: str, by_relink: bool
) -> None:
    connected.ask(rejectedPhone=phone)
    report = connected.told("Held", "PhoneClaimConflict")
    assert reasons(report) == ["PhoneClaimConflict"]
    assert simulator.devices(phone) == []
    assert connected.worker_pids == []
    if by_relink:
        connected.ask(relinkRequestID="with another phone")
        connected.machine("ShowingQR")
        connected.pair(other)
    else:
        connected.ask(rejectedPhone=None)
        connected.pair(phone)


def test_a_changed_phone_is_logged_out_and_the_new_one_paired(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str, other: str
) -> None:
    connected.ask(phone=phone)
    connected.reported("the document is followed", lambda r: r["machine"] == "Connected")
    connected.ask(phone=other)
    connected.machine("ShowingQR")
    assert simulator.devices(phone) == []
    connected.pair(other)


# Removed by WhatsApp.


def test_a_device_removed_soon_after_its_pairing_fails_the_attempt(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    attempt = connected.api.report["pairing"]["id"]
    (device,) = simulator.devices(phone)
    simulator.unlink(phone, device["id"])
    report = connected.machine("ShowingQR")
    assert reasons(report) == ["LoggedOut"]
    (last,) = report["pairing"]["history"]
    assert (last["id"], last["result"]) == (attempt, "Failed")
    assert (report["pairing"]["succeeded"], report["pairing"]["failed"]) == (0, 1)


def test_a_device_removed_later_leaves_its_attempt_a_success(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    with make_session(limits={"stable": 1.0}) as session:
        session.pair(phone)
        session.reported("it has come to stay", lambda r: r["pairing"]["succeeded"] == 1)
        (device,) = simulator.devices(phone)
        simulator.unlink(phone, device["id"])
        report = session.machine("ShowingQR")
        assert reasons(report) == ["Paired"]
        assert (report["pairing"]["succeeded"], report["pairing"]["failed"]) == (1, 0)


# Passkeys.


def test_a_passkey_demand_stops_the_attempt(session: SessionProcess, simulator: SimulatorProcess, phone: str) -> None:
    session.machine("ShowingQR")
    simulator.strike("passkey", phone=phone)
    simulator.scan(phone, session.qr())
    report = session.told("Held", "PasskeyRequired")
    assert reasons(report) == ["PasskeyRequired"]
    assert report["connection"]["nextRetryAt"] is None
    session.rests()
    session.ask(relinkRequestID="the passkey was removed")
    session.pair(phone)
