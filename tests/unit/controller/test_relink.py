from datetime import timedelta
from typing import Any

import pytest

from tests.unit.controller.builders import NOW, connected_report, session
from whatsapp_operator.api import names
from whatsapp_operator.api.models import RelinkStatus, WhatsAppSession
from whatsapp_operator.api.reasons import RelinkOutcome
from whatsapp_operator.controller import relink


def asked(value: str | None, status: dict[str, Any] | None = None) -> WhatsAppSession:
    annotations = {} if value is None else {names.ANNOTATION_FORCE_RELINK: value}
    return session(annotations=annotations, status=status)


def step(value: str | None, current: RelinkStatus | None, *, minutes: int = 0) -> RelinkStatus | None:
    status = {"relink": current.model_dump(by_alias=True)} if current is not None else None
    of = asked(value, status)
    return relink.advance(of, of.status.session, NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", "true"),
        ("2026-11-21", "2026-11-21"),
        ("", None),
        ("false", None),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("é" * 65, None),
    ],
)
def test_what_is_a_token(value: str, expected: str | None) -> None:
    assert relink.token({names.ANNOTATION_FORCE_RELINK: value}) == expected


def test_without_annotation_there_is_no_request() -> None:
    assert step(None, None) is None
    assert step("false", None) is None


def test_the_same_token_is_one_request_until_it_was_removed() -> None:
    first = step("1", None)
    assert first is not None
    assert first.requested_at == NOW
    assert step("1", first, minutes=5) == first
    forgotten = step(None, first, minutes=6)
    assert forgotten is not None
    assert forgotten.token_hash is None
    assert forgotten.request_id == first.request_id
    again = step("1", forgotten, minutes=7)
    assert again is not None
    assert again.request_id != first.request_id


def test_another_token_is_another_request() -> None:
    first, second = step("1", None), step("2", step("1", None))
    assert first is not None
    assert second is not None
    assert first.request_id != second.request_id
    assert second.completed_at is None


@pytest.mark.parametrize("outcome", list(RelinkOutcome))
def test_the_report_of_that_very_request_completes_it(outcome: RelinkOutcome) -> None:
    first = step("1", None)
    assert first is not None
    done = connected_report(relinkRequestID=first.request_id, relinkOutcome=outcome)
    of = asked("1", {"relink": first.model_dump(by_alias=True), "session": done})
    assert relink.pending(of)
    found = relink.advance(of, of.status.session, NOW + timedelta(minutes=1))
    assert found is not None
    assert (found.outcome, found.completed_at) == (outcome, NOW + timedelta(minutes=1))
    of = asked("1", {"relink": found.model_dump(by_alias=True), "session": done})
    assert not relink.pending(of)
    assert relink.advance(of, of.status.session, NOW + timedelta(minutes=2)) == found


def test_the_report_of_an_earlier_request_does_not() -> None:
    first = step("1", None)
    assert first is not None
    done = connected_report(relinkRequestID="earlier", relinkOutcome="Completed")
    of = asked("1", {"relink": first.model_dump(by_alias=True), "session": done})
    found = relink.advance(of, of.status.session, NOW)
    assert found is not None
    assert found.completed_at is None


def test_the_token_itself_is_not_in_status() -> None:
    found = step("very-secret-token", None)
    assert found is not None
    assert "very-secret-token" not in found.model_dump_json()
