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
from whatsapp_operator.controller import status
from whatsapp_operator.controller.actions import CreatePod, CreateVolume, DeletePod, EnsureNamespace, ReleaseClaim
from whatsapp_operator.controller.desired import Wish
from whatsapp_operator.controller.expiry import GIVEN_UP_SECONDS, TOLD_SECONDS, TRIED_AGAIN_SECONDS, Expiry, decide
from whatsapp_operator.controller.observed import Holder, Observed
from whatsapp_operator.controller.plan import plan

SUSPENDED = {"suspend": True, "recovery": {"inactiveExpiry": "2h"}}
EXPIRING = Wish(phone=PHONE, expire=True)
DUE, NEVER = Expiry(now=True), Expiry()
AT_WORK = Expiry(now=True, after=GIVEN_UP_SECONDS)


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
        pytest.param(asleep(unused(used=ago(hours=-1))), Expiry(after=10800.0), id="the clock of the pod is ahead"),
        pytest.param(
            asleep(unused(used=ago(hours=2)), status=ended(ago(hours=1), "False")),
            Expiry(after=3600.0),
            id="the clock of the pod is behind",
        ),
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
        pytest.param(
            asleep(unused(used=ago(days=9)), status=ended(ago(hours=1), "False")),
            Expiry(after=3600.0),
            id="killed an hour ago, and its next pod knew no more than the login",
        ),
        pytest.param(
            asleep(unused(used=ago(days=9), connection={"lastConnectedAt": ago(hours=1)})),
            Expiry(after=3600.0),
            id="connected an hour ago, and nothing noted since",
        ),
    ],
)
def test_when_the_credentials_of_a_suspended_session_expire(o: Observed, expected: Expiry) -> None:
    assert decide(o, NOW) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(unused(used=ago(hours=3)), AT_WORK, id="they are there"),
        pytest.param(unused(used=ago(hours=1)), AT_WORK, id="it has logged in to log the device out"),
        pytest.param(report("Starting", "Starting", credentials={}), AT_WORK, id="the pod does not know them yet"),
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
    messages = {condition.type: condition.message for condition in found.status.conditions}
    assert "spec.suspend to false" in messages[ConditionType.AUTH_PAIRED]
    assert "While the session is suspended" in messages[ConditionType.QR_READY]
    assert seen[ConditionType.READY] == ("True", "Suspended")


def test_a_session_that_is_wanted_again_is_told_so() -> None:
    of = session(spec={**SUSPENDED, "suspend": False}, status={"session": connected_report()})
    (action,) = plan(observed(of, pod=told_pod(of, EXPIRING)), OPTIONS, NOW).actions
    assert wish_of(dict(action.annotations)[names.ANNOTATION_DESIRED_STATE])["expire"] is False  # type: ignore[union-attr]


NOT_YET_RUNNING: dict[str, Any] = {"running": False, "ready": False, "waiting_reason": "ImagePullBackOff"}


def test_an_expiry_is_taken_back_while_its_pod_has_done_nothing_yet() -> None:
    o = asleep(unused(used=ago(hours=3)), {"suspend": True, "recovery": {"inactiveExpiry": "4h"}})
    pulling = replace(o, pod=told_pod(o.session, EXPIRING, **NOT_YET_RUNNING))
    assert decide(pulling, NOW) == Expiry(after=3600.0)
    assert [type(action) for action in plan(pulling, OPTIONS, NOW).actions] == [DeletePod]
    still = asleep(unused(used=ago(hours=3)))
    assert decide(replace(still, pod=told_pod(still.session, EXPIRING, **NOT_YET_RUNNING)), NOW) == AT_WORK


def test_the_pod_of_an_expiry_is_no_use_of_the_credentials() -> None:
    o = asleep(unused(used=ago(hours=3)), status=ended(ago(hours=2), "False"))
    written = o
    for changes in ({}, NOT_YET_RUNNING, {"deleting": True}):
        found = plan(replace(written, pod=told_pod(o.session, EXPIRING, **changes)), OPTIONS, NOW).status
        assert found is not None
        written = asleep(unused(used=ago(hours=3)), status=status.dump(found))
    assert decide(written, NOW) == DUE


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        pytest.param(connected_report(), {}, id="an older image does not know the wish"),
        pytest.param(unused(used=ago(hours=3)), NOT_YET_RUNNING, id="its image cannot be pulled"),
    ],
)
def test_a_pod_that_does_not_remove_them_is_given_up_for_a_day(body: dict[str, Any], changes: dict[str, Any]) -> None:
    o = asleep(body)
    running = replace(o, pod=told_pod(o.session, EXPIRING, **changes), pod_age=GIVEN_UP_SECONDS)
    told_first = plan(running, OPTIONS, NOW)
    assert (told_first.actions, told_first.requeue_after) == ((), TOLD_SECONDS)
    assert told_first.status is not None
    seen = {found.type: (found.status, found.reason) for found in told_first.status.conditions}
    assert seen[ConditionType.STALLED] == ("True", "ExpiryFailed")

    recorded = session(spec=SUSPENDED, status={**status.dump(told_first.status), "session": body})
    # Also where the operator, begun anew, does not know how old the pod is.
    later = plan(replace(running, session=recorded, pod_age=0.0), OPTIONS, NOW)
    assert [type(action) for action in later.actions] == [DeletePod]
    gone = replace(o, session=recorded)
    rests = plan(gone, OPTIONS, NOW)
    assert (rests.actions, rests.requeue_after) == ((), TRIED_AGAIN_SECONDS)
    assert rests.status is not None
    assert rests.status.phase == "Stalled"
    seen = {found.type: (found.status, found.reason) for found in rests.status.conditions}
    assert seen[ConditionType.READY] == ("False", "ExpiryFailed")
    assert seen[ConditionType.STALLED] == ("True", "ExpiryFailed")
    assert ConditionType.RECONCILING not in seen

    assert not decide(gone, NOW + timedelta(days=1)).failed
    changed = recorded.model_copy(update={"metadata": recorded.metadata.model_copy(update={"generation": 3})})
    assert not decide(replace(gone, session=changed), NOW).failed
