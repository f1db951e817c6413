"""The life of a session pod without failures, with a real neonize and the simulator on loopback."""

from __future__ import annotations

import base64
import json

from tests.integration.recording_api import RecordingApi
from tests.integration.session_process import PAIRING_CODE, POD_UID, MakeSession, SessionProcess
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually


def test_pairs_by_qr_and_connects(session: SessionProcess, api: RecordingApi, phone: str) -> None:
    shown = session.machine("ShowingQR")
    assert shown["podUID"] == POD_UID
    assert shown["reason"] == "QRAvailable"
    assert shown["device"] is None
    assert shown["credentials"] == {"present": False, "valid": False, "registeredAt": None, "lastUsedAt": None}
    assert shown["pairing"]["attempt"] == 1
    assert base64.b64decode(api.secret["qr.png"]).startswith(b"\x89PNG")
    assert api.shown("expiresAt") is not None

    connected = session.pair(phone)

    assert connected["device"]["jid"].startswith(f"{phone.removeprefix('+')}:")
    assert connected["credentials"]["valid"] is True
    assert connected["connection"]["since"] is not None
    eventually(lambda: api.secret == {}, "the Secret is cleared")
    assert len(api.reports) <= 6
    assert [body for write in api.secret_writes if (body := write.body).get("qr")] == [api.secret_writes[0].body]


def test_comes_back_without_a_new_pairing(connected: SessionProcess, simulator: SimulatorProcess, phone: str) -> None:
    first = connected.api.report
    assert connected.stop() == 0
    assert connected.api.report["machine"] == "Starting"
    assert connected.api.report["reason"] == "PodNotReady"
    assert connected.api.report["credentials"]["lastUsedAt"] > first["credentials"]["lastUsedAt"]
    connected.start()
    again = connected.back(first)
    assert again["device"]["jid"] == first["device"]["jid"]
    assert again["bootID"] != first["bootID"]
    assert len(simulator.devices(phone)) == 1


def test_sends_and_receives_text(session: SessionProcess, simulator: SimulatorProcess, phone: str, other: str) -> None:
    refused = session.message("send", "--to", other, "--text", "too early")
    assert refused.returncode == 1
    session.pair(phone)

    sent = session.message("send", "--to", other, "--text", "hello from the pod")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert json.loads(sent.stdout)["id"]
    eventually(lambda: "hello from the pod" in simulator.texts(other), "the phone has the message")

    assert simulator.send(other, phone, "hello back").status == 201
    received = session.message("receive", "--count", "1", "--timeout", "20")
    assert received.returncode == 0, received.stderr
    message = json.loads(received.stdout)
    assert (message["from"], message["text"]) == (other, "hello back")


def test_relink_shows_a_fresh_qr_once(
    connected: SessionProcess, simulator: SimulatorProcess, api: RecordingApi, phone: str
) -> None:
    eventually(lambda: api.secret == {}, "the Secret is cleared")
    connected.ask(relinkRequestID="first")
    report = connected.machine("ShowingQR")
    assert (report["relinkRequestID"], report["relinkOutcome"]) == ("first", "Completed")
    assert simulator.devices(phone) == []

    connected.ask(relinkRequestID="second")
    report = connected.reported("absorbed", lambda r: r["relinkRequestID"] == "second")
    assert report["relinkOutcome"] == "Absorbed"
    assert report["machine"] == "ShowingQR"
    paired = connected.pair(phone)

    connected.stop()
    connected.start()
    assert connected.back(paired)["device"]["jid"] == paired["device"]["jid"]


def test_unlinks(connected: SessionProcess, simulator: SimulatorProcess, phone: str) -> None:
    assert len(simulator.devices(phone)) == 1
    connected.ask(unlink=True)
    report = connected.machine("Unlinked")
    assert report["credentials"]["present"] is False
    assert simulator.devices(phone) == []
    assert connected.stop() == 0


def test_unlinks_from_a_start_with_credentials(
    connected: SessionProcess, simulator: SimulatorProcess, phone: str
) -> None:
    connected.stop()
    connected.ask(unlink=True)
    connected.start()
    connected.machine("Unlinked")
    assert simulator.devices(phone) == []


def test_stops_in_the_middle_of_a_qr(session: SessionProcess, api: RecordingApi) -> None:
    session.machine("ShowingQR")
    assert session.stop() == 0
    assert api.secret == {}
    assert api.report["machine"] == "Starting"


def test_pairs_by_code(make_session: MakeSession, simulator: SimulatorProcess, api: RecordingApi, phone: str) -> None:
    with make_session(desired={"phone": phone, "pairing": PAIRING_CODE}) as session:
        session.machine("ShowingCode")
        assert api.secret.keys() == {"code", "expiresAt"}
        simulator.enter_code(phone, session.code())
        session.machine("Connected")


def test_health_and_metrics(session: SessionProcess, phone: str) -> None:
    session.machine("ShowingQR")
    assert session.get("/healthz") == "ok\n"
    assert session.get("/readyz") == "ok\n"
    assert "whatsapp_session_connected 0\n" in session.get("/metrics")
    session.pair(phone)
    metrics = session.get("/metrics")
    assert "whatsapp_session_connected 1\n" in metrics
    assert 'whatsapp_session_machine_state{state="Connected"} 1\n' in metrics
    assert phone.removeprefix("+") not in metrics


def test_log_level_changes_while_it_runs(make_session: MakeSession, api: RecordingApi, phone: str) -> None:
    def debug_lines_of_another_connection(level: str | None) -> int:
        before = api.report
        session.ask(logLevel=level)
        session.reported("another document", lambda r: r["desiredStateHash"] != before["desiredStateHash"])
        written = len(session.log)
        session.kill_worker()
        session.back(before)
        return session.log[written:].count('"level": "debug"')

    with make_session(log_level="INFO") as session:
        session.pair(phone)
        assert '"level": "debug"' not in session.log
        assert debug_lines_of_another_connection("DEBUG") > 0
        assert debug_lines_of_another_connection(None) == 0
