from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from whatsapp_operator.api.models import AccessMode, SessionReport, WhatsAppSession
from whatsapp_operator.api.reasons import EXPLANATIONS, MachineState, PairingMethod, Reason, sentence


def session(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "a", "namespace": "n"}, "spec": {"tenant": "acme", **spec}}


def test_defaults_are_those_of_the_contract() -> None:
    spec = WhatsAppSession.model_validate(session()).spec
    assert spec.pairing.method is PairingMethod.QR_CODE
    assert spec.pairing.attempts == 3
    assert spec.storage.size == "256Mi"
    assert spec.storage.access_mode is AccessMode.READ_WRITE_ONCE_POD
    assert spec.deletion_policy == "Unlink"
    assert spec.recovery.on_logged_out == "Relink"
    assert spec.recovery.inactive_expiry is None
    assert spec.suspend is False


def test_unknown_fields_of_a_newer_definition_are_ignored() -> None:
    body = session(messaging={"webhook": "x"})
    body["status"] = {"session": {"machine": "Connected", "podUID": "u", "future": 1}}
    parsed = WhatsAppSession.model_validate(body)
    assert parsed.status.session is not None
    assert parsed.status.session.pod_uid == "u"


@pytest.mark.parametrize(
    "phone", ["15551230001", "+05551230001", "+1555", "+1555123000112345678", "+1 555 123 0001", ""]
)
def test_a_phone_that_is_not_e164_is_refused(phone: str) -> None:
    with pytest.raises(ValidationError, match="phone"):
        WhatsAppSession.model_validate(session(phone=phone))


def test_a_report_keeps_the_names_of_the_contract_both_ways() -> None:
    body = {
        "podUID": "u",
        "bootID": "b",
        "reportedAt": "2026-11-21T10:00:00.123456Z",
        "machine": "ShowingQR",
        "pairing": {"state": "Showing", "history": [{"seq": 1, "secondsToQR": 0.5}]},
        "relinkRequestID": "r",
        "relinkOutcome": "Completed",
    }
    report = SessionReport.model_validate(body)
    assert report.machine is MachineState.SHOWING_QR
    assert report.reported_at == datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)
    assert report.model_dump(mode="json", by_alias=True, exclude_none=True) == body


def test_every_reason_is_explained_and_fits_a_condition_message() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    for reason in Reason:
        assert 0 < len(sentence(reason).encode()) <= 512
