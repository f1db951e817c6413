"""Nothing that a session knows of its account leaves it: a full run at DEBUG, and everything it said is searched."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.recording_api import TOKEN, RecordingApi
from tests.integration.session_process import PAIRING_CODE, QR_CODE, MakeSession
from tests.integration.simulator_process import SimulatorProcess
from tests.waiting import eventually

PASSWORD = "hunter2-and-more"
TEXTS = ("a text that is nobody's business", "an answer that is nobody's business")
KEYS = ("noise_key", "identity_key", "signed_pre_key", "adv_key", "adv_details")


def shown(api: RecordingApi) -> Iterator[str]:
    """All QRs with their parts, pictures and codes that were ever in the Secret, decoded and not."""
    for write in api.secret_writes:
        for key in ("qr", "qr.png", "code"):
            if value := write.body.get(key):
                yield value
                if key != "qr.png":
                    text = base64.b64decode(value).decode()
                    yield from (text, text.replace("-", ""), *text.split("#")[-1].split(",")[:-1])


def keys(database: Path) -> Iterator[str]:
    """The private keys of the device, as text."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        for row in opened.execute(f"SELECT {', '.join(KEYS)} FROM whatsmeow_device"):  # noqa: S608
            for key in row:
                yield from (key.hex(), base64.b64encode(key).decode())


def identities(report: dict[str, Any]) -> Iterator[str]:
    for name in ("jid", "lid"):
        jid = report["device"][name]
        yield from (jid, jid.partition("@")[0].partition(":")[0])


def without_identities(report: dict[str, Any]) -> dict[str, Any]:
    """What may say who is linked is the device's two identifiers alone."""
    device = report["device"]
    return {**report, "device": device and {key: device[key] for key in device if key not in ("jid", "lid")}}


def test_a_full_run_tells_no_secret(
    make_session: MakeSession, simulator: SimulatorProcess, api: RecordingApi, phone: str, other: str
) -> None:
    proxy = simulator.proxy_url.replace("http://", f"http://user:{PASSWORD}@")
    secrets = {TOKEN, PASSWORD, *TEXTS, phone, phone[1:], other, other[1:]}
    metrics = ""
    simulator.strike("refuse-dial", status=407)
    with make_session(proxy_url=proxy, limits={"absorb": 0.0}, desired={"phone": phone}) as session:
        # A dial that fails, an API server that quotes what it refuses, and one that answers garbage.
        session.told("Connecting", "ProxyFailed", since=0)
        session.machine("ShowingQR")
        for code in (422, 0):
            refused = api.refused
            api.refuse = {"status": code, "secret": code}
            session.ask(relinkRequestID=f"refused with {code}")
            eventually(lambda: api.refused > refused + 2, f"writes refused with {code}")  # noqa: B023
            api.refuse = {}
            session.reported("taken", lambda r: r["relinkRequestID"] == f"refused with {code}")  # noqa: B023

        # The wrong phone, a scan that is refused, the right phone.
        session.machine("ShowingQR")
        assert simulator.scan(other, session.qr()).status == 201
        session.attempt(2)
        simulator.strike("bad-hmac", phone=phone)
        simulator.scan(phone, session.qr())
        session.attempt(3)
        secrets |= set(identities(session.pair(phone)))
        secrets |= set(keys(session.volume / "credentials.db"))

        # Messages, both ways; those sent to nobody fail.
        assert session.message("send", "--to", other, "--text", TEXTS[0]).returncode == 0
        session.message("send", "--to", "+15559999999", "--text", TEXTS[0])
        secrets.add("15559999999")
        simulator.send(other, phone, TEXTS[1])
        assert session.message("receive", "--count", "1", "--timeout", "30").returncode == 0

        # Everything again while the API server refuses it, so that it quotes the device.
        api.refuse = {"status": 422}
        refused = api.refused
        for error in ("503", "516", "599"):
            before = session.metric("whatsapp_session_connects_total")
            simulator.strike("stream-error", phone=phone, code=error)
            eventually(lambda: session.metric("whatsapp_session_connects_total") > before, f"after {error}")  # noqa: B023
        eventually(lambda: api.refused > refused, "refused reports")
        api.refuse = {}
        metrics += session.get("/metrics")

        # A pairing code, by relink, with the API server refusing at first.
        api.refuse = {"secret": 422}
        refused = api.refused
        session.ask(pairing=PAIRING_CODE, relinkRequestID="by code")
        eventually(lambda: api.refused > refused + 1, "refused codes")
        api.refuse = {}
        session.machine("ShowingCode")
        assert simulator.enter_code(phone, session.code()).status == 201
        secrets |= set(identities(session.machine("Connected")))
        secrets |= set(keys(session.volume / "credentials.db"))
        metrics += session.get("/metrics")

        # Corrupt credentials, with something to quote in them.
        session.stop()
        told = len(api.reports)
        spoiled = f"garbage {phone} {phone[1:]}@s.whatsapp.net\n" * 100
        for path in session.volume.glob("credentials.db*"):
            path.write_text(spoiled)
        (session.volume / "journal.json").write_text(spoiled)
        session.ask(pairing=QR_CODE)
        session.start()
        session.machine("ShowingQR", since=told)
        secrets |= set(identities(session.pair(phone)))
        metrics += session.get("/metrics")
        session.stop()
        log = session.log

    assert '"tenant": "acme"' in log
    assert '"level": "debug"' in log
    assert api.reports[-1].body["podUID"] in json.dumps([write.body for write in api.reports])
    assert "whatsapp_session_connects_total" in metrics
    secrets |= set(shown(api))
    reports = json.dumps([without_identities(write.body) for write in api.reports])
    for place, said in (("log", log), ("metrics", metrics), ("reports", reports)):
        leaked = sorted(secret for secret in secrets if len(secret) > 3 and secret in said)
        lines = [line for line in said.splitlines() if any(secret in line for secret in leaked)]
        assert leaked == [], f"in the {place}: {leaked}: {lines[:5]}"
