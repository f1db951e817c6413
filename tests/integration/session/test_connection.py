"""Rows of the failure table that concern the connection: dials, streams, refused logins, the worker, the API server."""

from __future__ import annotations

import json
import os
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import MakeSession, SessionProcess, seconds_to_retry
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually

STARTS = "whatsapp_session_worker_starts_total"
CONNECTS = "whatsapp_session_connects_total"


# Dials.


@pytest.mark.parametrize(
    ("settings", "reason", "word"),
    [
        ({"proxy_url": "http://127.0.0.1:1"}, "ProxyFailed", ""),
        ({"proxy_url": "socks5://127.0.0.1:1"}, "ProxyFailed", ""),
        ({"proxy_url": "http://no-such-host.invalid:3128"}, "ProxyFailed", "resolved"),
        ({"proxy_url": "http://0xA9FEA9FE:80"}, "ProxyFailed", "link-local"),
        ({"ca_dir": "/nonexistent"}, "ConnectFailure", "certificate"),
    ],
    ids=["http-proxy", "socks-proxy", "name-of-the-proxy", "link-local", "certificate"],
)
def test_a_dial_that_fails_is_told_and_retried(
    make_session: MakeSession, api: RecordingApi, settings: dict[str, Any], reason: str, word: str
) -> None:
    with make_session(**settings) as session:
        report = session.told("Connecting", reason)
        assert word in report["message"]
        assert report["connection"]["nextRetryAt"]
        # 1, 2, 4 ... s, some of them over when they are told.
        session.reported("the backoff grows", lambda r: r["reason"] == reason and waits(r) > 1.1)
        assert api.secret == {}


def waits(report: dict[str, Any]) -> float:
    return seconds_to_retry(report) if report["connection"]["nextRetryAt"] else 0.0


def test_a_dial_that_fails_is_retried_for_ever(make_session: MakeSession) -> None:
    limits = {"backoff_cap": 0.2}
    with make_session(limits=limits, proxy_url="http://127.0.0.1:1") as session:
        session.told("Connecting", "ProxyFailed")
        eventually(lambda: session.metric(STARTS) > 8, "many tries")
        assert len(session.worker_pids) <= 1


def test_a_proxy_that_refuses_shows_only_its_status(make_session: MakeSession, simulator: SimulatorProcess) -> None:
    simulator.strike("refuse-dial", status=407)
    with make_session() as session:
        report = session.told("Connecting", "ProxyFailed", since=0)
        assert report["message"] == "The proxy refuses the connection with status 407."
        session.machine("ShowingQR")


def test_a_black_hole_is_left_and_retried(make_session: MakeSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        proxy = f"http://127.0.0.1:{hole.getsockname()[1]}"
        with make_session(limits={"connect": 2.0}, proxy_url=proxy) as session:
            report = session.told("Connecting", "ConnectFailure")
            assert report["message"] == "No QR or code came."
            assert report["connection"]["nextRetryAt"] is not None
            eventually(lambda: session.metric(STARTS) >= 2, "another try")


@pytest.mark.parametrize("fault", [{"kind": "hang"}, {"kind": "close-after-frames", "frames": 0}], ids=["hang", "cut"])
def test_a_server_that_falls_silent_or_cuts_before_the_qr(
    make_session: MakeSession, simulator: SimulatorProcess, fault: dict[str, Any]
) -> None:
    simulator.strike(**fault)
    with make_session(limits={"connect": 3.0}) as session:
        session.reported("a failure", lambda r: r["reason"] == "ConnectFailure", since=0)
        session.machine("ShowingQR")


# Streams.


def test_a_disconnect_is_mended(connected: SessionProcess, simulator: SimulatorProcess, phone: str) -> None:
    first = connected.api.report
    simulator.strike("drop", phone=phone)
    again = connected.back(first)
    assert again["connection"]["disconnects"] == 1
    assert again["connection"]["lastReason"] == "Reconnecting"
    assert connected.metric('whatsapp_session_connections_lost_total{reason="Reconnecting"}') == 1


@pytest.mark.parametrize("code", ["500", "503", "515", "516", "599"])
def test_a_stream_error_is_survived(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str, code: str
) -> None:
    simulator.strike("stream-error", phone=phone, code=code)
    eventually(lambda: connected.metric(CONNECTS) == 2, "a second login")
    assert connected.machine("Connected")["device"] is not None
    assert len(simulator.devices(phone)) == 1


def test_a_stream_cut_in_the_middle_of_the_login_is_survived(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    first = connected.api.report
    simulator.strike("close-after-frames", phone=phone, frames=1, times=3)
    simulator.strike("drop", phone=phone)
    eventually(lambda: simulator.faults() == [], "all cuts")
    again = connected.back(first)
    assert again["device"] == first["device"]


def test_a_stream_cut_after_every_login_is_opened_again_ever_more_slowly(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    first = connected.api.report
    simulator.strike("drop", phone=phone, times=None)
    connected.reported("the backoff grows", lambda r: waits(r) > 1.1)
    assert connected.metric(CONNECTS) < 10
    assert simulator.call("DELETE", "/faults").status == 204
    assert connected.back(first)["device"] == first["device"]


def test_a_login_that_is_never_answered_is_left(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    limits = {"reconnect": 2.0, "connect": 4.0}
    with make_session(limits=limits) as session:
        first = session.pair(phone)
        simulator.strike("hang", phone=phone, times=2)
        simulator.strike("drop", phone=phone)
        session.told("Reconnecting", "Reconnecting")
        assert session.back(first)["device"] == first["device"]
        assert session.metric(STARTS) >= 3


def test_a_server_that_is_away_is_waited_for(tmp_path: Path, api: RecordingApi) -> None:
    with SimulatorProcess(tmp_path / "simulator") as simulator:
        phone = simulator.new_phone()
        with SessionProcess(tmp_path / "session", simulator, api) as session:
            first = session.pair(phone)
            simulator.restart()
            again = session.back(first)
            assert again["device"] == first["device"]
            assert again["connection"]["disconnects"] > 0


def test_a_slow_server_is_waited_for(session: SessionProcess, simulator: SimulatorProcess, phone: str) -> None:
    simulator.strike("slow", milliseconds=700, times=None)
    first = session.pair(phone)
    simulator.strike("drop", phone=phone)
    assert session.back(first)["device"] == first["device"]
    assert session.metric(STARTS) == 1
    assert len(simulator.devices(phone)) == 1


def test_a_keepalive_that_is_not_answered_is_told_and_the_worker_replaced(
    make_session: MakeSession, simulator: SimulatorProcess, phone: str
) -> None:
    with make_session(limits={"keepalive": 1.0}) as session:
        first = session.pair(phone)
        simulator.strike("ignore-keepalives", phone=phone, times=None)
        report = session.told("Reconnecting", "KeepAliveTimeout", since=0)
        assert report["connection"]["since"] is None
        again = session.back(first)
        assert again["connection"]["lastReason"] == "KeepAliveTimeout"
        assert session.metric("whatsapp_session_keepalive_timeouts_total") >= 1
        assert session.metric(STARTS) == 2


def test_a_connection_on_which_nothing_flows_is_noticed_before_the_library_does(
    make_session: MakeSession, phone: str
) -> None:
    limits = {"silence": 5.0, "ping": 0.5, "keepalive": 1.0}
    with make_session(limits=limits) as session:
        first = session.pair(phone)
        session.told("Reconnecting", "KeepAliveTimeout", since=0)
        assert session.metric("whatsapp_session_keepalive_timeouts_total") == 0
        assert session.back(first)["device"] == first["device"]


@pytest.mark.parametrize("seconds", [86_400, -86_400], ids=["ahead", "behind"])
def test_a_wrong_time_of_the_server_is_harmless(
    session: SessionProcess, simulator: SimulatorProcess, phone: str, other: str, seconds: int
) -> None:
    simulator.strike("clock-skew", seconds=seconds, times=None)
    first = session.pair(phone)
    simulator.strike("drop", phone=phone)
    again = session.back(first)
    assert again["device"] == first["device"]
    told = datetime.fromisoformat(again["connection"]["lastConnectedAt"])
    assert abs((datetime.now(UTC) - told).total_seconds()) < 3600
    assert session.message("send", "--to", other, "--text", "what time is it").returncode == 0
    eventually(lambda: "what time is it" in simulator.texts(other), "the phone has the message")


def test_messages_that_cannot_be_decrypted_are_counted_and_the_session_stays(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str, other: str
) -> None:
    first = connected.api.report
    simulator.strike("undecryptable", phone=phone)
    assert simulator.send(other, phone, "damaged").status == 201
    undecryptable = "whatsapp_session_undecryptable_messages_total"
    eventually(lambda: connected.metric(undecryptable) == 1, "it is counted")
    assert simulator.send(other, phone, "the next one").status == 201

    received = connected.message("receive", "--count", "2", "--timeout", "30")
    assert received.returncode == 0, received.stderr
    texts = {json.loads(line)["text"] for line in received.stdout.splitlines()}
    assert texts == {"damaged", "the next one"}  # the first was asked for again
    assert connected.metric(undecryptable) == 1
    assert connected.api.report["machine"] == "Connected"
    assert connected.api.report["connection"] == first["connection"]


# The worker.


def test_a_worker_that_is_killed_is_started_again(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    first = connected.api.report
    (worker,) = connected.worker_pids
    connected.kill_worker()
    again = connected.back(first)
    assert again["connection"]["disconnects"] == 1
    assert worker not in connected.worker_pids
    assert len(simulator.devices(phone)) == 1


def test_a_worker_that_stands_still_is_killed_and_started_again(make_session: MakeSession, phone: str) -> None:
    with make_session(limits={"ping": 1.0}) as session:
        first = session.pair(phone)
        (worker,) = session.worker_pids
        os.kill(worker, signal.SIGSTOP)
        assert session.back(first)["device"] == first["device"]
        assert worker not in session.worker_pids


@pytest.mark.parametrize("hangs", [False, True])
def test_a_supervisor_that_is_killed_leaves_no_worker_and_no_lock(connected: SessionProcess, hangs: bool) -> None:
    first = connected.api.report
    (worker,) = connected.worker_pids
    if hangs:
        os.kill(worker, signal.SIGSTOP)
    connected.kill()
    eventually(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends with its supervisor")
    connected.start()
    assert connected.back(first)["device"] == first["device"]


# The API server.


def test_an_api_server_that_is_away_is_told_the_last_state(
    connected: SessionProcess, simulator: SimulatorProcess, api: RecordingApi, phone: str, other: str
) -> None:
    first = api.report
    api.refuse = {"status": 503, "secret": 503}
    for connects in (2, 3):
        simulator.strike("drop", phone=phone)
        eventually(lambda: connected.metric(CONNECTS) == connects, f"login {connects}")  # noqa: B023
    eventually(lambda: api.refused > 1, "refused reports")
    sent = connected.message("send", "--to", other, "--text", "nobody is told")
    assert sent.returncode == 0, sent.stderr

    told = len(api.reports)
    api.refuse = {}
    report = connected.reported("what was missed", lambda r: r["connection"]["disconnects"] == 2, since=told)
    assert report is api.reports[told].body
    assert report["machine"] == "Connected"
    assert report["device"] == first["device"]


def test_reports_and_qr_wait_for_the_api_server(make_session: MakeSession, api: RecordingApi, phone: str) -> None:
    api.refuse = {"secret": 404, "status": 503}
    with make_session() as session:
        eventually(lambda: api.refused > 2, "refused writes")
        del api.refuse["status"]
        report = session.reported("the missing Secret", lambda r: r["reason"] == "ConfigMissing")
        assert report["machine"] == "Connecting"
        api.refuse.clear()
        session.pair(phone)
