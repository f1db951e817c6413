"""What `status` says: every condition in its place, each remedy once, and the same for programs."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.cli.test_linking import READY, SHOWS, changed, condition, session
from whatsapp_operator.api.reasons import EXPLANATIONS, ConditionType, Reason, sentence
from whatsapp_operator.cli.describing import document, facts, summary, told
from whatsapp_operator.cli.reading import Session, command_of, remedy_of

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("reason", Reason)
def test_a_message_and_its_remedy_are_told_apart(reason: Reason) -> None:
    [found] = session(condition("Ready", "False", reason)).conditions
    remedy = EXPLANATIONS[reason].remedy
    assert found.remedy == remedy
    assert f"{found.message} {found.remedy}".rstrip() == sentence(reason)
    assert not remedy or remedy not in found.message


def test_a_reason_of_a_newer_operator_has_no_remedy_here() -> None:
    body = {"type": "Ready", "status": "False", "reason": "NotKnownYet", "message": "Do this."}
    [found] = session(body).conditions
    assert (found.message, found.remedy, remedy_of("NotKnownYet")) == ("Do this.", "", "")


def test_conditions_come_in_the_order_of_a_life() -> None:
    kinds = [*reversed(ConditionType), "Later"]
    found = session(*(condition(kind, "True", Reason.CONNECTED) for kind in kinds)).conditions
    assert [item.type for item in found] == [*ConditionType, "Later"]


def test_each_reason_that_is_worth_reading_is_told_once() -> None:
    reason = Reason.ATTEMPTS_EXHAUSTED
    kinds = (("Ready", "False"), ("QRReady", "False"), ("Stalled", "True"))
    exhausted = session(*(condition(kind, status, reason) for kind, status in kinds))
    assert [(found.type, found.reason) for found in told(exhausted, everything=False)] == [("Stalled", reason)]
    assert told(READY, everything=False) == []
    assert [found.reason for found in told(READY, everything=True)] == [Reason.CONNECTED]
    assert [found.reason for found in told(SHOWS, everything=False)] == [Reason.QR_AVAILABLE, Reason.WAITING_FOR_SCAN]
    paired = session(condition("QRReady", "False", Reason.NOT_NEEDED), condition("Ready", "True", Reason.CONNECTED))
    assert told(paired, everything=False) == []


@pytest.mark.parametrize("reason", [reason for reason in Reason if "forceRelink" in EXPLANATIONS[reason].remedy])
def test_whatever_asks_for_a_relink_has_the_command(reason: Reason) -> None:
    assert command_of(reason, "support", "shop") == "kubectl wa relink support -n shop"


def test_facts_of_a_session_that_says_nothing_yet() -> None:
    found = dict(
        facts(Session({"metadata": {"name": "support", "namespace": "shop"}, "spec": {"tenant": "acme"}}), NOW)
    )
    assert found["tenant"] == "acme"
    assert found["phone"] == "any, not linked"
    assert found["credentials"] == "not known yet"
    assert found["pod"] == "none"


def test_the_document_is_stable() -> None:
    keys = set(document(READY))
    assert keys == set(document(Session({"metadata": {"name": "a"}})))
    assert {"namespace", "name", "phase", "ready", "stalled", "reason", "remedy", "conditions"} <= keys
    told: dict[str, Any] = document(SHOWS)
    assert told["conditions"][0]["remedy"] == EXPLANATIONS[Reason.QR_AVAILABLE].remedy


def test_sessions_are_counted_by_phase() -> None:
    found = [changed(READY, status={**READY.status, "phase": phase}) for phase in ("Connected", "Connected", "Stalled")]
    assert summary(found, "in namespace shop").plain == "3 sessions in namespace shop: 2 Connected, 1 Stalled"
    assert summary([], "in the cluster").plain == "No sessions in the cluster."
