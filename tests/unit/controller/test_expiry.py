from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.controller.builders import (
    NOW,
    OPTIONS,
    PHONE,
    claim,
    connected_report,
    lease,
    linked,
    observed,
    pod,
    report,
    session,
    told_pod,
    wish_of,
)
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import ConditionType
from whatsapp_operator.controller.actions import CreatePod, CreateVolume, DeletePod, EnsureNamespace, ReleaseClaim
from whatsapp_operator.controller.desired import Wish
from whatsapp_operator.controller.expiry import Expiry, decide
from whatsapp_operator.controller.observed import Holder, Observed
from whatsapp_operator.controller.plan import plan

SUSPENDED = {"suspend": True, "recovery": {"inactiveExpiry": "2h"}}
EXPIRING = Wish(phone=PHONE, expire=True)
DUE, NEVER = Expiry(now=True), Expiry()


def ago(**of: float) -> str:
    return (NOW - timedelta(**of)).isoformat()


def unused(*, machine: str = "Starting", used: str | None = None, **changes: Any) -> dict[str, Any]:
    """A last report that tells of good credentials."""
    credentials = {"present": True, "valid": True, "lastUsedAt": used, "registeredAt": ago(days=9)}
    return report(machine, "PodNotReady", **(linked() | {"credentials": credentials} | changes))


def asleep(body: dict[str, Any] | None, spec: dict[str, Any] = SUSPENDED, **changes: Any) -> Observed:
    status = {"session": body} if body is not None else {}
    return observed(session(spec=spec, status=status | changes.pop("status", {})), **changes)


def ended(at: str, status: str = "Unknown") -> dict[str, Any]:
    return {"conditions": [{"type": "Connected", "status": status, "reason": "x", "lastTransitionTime": at}]}


@pytest.mark.parametrize(
    ("o", "expected"),
    [
        pytest.param(asleep(unused(used=ago(hours=2))), DUE, id="unused for so long"),
        pytest.param(asleep(unused(used=ago(hours=1))), Expiry(after=3600.0), id="not yet"),
        pytest.param(asleep(unused(used=ago(hours=3)), {"suspend": True}), NEVER, id="not set by hand"),
        pytest.param(asleep(unused(used=ago(hours=3)), {**SUSPENDED, "suspend": False}), NEVER, id="not suspended"),
        pytest.param(asleep(None), NEVER, id="nothing was ever reported"),
        pytest.param(asleep(report("Held", "Expired")), NEVER, id="no credentials"),
        pytest.param(asleep(report("Starting", "Starting", credentials={})), NEVER, id="nothing known of them"),
        pytest.param(asleep(unused(used=None)), DUE, id="never used since they were made"),
        pytest.param(
            asleep(unused(used=ago(hours=3), credentials={"present": True, "valid": True})), NEVER, id="no time known"
        ),
        pytest.param(
            asleep(
                unused(used=ago(hours=3), credentials={"present": True, "valid": False, "lastUsedAt": ago(hours=3)})
            ),
            DUE,
            id="unreadable ones too",
        ),
        pytest.param(asleep(unused(used=ago(hours=3)), pod=pod()), NEVER, id="its pod is there still"),
        pytest.param(asleep(unused(used=ago(hours=3)), pod=pod(session_uid="x")), DUE, id="the pod of somebody else"),
        pytest.param(
            asleep(unused(machine="Connected", used=ago(days=9)), status=ended(ago(hours=1))),
            Expiry(after=3600.0),
            id="its pod was killed an hour ago, while it was connected",
        ),
        pytest.param(
            asleep(unused(machine="Connected", used=ago(days=9)), status=ended(ago(hours=3))), DUE, id="three hours ago"
        ),
        pytest.param(
            asleep(unused(machine="Connected", used=ago(days=9)), status=ended(ago(days=9), "True")),
            Expiry(after=7200.0),
            id="a moment ago",
        ),
    ],
)
def test_when_the_credentials_of_a_suspended_session_expire(o: Observed, expected: Expiry) -> None:
    assert decide(o, NOW) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(unused(used=ago(hours=3)), DUE, id="they are there"),
        pytest.param(report("Starting", "Starting", credentials={}), DUE, id="the pod does not know them yet"),
        pytest.param(report("Held", "Expired"), NEVER, id="they are gone"),
    ],
)
def test_a_pod_that_was_told_runs_until_they_are_gone(body: dict[str, Any], expected: Expiry) -> None:
    o = asleep(body)
    assert decide(replace(o, pod=told_pod(o.session, EXPIRING)), NOW) == expected


def told(action: CreatePod) -> dict[str, Any]:
    return wish_of(action.body["metadata"]["annotations"][names.ANNOTATION_DESIRED_STATE])


def test_a_pod_is_made_with_all_that_it_needs() -> None:
    o = asleep(unused(used=ago(hours=3)))
    bare = replace(o, volume=None, namespace_ready=False)
    assert [type(action) for action in plan(bare, OPTIONS, NOW).actions] == [EnsureNamespace, CreateVolume]
    (action,) = plan(o, OPTIONS, NOW).actions
    assert isinstance(action, CreatePod)
    assert (told(action)["expire"], told(action)["phone"]) == (True, PHONE)


def test_it_is_looked_at_again_when_the_time_has_come() -> None:
    found = plan(asleep(unused(used=ago(hours=1))), OPTIONS, NOW)
    assert (found.actions, found.requeue_after) == ((), 3600.0)


def test_a_session_whose_claim_another_one_holds_gets_no_pod() -> None:
    o = asleep(unused(used=ago(hours=3)), claims={PHONE: claim(Holder.OTHER)}, held=())
    assert plan(o, OPTIONS, NOW).actions == ()


def test_it_is_not_said_to_be_at_rest_while_the_pod_is_at_work() -> None:
    o = asleep(unused(machine="Connecting", used=ago(hours=3)))
    found = plan(replace(o, pod=told_pod(o.session, EXPIRING)), OPTIONS, NOW)
    assert found.actions == ()
    assert found.status is not None
    seen = {condition.type: (condition.status, condition.reason) for condition in found.status.conditions}
    assert seen[ConditionType.READY][0] == "False"
    assert ConditionType.RECONCILING in seen
    crashing = told_pod(o.session, EXPIRING, running=False, waiting_reason="ImagePullBackOff")
    found = plan(replace(o, pod=crashing), OPTIONS, NOW)
    assert found.status is not None
    seen = {condition.type: (condition.status, condition.reason) for condition in found.status.conditions}
    assert seen[ConditionType.STALLED] == ("True", "ImagePullFailed")


def test_when_they_are_gone_the_pod_goes_and_then_the_claim() -> None:
    o = asleep(report("Held", "Expired"))
    running = replace(o, pod=told_pod(o.session, EXPIRING))
    assert [type(action) for action in plan(running, OPTIONS, NOW).actions] == [DeletePod]
    assert plan(o, OPTIONS, NOW).actions == (ReleaseClaim(lease()),)
    found = plan(replace(o, held=(), claims={PHONE: claim(Holder.NOBODY)}), OPTIONS, NOW)
    assert (found.actions, found.requeue_after) == ((), None)
    assert found.status is not None
    assert (found.status.phase, found.status.auth_paired) == ("Expired", False)
    seen = {condition.type: (condition.status, condition.reason) for condition in found.status.conditions}
    assert seen[ConditionType.AUTH_PAIRED] == ("False", "Expired")
    assert seen[ConditionType.READY] == ("True", "Suspended")


def test_a_session_that_is_wanted_again_is_told_so() -> None:
    of = session(spec={**SUSPENDED, "suspend": False}, status={"session": connected_report()})
    (action,) = plan(observed(of, pod=told_pod(of, EXPIRING)), OPTIONS, NOW).actions
    assert wish_of(dict(action.annotations)[names.ANNOTATION_DESIRED_STATE])["expire"] is False  # type: ignore[union-attr]
