"""Nothing of what must never leave a process gets into a report, wherever it stands."""

import json
from typing import Any

import pytest
import yaml

from tests.unit.samples import SECRETS, Secret
from whatsapp_operator.cli import redact

KINDS = pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())


@KINDS
def test_a_line_of_a_log(secret: Secret) -> None:
    assert not secret.found_in(redact.text(json.dumps({"message": f"seen: {secret.text} here"})))


@KINDS
def test_a_field_of_an_object(secret: Secret) -> None:
    body: dict[str, Any] = {"status": {"conditions": [{"type": "Ready", "message": f"because of {secret.text}"}]}}
    assert not secret.found_in(redact.document(body))


@KINDS
def test_a_label_of_a_metric(secret: Secret) -> None:
    assert not secret.found_in(redact.metrics(f'one{{label="{secret.text}"}} 1'))


def test_fields_that_are_personal_go_whatever_is_in_them() -> None:
    body = {
        "metadata": {
            "annotations": {
                "whatsapp-operator.io/forceRelink": "tuesday",
                "kubectl.kubernetes.io/last-applied-configuration": "all of it",
                "whatsapp-operator.io/desired-state": '{"phone": "12", "attempts": 3}',
            },
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"phone": "12"},
        "status": {
            "phone": "12",
            "session": {"device": {"jid": "x", "lid": "y", "pushName": "Ann", "platform": "smba"}},
        },
    }
    found = yaml.safe_load(redact.document(body))
    assert found["spec"]["phone"] == found["status"]["phone"] == "<phone>"
    assert found["metadata"]["annotations"] == {
        "whatsapp-operator.io/forceRelink": "<token>",
        "whatsapp-operator.io/desired-state": '{"phone": "<phone>", "attempts": 3}',
    }
    assert found["status"]["session"]["device"] == {
        "jid": "<jid>", "lid": "<jid>", "pushName": "<name>", "platform": "smba",
    }  # fmt: skip
    assert "managedFields" not in found["metadata"]


def test_what_helps_to_find_a_fault_stays() -> None:
    text = (
        "metadata:\n  uid: 0b5b4c8e-1a2b-4c3d-8e4f-5a6b7c8d9e0f\n  resourceVersion: '8675309'\n"
        "  creationTimestamp: '2026-11-21T18:02:11Z'\nimage: registry.example/session:1.2\n"
    )
    assert redact.text(text) == text
    metric = 'process_start_time_seconds 1763749999\nwhatsapp_sessions{phase="Connected"} 12345678\n'
    assert redact.metrics(metric) == metric


def test_a_proxy_password_that_looks_like_nothing() -> None:
    assert "abc" not in redact.text("socks5://abc:abc@proxy.example:1080 refused")
