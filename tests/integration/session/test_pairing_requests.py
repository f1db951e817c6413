"""Rows of the failure table that concern pairing codes, and what cancels a request or a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import PAIRING_CODE, QR_CODE, MakeSession, SessionProcess, retry_at
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually

# Pairing codes.


def by_code(phone: str) -> dict[str, Any]:
    return {"phone": phone, "pairing": PAIRING_CODE}


def test_a_wrong_code_leaves_the_window_open(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    with make_session(desired=by_code(phone)) as session:
        session.machine("ShowingCode")
        code = session.code()
        wrong = ("A" if code[0] != "A" else "B") + code[1:]
        assert simulator.enter_code(phone, wrong).status == 422
        assert session.code() == code
        assert simulator.enter_code(phone, code).status == 201
        session.machine("Connected")


def test_a_code_that_is_refused_is_asked_for_again(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    simulator.strike("refuse-code", phone=phone, code=500)
    with make_session(desired=by_code(phone)) as session:
        report = session.reported("refused", lambda r: r["reason"] == "ConnectFailure", since=0)
        assert report["message"] == "WhatsApp gave no pairing code."
        assert session.attempt(1)["pairing"]["failed"] == 0


def test_a_code_that_is_rate_limited_is_waited_for_longer_each_time(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    simulator.strike("refuse-code", phone=phone, code=429, times=2)
    with make_session(desired=by_code(phone), limits={"rate_limited": 2.0}) as session:
        first = session.told("Held", "RateLimited")
        assert session.worker_pids == []
        retry = first["connection"]["nextRetryAt"]
        second = session.reported(
            "limited again", lambda r: r["reason"] == "RateLimited" and r["connection"]["nextRetryAt"] != retry
        )
        assert retry_at(second) - retry_at(first) > 3, "the second wait is twice as long"
        assert session.attempt(1)["pairing"]["failed"] == 0
        assert simulator.enter_code(phone, session.code()).status == 201
        session.machine("Connected")


def test_a_code_that_does_not_come_is_asked_for_again(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    simulator.strike("ignore-code", phone=phone)
    with make_session(desired=by_code(phone), limits={"code": 2.0}) as session:
        report = session.reported("given up", lambda r: r["reason"] == "ConnectFailure", since=0)
        assert report["message"] == "No QR or code came."
        assert report["connection"]["nextRetryAt"]
        session.attempt(1)
        assert simulator.enter_code(phone, session.code()).status == 201
        session.machine("Connected")


# What is cancelled.


def relink(session: SessionProcess, other: str) -> None:
    session.ask(relinkRequestID="now")


def another_method(session: SessionProcess, other: str) -> None:
    method = "QRCode" if session.desired["pairing"]["method"] == "PairingCode" else "PairingCode"
    session.ask(pairing={**session.desired["pairing"], "method": method})


def another_name(session: SessionProcess, other: str) -> None:
    session.ask(pairing={**session.desired["pairing"], "displayName": "Firefox (Linux)"})


def another_phone(session: SessionProcess, other: str) -> None:
    session.ask(phone=other)


CHANGES = pytest.mark.parametrize("change", [relink, another_method, another_name, another_phone])


@CHANGES
def test_a_code_request_is_cancelled(
    make_session: MakeSession,
    simulator: SimulatorProcess,
    phone: str,
    other: str,
    change: Callable[[SessionProcess, str], None],
) -> None:
    # The request that runs is never answered; only one that is cancelled lets the next begin this soon.
    simulator.strike("ignore-code", phone=phone)
    with make_session(desired=by_code(phone), limits={"code": 600.0, "connect": 600.0}) as session:
        eventually(lambda: simulator.faults() == [], "a code request")
        (worker,) = session.worker_pids
        change(session, other)
        session.attempt(1)
        assert len(session.worker_pids) == 1
        assert worker not in session.worker_pids
        assert len(simulator.pairings()) == 1
        if session.desired["pairing"]["method"] == "QRCode":
            session.pair(phone)
        else:
            assert simulator.enter_code(session.desired["phone"], session.code()).status == 201
            session.machine("Connected")


@CHANGES
@pytest.mark.parametrize("method", [QR_CODE, PAIRING_CODE], ids=["qr", "code"])
def test_a_window_is_cancelled(
    make_session: MakeSession,
    simulator: SimulatorProcess,
    api: RecordingApi,
    phone: str,
    other: str,
    method: dict[str, Any],
    change: Callable[[SessionProcess, str], None],
) -> None:
    with make_session(desired={"phone": phone, "pairing": method}, limits={"absorb": 0.0}) as session:
        first = session.attempt(1)["pairing"]["id"]
        shown = api.secret
        (worker,) = session.worker_pids
        change(session, other)
        if change is another_phone and method is QR_CODE:
            # A QR is for whichever phone; the number is looked at after the scan.
            assert simulator.scan(phone, session.qr()).status == 201
            session.attempt(2)
            assert simulator.devices(phone) == []
            session.pair(other)
            return
        report = session.reported("another window", lambda r: r["pairing"]["id"] not in (None, first))
        assert report["pairing"]["failed"] == 0
        assert worker not in session.worker_pids
        assert len(session.worker_pids) == 1
        assert len(simulator.pairings()) == 1
        eventually(lambda: api.secret and api.secret != shown, "what is shown now")
        assert not ({"qr", "code"} <= api.secret.keys())


@pytest.mark.parametrize("method", [QR_CODE, PAIRING_CODE], ids=["qr", "code"])
@pytest.mark.parametrize("unanswered", [False, True], ids=["window", "request"])
def test_an_unlink_cancels(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str, method: dict[str, Any], unanswered: bool
) -> None:
    if unanswered:
        simulator.strike("ignore-code", phone=phone) if method is PAIRING_CODE else simulator.strike("hang")
    with make_session(desired={"phone": phone, "pairing": method}, limits={"code": 600.0, "connect": 600.0}) as session:
        if unanswered:
            eventually(lambda: simulator.faults() == [], "the request")
        else:
            session.attempt(1)
        session.ask(unlink=True)
        report = session.machine("Unlinked")
        assert report["pairing"]["failed"] == 0
        session.rests()
        assert simulator.pairings() == []
