import inspect
import re
from typing import Any

import pytest

from whatsapp_operator.api.models import PairingAttempt
from whatsapp_operator.api.reasons import PairingMethod, Reason
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.metrics import FAILURES, Metrics, Step
from whatsapp_operator.controller.status import Counts
from whatsapp_operator.session import machine


def cache() -> Cache:
    found = Cache()
    for number, phase in enumerate(("Connected", "Connected", "Stalled", None)):
        metadata = {"namespace": "team", "name": f"s{number}", "uid": f"u{number}", "resourceVersion": "1"}
        condition = {"type": "Ready", "status": "True", "reason": "Connected" if phase == "Connected" else "made-up"}
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
    info = 'whatsapp_session_info{name="s0",namespace="team",phase="Connected",reason="Connected",tenant="acme"} 1.0'
    assert info in text
    assert "1555" not in text


def test_sessions_by_reason_name_only_reasons_of_the_api() -> None:
    text = Metrics(cache(), per_object=False).render().decode()
    counted = re.findall(r'whatsapp_sessions_by_reason{reason="(\w+)"} ([1-9].*)', text)
    assert sorted(counted) == [("Connected", "2.0"), ("Unknown", "2.0")]
    assert 'whatsapp_sessions_by_reason{reason="TemporaryBan"} 0.0' in text
    assert "made-up" not in text


def test_gauges_of_single_objects_can_be_switched_off() -> None:
    text = Metrics(cache(), per_object=False).render().decode()
    assert "whatsapp_session_condition" not in text
    assert "whatsapp_session_info" not in text
    assert 'name="s0"' not in text


def test_counters_are_there_before_their_first_increase() -> None:
    text = Metrics(Cache(), per_object=False).render().decode()
    for method in PairingMethod:
        labels = f'method="{method}",reason="Paired",result="Succeeded"'
        assert f"whatsapp_pairing_attempts_total{{{labels}}} 0.0" in text
        for step in Step:
            assert f'whatsapp_pairing_steps_total{{method="{method}",step="{step}"}} 0.0' in text
    assert 'whatsapp_session_disconnects_total{reason="Reconnecting"} 0.0' in text
    assert 'whatsapp_relinks_total{outcome="Failed"} 0.0' in text
    assert "_created" not in text


def test_every_way_in_which_a_session_pod_ends_an_attempt_is_counted_from_0() -> None:
    source = inspect.getsource(machine)
    named = set(re.findall(r"_(?:finish|fail)_attempt\(\s*Reason\.(\w+)", source))
    # The two that are given as a variable: what a logout was caused by.
    named |= {"LOGGED_OUT", "MAIN_DEVICE_GONE"}
    assert {Reason[name] for name in named} - {Reason.PAIRED} == set(FAILURES)


@pytest.mark.parametrize(
    ("attempt", "steps"),
    [
        (PairingAttempt(result="Failed", reason="Expired"), [1, 0, 0, 0]),
        (PairingAttempt(result="Failed", reason="NotPaired"), [1, 1, 0, 0]),
        (PairingAttempt(result="Failed", reason="NotPaired", seconds_to_scan=3.0), [1, 1, 1, 0]),
        (PairingAttempt(result="Succeeded", reason="Paired", seconds_to_scan=3, seconds_to_connected=1), [1, 1, 1, 1]),
    ],
)
def test_how_far_an_attempt_came(attempt: PairingAttempt, steps: list[int]) -> None:
    metrics = Metrics(Cache(), per_object=True)
    metrics.count(Counts(attempts=(attempt.model_copy(update={"method": PairingMethod.QR_CODE}),)))
    counted = [
        metrics.registry.get_sample_value("whatsapp_pairing_steps_total", {"method": "QRCode", "step": step})
        for step in ("Shown", "Scanned", "Paired", "Connected")
    ]
    assert counted == steps


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
        "whatsapp_pairing_steps_total",
        "whatsapp_pairing_time_to_qr_seconds",
        "whatsapp_pairing_time_to_scan_seconds",
        "whatsapp_pairing_scan_to_connected_seconds",
        "whatsapp_session_disconnects_total",
        "whatsapp_sessions",
        "whatsapp_sessions_by_reason",
        "whatsapp_session_info",
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
