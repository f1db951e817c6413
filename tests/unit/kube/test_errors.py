from typing import Any

import pytest

from whatsapp_operator.kube import errors


@pytest.mark.parametrize(
    ("code", "status", "retry_after", "kind"),
    [
        (400, {}, None, errors.InvalidError),
        (401, {}, None, errors.UnauthorizedError),
        (403, {"reason": "Forbidden"}, None, errors.ForbiddenError),
        (404, {"reason": "NotFound"}, None, errors.NotFoundError),
        (409, {"reason": "AlreadyExists"}, None, errors.AlreadyExistsError),
        (409, {"reason": "Conflict"}, None, errors.ConflictError),
        (410, {"reason": "Expired"}, None, errors.GoneError),
        (422, {"reason": "Invalid"}, None, errors.InvalidError),
        (429, {}, "3", errors.ThrottledError),
        (429, {}, None, errors.ThrottledError),
        (500, {}, None, errors.ServerError),
        (500, {"message": "x: .status.new: field not declared in schema"}, None, errors.UndeclaredFieldError),
        (503, {}, None, errors.ServerError),
        (503, {}, "1", errors.ThrottledError),
        (504, None, None, errors.ServerError),
        (418, "not a Status", None, errors.KubeError),
    ],
)
def test_each_answer_has_its_type(code: int, status: Any, retry_after: str | None, kind: type) -> None:
    found = errors.from_response(code, status, retry_after)
    assert type(found) is kind
    assert found.code == code


def test_the_api_servers_own_sentence_is_kept() -> None:
    found = errors.from_response(403, {"message": "exceeded quota", "reason": "Forbidden"}, None)
    assert (found.message, found.reason, str(found)) == ("exceeded quota", "Forbidden", "exceeded quota")


@pytest.mark.parametrize(("header", "seconds"), [("3", 3.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0), (None, 1.0)])
def test_how_long_to_wait(header: str | None, seconds: float) -> None:
    found = errors.from_response(429, {}, header)
    assert isinstance(found, errors.ThrottledError)
    assert found.retry_after == seconds


def test_a_terminating_namespace_is_told_apart() -> None:
    going = {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}
    found = errors.from_response(403, going, None)
    assert isinstance(found, errors.ForbiddenError)
    assert found.namespace_terminating
    other = errors.from_response(403, {}, None)
    assert isinstance(other, errors.ForbiddenError)
    assert not other.namespace_terminating
