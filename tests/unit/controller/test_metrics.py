from typing import Any

import pytest

from whatsapp_operator.api.models import PairingAttempt
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.metrics import Metrics
from whatsapp_operator.controller.status import Counts


def cache() -> Cache:
    found = Cache()
    for number, phase in enumerate(("Connected", "Connected", "Stalled", None)):
        metadata = {"namespace": "team", "name": f"s{number}", "uid": f"u{number}", "resourceVersion": "1"}
        condition = {"type": "Ready", "status": "True"}
        status: dict[str, Any] = {"phase": phase, "phone": "+15551230001", "conditions": [condition]} if phase else {}
        found.put_session({"metadata": metadata, "spec": {"tenant": "acme"}, "status": status})
    return found


def test_sessions_by_phase_are_read_when_asked_for() -> None:
    text = Metrics(cache(), per_object=True).render().decode()
    assert 'whatsapp_sessions{phase="Connected"} 2.0' in text
    assert 'whatsapp_sessions{phase="Stalled"} 1.0' in text
    assert 'whatsapp_sessions{phase="Pending"} 1.0' in text
    assert 'whatsapp_sessions{phase="Suspended"} 0.0' in text
    assert 'whatsapp_session_condition{name="s0",namespace="team",status="True",type="Ready"} 1.0' in text
    assert "1555" not in text


def test_gauges_of_single_objects_can_be_switched_off() -> None:
    assert "whatsapp_session_condition" not in Metrics(cache(), per_object=False).render().decode()


def test_what_is_counted() -> None:
    metrics = Metrics(Cache(), per_object=True)
    good = PairingAttempt(seq=1, method="QRCode", result="Succeeded", reason="Paired", seconds_to_scan=3.0)
    odd = PairingAttempt(seq=2, method="QRCode", result="Failed", reason="made-up-by-a-pod")
    metrics.count(Counts(attempts=(good, odd), disconnects=2, disconnect_reason="made-up", relink="Absorbed"))
    metrics.request("patch", 409)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    attempts = "whatsapp_pairing_attempts_total"
    assert value(attempts, method="QRCode", result="Succeeded", reason="Paired") == 1
    assert value(attempts, method="QRCode", result="Failed", reason="Unknown") == 1
    assert value("whatsapp_pairing_time_to_scan_seconds_sum") == pytest.approx(3.0)
    assert value("whatsapp_pairing_time_to_qr_seconds_count") == 0
    assert value("whatsapp_session_disconnects_total", reason="Unknown") == 2
    assert value("whatsapp_relinks_total", outcome="Absorbed") == 1
    assert value("whatsapp_operator_api_requests_total", verb="patch", code="409") == 1


@pytest.mark.parametrize(
    "name",
    [
        "whatsapp_pairing_attempts_total",
        "whatsapp_pairing_time_to_qr_seconds",
        "whatsapp_pairing_time_to_scan_seconds",
        "whatsapp_pairing_scan_to_connected_seconds",
        "whatsapp_session_disconnects_total",
        "whatsapp_sessions",
        "whatsapp_session_condition",
        "whatsapp_relinks_total",
        "whatsapp_operator_reconcile_total",
        "whatsapp_operator_reconcile_duration_seconds",
        "whatsapp_operator_queue_depth",
        "whatsapp_operator_queue_latency_seconds",
        "whatsapp_operator_api_requests_total",
        "whatsapp_operator_watch_restarts_total",
        "whatsapp_operator_leader",
        "whatsapp_operator_rollout_sessions",
    ],
)
def test_the_names_are_those_of_the_api(name: str) -> None:
    assert f"# TYPE {name} " in Metrics(cache(), per_object=True).render().decode()
