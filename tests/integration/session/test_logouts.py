"""Rows of the failure table that concern credentials that are good no longer: logged out, or unused for too long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.integration.session_process import HOLD, MakeSession, SessionProcess, retry_at
from tests.integration.simulator_process import SimulatorProcess

# Logged out.


def newest_device(simulator: SimulatorProcess, phone: str) -> int:
    return max(int(device["id"]) for device in simulator.devices(phone))


def by_failure(reason: str) -> Callable[[SimulatorProcess, str], None]:
    def refuse(simulator: SimulatorProcess, phone: str) -> None:
        # Each login of the device: one may come from a worker that is being stopped, and is told to nobody.
        simulator.refuse_login(phone, reason, device=newest_device(simulator, phone), times=None)

    return refuse


def on_the_phone(simulator: SimulatorProcess, phone: str) -> None:
    simulator.unlink(phone, newest_device(simulator, phone))


LOGOUTS = pytest.mark.parametrize(
    ("log_out", "reason"),
    [(on_the_phone, "LoggedOut"), (by_failure("401"), "LoggedOut"), (by_failure("403"), "MainDeviceGone")],
    ids=["removed", "401", "403"],
)


@LOGOUTS
def test_a_logout_offers_one_new_pairing_and_then_waits_longer_each_time(
    make_session: MakeSession,
    simulator: SimulatorProcess,
    phone: str,
    log_out: Callable[[SimulatorProcess, str], None],
    reason: str,
) -> None:
    with make_session(limits={"relink_after_logout": 2.0}) as session:
        session.pair(phone)
        log_out(simulator, phone)
        report = session.machine("ShowingQR")
        assert report["connection"]["lastReason"] == reason
        assert report["credentials"]["present"] is False

        ends = []
        for _ in range(2):
            session.pair(phone)
            paired = time.time()
            log_out(simulator, phone)
            held = session.told("Held", reason)
            assert session.worker_pids == []
            ends.append(retry_at(held) - paired)
        assert ends[0] > 1.5
        assert ends[1] > 3, "twice as long"
        session.machine("ShowingQR")


@LOGOUTS
def test_a_logout_is_held_where_asked_for(
    make_session: MakeSession,
    simulator: SimulatorProcess,
    phone: str,
    log_out: Callable[[SimulatorProcess, str], None],
    reason: str,
) -> None:
    with make_session(desired={"recovery": HOLD}) as session:
        session.pair(phone)
        log_out(simulator, phone)
        report = session.told("Held", reason)
        assert report["credentials"]["present"] is False
        assert report["connection"]["nextRetryAt"] is None
        assert session.worker_pids == []
        session.ask(relinkRequestID="again")
        session.pair(phone)


# Unused for long.


def used_long_ago(session: SessionProcess) -> None:
    """Change the journal of a session that is stopped."""
    path = session.volume / "journal.json"
    journal = json.loads(path.read_text())
    journal["last_used_at"] = time.time() - 100 * 86_400
    path.write_text(json.dumps(journal))


@pytest.mark.parametrize("hold", [False, True], ids=["relink", "hold"])
def test_unused_credentials_that_are_refused_have_expired(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str, hold: bool
) -> None:
    connected.stop()
    used_long_ago(connected)
    if hold:
        connected.ask(recovery=HOLD)
    simulator.strike("failure", phone=phone, reason="401")
    connected.start()
    report = connected.told("Held", "Expired") if hold else connected.machine("ShowingQR")
    assert report["connection"]["lastReason"] == "Expired"
    assert report["credentials"]["present"] is False


def test_unused_credentials_that_are_taken_are_used(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    first = connected.api.report
    connected.stop()
    used_long_ago(connected)
    connected.start()
    again = connected.back(first)
    assert again["device"] == first["device"]
    assert again["credentials"]["lastUsedAt"] > first["credentials"]["lastUsedAt"]


@pytest.mark.parametrize("reachable", [True, False])
def test_expired_credentials_of_a_suspended_session_are_wiped(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str, reachable: bool
) -> None:
    with make_session(limits={"patient_removal": 3.0}) as session:
        session.pair(phone)
        session.stop()
        if not reachable:
            simulator.strike("refuse-dial", times=None)
        session.ask(expire=True)
        session.start()
        report = session.told("Held", "Expired")
        assert report["credentials"]["present"] is False
        assert report["connection"]["nextRetryAt"] is None
        assert session.worker_pids == []
        assert len(simulator.devices(phone)) == (0 if reachable else 1)
        simulator.call("DELETE", "/faults")
        session.ask(expire=False)
        session.pair(phone)
