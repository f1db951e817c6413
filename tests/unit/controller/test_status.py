from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.controller.builders import NOW, connected_report, observed, pod, report, session, told_pod
from whatsapp_operator.api.models import WhatsAppSessionStatus
from whatsapp_operator.api.reasons import Phase, Reason, SessionState
from whatsapp_operator.controller import status
from whatsapp_operator.controller.conditions import Draft
from whatsapp_operator.controller.observed import Observed

CLAIMED = Draft("True", Reason.CLAIMED)


def computed(o: Observed) -> WhatsAppSessionStatus:
    return status.compute(o, CLAIMED, None, NOW)


def reported(machine: str, reason: str, **changes: Any) -> Observed:
    return observed(session(status={"session": report(machine, reason, **changes)}), pod=pod())


LINKED = observed(session(status={"session": connected_report()}), pod=pod())


@pytest.mark.parametrize(
    ("o", "phase", "state"),
    [
        (observed(), Phase.PENDING, SessionState.NOT_STARTED),
        (observed(pod=pod()), Phase.PENDING, SessionState.NOT_STARTED),
        (reported("Connecting", "Connecting"), Phase.STARTING, SessionState.CONNECTING),
        (reported("ShowingQR", "QRAvailable"), Phase.WAITING_FOR_SCAN, SessionState.WAITING_QR),
        (reported("ShowingCode", "CodeAvailable"), Phase.WAITING_FOR_SCAN, SessionState.WAITING_QR),
        (reported("Authenticating", "NotPaired"), Phase.AUTHENTICATING, SessionState.CONNECTING),
        (LINKED, Phase.CONNECTED, SessionState.CONNECTED),
        (
            reported("Reconnecting", "Reconnecting", credentials={"present": True, "valid": True}),
            Phase.DISCONNECTED,
            SessionState.CONNECTING,
        ),
        (reported("Connecting", "Expired"), Phase.EXPIRED, SessionState.CONNECTING),
        (reported("Failed", "AttemptsExhausted"), Phase.STALLED, SessionState.NOT_STARTED),
        (observed(session(spec={"suspend": True})), Phase.SUSPENDED, SessionState.NOT_STARTED),
        (
            observed(session(spec={"suspend": True}, status={"session": report("Held", "Expired")})),
            Phase.EXPIRED,
            SessionState.NOT_STARTED,
        ),
        (
            observed(session(spec={"suspend": True}, status={"session": report("Connecting", "Expired")})),
            Phase.SUSPENDED,
            SessionState.NOT_STARTED,
        ),
        (observed(session(deleting=True)), Phase.DELETING, SessionState.NOT_STARTED),
    ],
)
def test_phase_and_session_state(o: Observed, phase: Phase, state: SessionState) -> None:
    found = computed(o)
    assert (found.phase, found.session_state) == (phase, state)


def test_the_same_observation_gives_the_same_status() -> None:
    first = computed(LINKED)
    again = session(status={**status.dump(first), "session": connected_report()})
    o = observed(again, pod=pod())
    assert status.dump(status.compute(o, CLAIMED, None, NOW.replace(hour=12))) == status.dump(first)


def test_conditions_are_always_written_and_the_pods_part_never() -> None:
    body = status.dump(computed(LINKED))
    assert body["conditions"]
    assert "session" not in body
    assert body["phone"] == "+15551230001"


def test_the_window_of_a_pod_that_is_gone_is_over() -> None:
    showing = report("ShowingQR", "QRAvailable", pairing={"state": "Showing", "attempt": 2, "seq": 4, "failed": 4})
    found = computed(observed(session(status={"session": showing}))).pairing
    assert found is not None
    assert (found.state, found.attempt, found.expires_at, found.failed) == ("Idle", 0, None, 4)


def test_a_connection_is_open_only_while_its_pod_says_so() -> None:
    body = connected_report(connection={"since": "2026-11-21T09:00:00Z", "disconnects": 3})
    of = session(status={"session": body})
    alive, gone = computed(observed(of, pod=pod())).connection, computed(observed(of)).connection
    assert alive is not None
    assert gone is not None
    assert (alive.since is not None, gone.since, gone.disconnects) == (True, None, 3)


def test_a_pending_pod_is_only_named() -> None:
    found = computed(observed(pod=told_pod(session(), restarts=3))).pod
    assert found is not None
    assert (found.name, found.node, found.restarts) == ("wa-shop", None, None)
    crashing = computed(observed(pod=pod(running=False, waiting_reason="CrashLoopBackOff", restarts=3))).pod
    assert crashing is not None
    assert crashing.restarts == 3


def attempts(*numbers: int) -> dict[str, Any]:
    history = [{"seq": number, "result": "Failed", "reason": "Expired"} for number in numbers]
    return {"seq": max(numbers, default=0), "history": history}


@pytest.mark.parametrize(
    ("counted", "pairing", "expected"),
    [
        pytest.param(0, attempts(1), [1], id="the first"),
        pytest.param(None, attempts(4, 5), [], id="of an earlier object on a kept volume"),
        pytest.param(1, attempts(1), [], id="counted already"),
        pytest.param(1, attempts(1, 2, 3), [2, 3], id="finished while no operator ran"),
        pytest.param(9, attempts(1), [1], id="a new volume counts from the start"),
        pytest.param(0, attempts(), [], id="none"),
    ],
)
def test_an_attempt_is_counted_with_the_write_that_moves_the_number(
    counted: int | None, pairing: dict[str, Any], expected: list[int]
) -> None:
    before = {"pairing": {"lastCountedSeq": counted}} if counted is not None else {}
    o = observed(session(status={**before, "session": report("ShowingQR", "QRAvailable", pairing=pairing)}), pod=pod())
    found = status.counts(o.session.status, computed(o), o.report)
    assert [attempt.seq for attempt in found.attempts] == expected


def test_attempts_that_ended_before_any_operator_saw_them_are_counted_for_the_object_that_they_are_of() -> None:
    found = attempts(3, 4, 5)
    for attempt, ended in zip(found["history"], ("09:59:59Z", "10:00:00.5Z", "10:03:00Z"), strict=True):
        attempt["finishedAt"] = f"2026-11-21T{ended}"
    o = observed(session(status={"session": report("ShowingQR", "QRAvailable", pairing=found)}), pod=pod())
    created = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
    counted = status.counts(o.session.status, computed(o), o.report, created=created)
    assert [attempt.seq for attempt in counted.attempts] == [4, 5]


def test_a_journal_that_cannot_be_read_for_a_while_is_not_counted_again() -> None:
    counted: dict[str, Any] = {"pairing": {"lastCountedSeq": 5}}
    unread = session(status={**counted, "session": report("Held", "VolumeReadOnly", pairing=attempts())})
    found = computed(observed(unread, pod=pod())).pairing
    assert found is not None
    assert found.last_counted_seq == 5


@pytest.mark.parametrize(("before", "after", "lost"), [(0, 2, 2), (2, 2, 0), (5, 1, 1), (None, 3, 0)])
def test_disconnects_are_counted_by_their_difference(before: int | None, after: int, lost: int) -> None:
    known = {"connection": {"disconnects": before}} if before is not None else {}
    body = connected_report(connection={"disconnects": after, "lastReason": "KeepAliveTimeout"})
    o = observed(session(status={**known, "session": body}), pod=pod())
    found = status.counts(o.session.status, computed(o), o.report)
    assert (found.disconnects, found.disconnect_reason) == (lost, "KeepAliveTimeout")


def test_a_relink_is_counted_when_it_is_done() -> None:
    done = {"requestID": "r", "completedAt": "2026-11-21T10:00:00Z", "outcome": "Completed"}
    before = WhatsAppSessionStatus.model_validate({"relink": {"requestID": "r"}})
    after = WhatsAppSessionStatus.model_validate({"relink": done})
    assert status.counts(before, after, None).relink == "Completed"
    assert status.counts(after, after, None).relink is None


def test_totals_stay_while_the_pod_cannot_read_its_volume() -> None:
    counted = {"succeeded": 2, "failed": 1, "lastCountedSeq": 3}
    unread = report("Failed", "CredentialsConflict", credentials={}, pairing={"state": "Idle"})
    found = status.pairing(observed(session(status={"pairing": counted, "session": unread}), pod=pod()))
    assert (found.succeeded, found.failed, found.last_counted_seq) == (2, 1, 3)


def test_disconnects_stay_while_the_pod_cannot_read_its_journal() -> None:
    known = {"connection": {"disconnects": 500}}
    unread = report("Failed", "VolumeReadOnly", connection={"disconnects": 0}, pairing={"seq": None})
    found = status.connection(observed(session(status={**known, "session": unread}), pod=pod()))
    assert found is not None
    assert found.disconnects == 500
    first = status.connection(observed(session(status={"session": unread}), pod=pod()))
    assert first is not None
    assert first.disconnects is None
