"""The session pod, with a real neonize and the simulator on loopback, and an API server that records."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.session_process import POD_UID, RecordingApi, SessionProcess
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually

PHONE = "+15551230001"
OTHER = "+15551230002"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator") / "state") as running:
        running.add_phone(PHONE)
        running.add_phone(OTHER)
        yield running


@pytest.fixture
def api(tmp_path: Path) -> Iterator[RecordingApi]:
    with RecordingApi(tmp_path / "api") as running:
        yield running


@pytest.fixture
def session(tmp_path: Path, simulator: SimulatorProcess, api: RecordingApi) -> Iterator[SessionProcess]:
    with SessionProcess(tmp_path / "session", simulator, api) as running:
        yield running


def test_pairs_by_qr_and_connects(session: SessionProcess, simulator: SimulatorProcess, api: RecordingApi) -> None:
    shown = session.machine("ShowingQR")
    assert shown["podUID"] == POD_UID
    assert shown["reason"] == "QRAvailable"
    assert shown["device"] is None
    assert shown["credentials"] == {"present": False, "valid": False, "registeredAt": None, "lastUsedAt": None}
    assert shown["pairing"]["attempt"] == 1
    assert base64.b64decode(api.secret["qr.png"]).startswith(b"\x89PNG")
    assert api.shown("expiresAt") is not None

    connected = session.pair(PHONE)

    assert connected["device"]["jid"].startswith("15551230001:")
    assert connected["credentials"]["valid"] is True
    assert connected["connection"]["since"] is not None
    eventually(lambda: api.secret == {}, "the Secret is cleared")
    assert len(api.reports) <= 6
    assert [body for write in api.secret_writes if (body := write.body).get("qr")] == [api.secret_writes[0].body]


def test_comes_back_without_a_new_pairing(session: SessionProcess, simulator: SimulatorProcess) -> None:
    session.machine("ShowingQR")
    first = session.pair(PHONE)
    before = len(simulator.devices(PHONE))

    assert session.stop() == 0
    assert session.api.report["machine"] == "Starting"
    assert session.api.report["reason"] == "PodNotReady"
    session.start()
    again = session.machine("Connected")

    assert again["device"]["jid"] == first["device"]["jid"]
    assert again["bootID"] != first["bootID"]
    assert len(simulator.devices(PHONE)) == before


def test_worker_killed_is_connected_again(session: SessionProcess) -> None:
    session.machine("ShowingQR")
    session.pair(PHONE)
    (worker,) = session.worker_pids
    os.kill(worker, signal.SIGKILL)
    session.reported("a disconnect", lambda report: report["connection"]["disconnects"] == 1)
    session.machine("Connected", seconds=10)
    assert session.worker_pids != [worker]


def test_supervisor_killed_leaves_no_worker_and_no_lock(session: SessionProcess) -> None:
    session.machine("ShowingQR")
    session.pair(PHONE)
    (worker,) = session.worker_pids
    session.kill()
    eventually(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends with its supervisor")
    written = len(session.api.reports)
    session.start()
    eventually(lambda: "Connected" in session.api.machines[written:], "connected again")


def test_sends_and_receives_text(session: SessionProcess, simulator: SimulatorProcess) -> None:
    refused = session.message("send", "--to", OTHER, "--text", "too early")
    assert refused.returncode == 1
    session.machine("ShowingQR")
    session.pair(PHONE)

    sent = session.message("send", "--to", OTHER, "--text", "hello from the pod")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert json.loads(sent.stdout)["id"]
    eventually(lambda: "hello from the pod" in simulator.texts(OTHER), "the phone has the message")

    assert simulator.send(OTHER, PHONE, "hello back").status == 201
    received = session.message("receive", "--count", "1", "--timeout", "20")
    assert received.returncode == 0, received.stderr
    message = json.loads(received.stdout)
    assert (message["from"], message["text"]) == (OTHER, "hello back")


def test_relink_shows_a_fresh_qr_once(session: SessionProcess, simulator: SimulatorProcess, api: RecordingApi) -> None:
    session.machine("ShowingQR")
    session.pair(PHONE)
    devices = {device["id"] for device in simulator.devices(PHONE)}
    eventually(lambda: api.secret == {}, "the Secret is cleared")

    session.ask(relinkRequestID="first")
    report = session.machine("ShowingQR")
    assert (report["relinkRequestID"], report["relinkOutcome"]) == ("first", "Completed")
    assert len(simulator.devices(PHONE)) == len(devices) - 1

    session.ask(relinkRequestID="second")
    report = session.reported("absorbed", lambda r: r["relinkRequestID"] == "second")
    assert report["relinkOutcome"] == "Absorbed"
    assert report["machine"] == "ShowingQR"
    connected = session.pair(PHONE)

    session.stop()
    session.start()
    again = session.reported("connected", lambda r: r["machine"] == "Connected" and r["bootID"] != report["bootID"])
    assert again["device"]["jid"] == connected["device"]["jid"]


@pytest.mark.parametrize("journal", [None, "not a journal"], ids=["missing", "unreadable"])
def test_a_lost_journal_costs_no_pairing(session: SessionProcess, journal: str | None) -> None:
    session.machine("ShowingQR")
    session.ask(relinkRequestID="done")
    session.reported("the request is done", lambda r: r["relinkRequestID"] == "done")
    first = session.pair(PHONE)
    session.stop()
    path = session.volume / "journal.json"
    path.unlink()
    if journal is not None:
        path.write_text(journal)
    session.start()
    again = session.reported("connected", lambda r: r["machine"] == "Connected" and r["bootID"] != first["bootID"])
    assert again["device"]["jid"] == first["device"]["jid"]
    assert again["relinkRequestID"] == "done"


def test_unlinks(session: SessionProcess, simulator: SimulatorProcess) -> None:
    before = len(simulator.devices(PHONE))
    session.machine("ShowingQR")
    session.pair(PHONE)
    assert len(simulator.devices(PHONE)) == before + 1
    session.ask(unlink=True)
    report = session.machine("Unlinked")
    assert report["credentials"]["present"] is False
    assert len(simulator.devices(PHONE)) == before
    assert session.stop() == 0


def test_unlinks_from_a_start_with_credentials(session: SessionProcess, simulator: SimulatorProcess) -> None:
    before = len(simulator.devices(PHONE))
    session.machine("ShowingQR")
    session.pair(PHONE)
    session.stop()
    session.ask(unlink=True)
    session.start()
    session.machine("Unlinked")
    assert len(simulator.devices(PHONE)) == before


def test_stops_in_the_middle_of_a_qr(session: SessionProcess, api: RecordingApi) -> None:
    session.machine("ShowingQR")
    assert session.stop() == 0
    assert api.secret == {}
    assert api.report["machine"] == "Starting"


def test_another_phone_is_unlinked_and_the_next_attempt_shown(
    session: SessionProcess, simulator: SimulatorProcess
) -> None:
    before = len(simulator.devices(OTHER))
    session.ask(phone=PHONE)
    session.machine("ShowingQR")
    assert simulator.scan(OTHER, session.qr()).status == 201
    report = session.reported("a failed attempt", lambda r: r["pairing"]["failed"] == 1)
    assert report["pairing"]["history"][0]["reason"] == "PhoneMismatch"
    assert len(simulator.devices(OTHER)) == before
    report = session.reported("attempt 2", lambda r: r["machine"] == "ShowingQR" and r["pairing"]["attempt"] == 2)
    session.pair(PHONE)


def test_a_rejected_phone_is_unlinked_and_held(session: SessionProcess, simulator: SimulatorProcess) -> None:
    before = len(simulator.devices(PHONE))
    session.machine("ShowingQR")
    session.pair(PHONE)
    session.ask(rejectedPhone=PHONE)
    report = session.machine("Held")
    assert report["reason"] == "PhoneClaimConflict"
    assert len(simulator.devices(PHONE)) == before
    session.ask(rejectedPhone=None)
    session.machine("ShowingQR")


def test_pairs_by_code(session: SessionProcess, simulator: SimulatorProcess, api: RecordingApi) -> None:
    session.ask(phone=PHONE, pairing={"method": "PairingCode", "attempts": 3, "displayName": "Chrome (Linux)"})
    session.machine("ShowingCode")
    code = eventually(lambda: api.shown("code"), "a code in the Secret")
    assert api.secret.keys() == {"code", "expiresAt"}
    answer = simulator.call("POST", f"/phones/{PHONE}/enter-code", {"code": code})
    assert answer.status == 201, answer.body
    session.machine("Connected")


def test_removed_on_the_phone_offers_a_new_pairing(session: SessionProcess, simulator: SimulatorProcess) -> None:
    session.machine("ShowingQR")
    session.pair(PHONE)
    device = max(device["id"] for device in simulator.devices(PHONE))
    assert simulator.call("DELETE", f"/phones/{PHONE}/devices/{device}").status == 204
    report = session.reported("a new QR", lambda r: r["machine"] == "ShowingQR" and r["pairing"]["seq"] == 1)
    assert report["connection"]["lastReason"] == "LoggedOut"
    assert report["credentials"]["present"] is False


def test_a_lost_connection_comes_back_by_itself(session: SessionProcess, simulator: SimulatorProcess) -> None:
    session.machine("ShowingQR")
    session.pair(PHONE)
    assert simulator.fault(kind="drop", phone=PHONE).status == 201
    session.reported("connected again", lambda r: r["connection"]["disconnects"] == 1 and r["machine"] == "Connected")


def test_reports_and_qr_wait_for_the_api_server(tmp_path: Path, simulator: SimulatorProcess, api: RecordingApi) -> None:
    api.refuse = {"secret": 404, "status": 503}
    with SessionProcess(tmp_path / "session", simulator, api) as session:
        eventually(lambda: api.refused > 2, "refused writes")
        del api.refuse["status"]
        report = session.reported("the missing Secret", lambda r: r["reason"] == "ConfigMissing")
        assert report["machine"] == "Connecting"
        api.refuse.clear()
        session.machine("ShowingQR")
        session.pair(PHONE)


def test_corrupt_credentials_are_moved_aside(session: SessionProcess) -> None:
    session.machine("ShowingQR")
    session.pair(PHONE)
    session.stop()
    for path in session.volume.glob("credentials.db*"):
        path.write_bytes(b"\xff" * 8192)
    written = len(session.api.reports)
    session.start()
    eventually(lambda: "ShowingQR" in session.api.machines[written:], "a new pairing")
    assert session.api.report["credentials"] == {
        "present": True,
        "valid": False,
        "registeredAt": None,
        "lastUsedAt": session.api.report["credentials"]["lastUsedAt"],
    }
    assert (session.volume / "corrupt" / "1" / "credentials.db").exists()


def test_a_foreign_volume_is_left_alone(tmp_path: Path, simulator: SimulatorProcess, api: RecordingApi) -> None:
    with SessionProcess(tmp_path / "session", simulator, api) as session:
        session.stop()
        (session.volume / "owner.json").write_text('{"tenant": "globex"}')
        session.start()
        report = session.machine("Failed")
        assert report["reason"] == "VolumeForeign"
        assert session.worker_pids == []


def test_health_and_metrics(session: SessionProcess) -> None:
    session.machine("ShowingQR")
    assert session.get("/healthz") == "ok\n"
    assert session.get("/readyz") == "ok\n"
    assert "whatsapp_session_connected 0\n" in session.get("/metrics")
    session.pair(PHONE)
    metrics = session.get("/metrics")
    assert "whatsapp_session_connected 1\n" in metrics
    assert 'whatsapp_session_machine_state{state="Connected"} 1\n' in metrics
    assert PHONE.removeprefix("+") not in metrics


def test_logs_hold_no_secret(session: SessionProcess, simulator: SimulatorProcess, api: RecordingApi) -> None:
    session.machine("ShowingQR")
    qr = session.qr()
    report = session.pair(PHONE)
    session.message("send", "--to", OTHER, "--text", "a text that is nobody's business")
    session.stop()
    log = session.log
    assert '"tenant": "acme"' in log
    assert report["pairing"]["id"] in log
    secrets = [qr, *qr.split("#")[-1].split(","), PHONE, PHONE[1:], OTHER[1:], "nobody's business", "a-token-of"]
    secrets += [report["device"]["jid"], report["device"]["lid"]]
    for secret in secrets:
        if len(secret) > 2:
            assert secret not in log
