from dataclasses import replace
from typing import Any

import pytest

from tests.unit.controller.builders import (
    NOW,
    OPTIONS,
    connected_report,
    lease,
    observed,
    pod,
    report,
    session,
    told_pod,
    volume,
    wish_of,
)
from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.api.reasons import ConditionType, Phase
from whatsapp_operator.controller.actions import (
    CheckNamespace,
    CreatePod,
    DeletePod,
    DeleteSecret,
    DeleteVolume,
    PatchPod,
    PatchVolume,
    ReleaseClaim,
    RemoveFinalizer,
)
from whatsapp_operator.controller.deletion import POD_GONE_SECONDS, UNLINK_SECONDS, decide
from whatsapp_operator.controller.desired import Wish
from whatsapp_operator.controller.observed import Observed
from whatsapp_operator.controller.plan import plan

PAIRED = {"session": connected_report()}


def ending(of: WhatsAppSession, **changes: Any) -> Observed:
    return observed(of, **{"namespace_terminating": False, "deletion_age": 1.0, "secret_uid": "s", **changes})


def deleted(*, status: dict[str, Any] | None = None, **spec: Any) -> WhatsAppSession:
    return session(deleting=True, status=PAIRED if status is None else status, spec=spec)


UNLINKED = deleted(status={"session": report("Unlinked", "Unlinked")})
NEVER_PAIRED = deleted(status={"session": report("ShowingQR", "QRAvailable")})
ASKED = told_pod(deleted(), Wish(phone="+15551230001", unlink=True))
CLEAN_UP = [ReleaseClaim, DeleteVolume, DeleteSecret]


@pytest.mark.parametrize(
    ("o", "expected"),
    [
        pytest.param(ending(deleted(), namespace_terminating=None), [CheckNamespace], id="first of all"),
        pytest.param(
            ending(deleted(), namespace_terminating=True, pod=told_pod(deleted())),
            [ReleaseClaim, RemoveFinalizer],
            id="the namespace goes too",
        ),
        pytest.param(ending(deleted(), pod=told_pod(deleted())), [PatchPod], id="the pod is told to unlink"),
        pytest.param(ending(deleted(), pod=ASKED), [], id="the pod unlinks"),
        pytest.param(ending(UNLINKED, pod=ASKED), [DeletePod], id="it has unlinked"),
        pytest.param(ending(deleted(), pod=ASKED, deletion_age=UNLINK_SECONDS), [DeletePod], id="it took too long"),
        pytest.param(ending(UNLINKED, pod=replace(ASKED, deleting=True)), [], id="the pod ends"),
        pytest.param(
            ending(UNLINKED, pod=replace(ASKED, deleting=True), deletion_age=POD_GONE_SECONDS),
            CLEAN_UP,
            id="the pod does not end",
        ),
        pytest.param(
            ending(deleted(), pod=replace(ASKED, deleting=True, node_lost=True)), CLEAN_UP, id="its node is lost"
        ),
        pytest.param(ending(UNLINKED), CLEAN_UP, id="the pod is gone"),
        pytest.param(
            ending(UNLINKED, volume=volume(deleting=True), held=(), secret_gone=True),
            [RemoveFinalizer],
            id="all is gone",
        ),
        pytest.param(ending(deleted(deletionPolicy="Keep"), pod=told_pod(deleted())), [DeletePod], id="Keep"),
        pytest.param(ending(deleted()), [CreatePod], id="a pod is made to unlink"),
        pytest.param(
            ending(deleted(), volume=None, held=(), secret_gone=True), [RemoveFinalizer], id="nothing to unlink"
        ),
        pytest.param(ending(deleted(status={}), held=()), [DeleteVolume, DeleteSecret], id="never ran"),
        pytest.param(
            ending(deleted(status={"session": report("ShowingQR", "QRAvailable")}), pod=told_pod(deleted())),
            [PatchPod],
            id="a QR is showing: it may have been scanned just now",
        ),
        pytest.param(
            ending(deleted(status={}), pod=told_pod(deleted(), running=False)), [DeletePod], id="pending, never paired"
        ),
        pytest.param(ending(deleted(), pod=pod(deleting=True)), [], id="ended by somebody: best effort"),
        pytest.param(
            ending(deleted(status={}), pod=pod(session_uid="somebody's"), volume=None, held=(), secret_uid=None),
            [RemoveFinalizer],
            id="somebody's pod is left alone",
        ),
        pytest.param(
            ending(deleted(status={}), volume=volume(session_uid="somebody's"), held=(), secret_uid=None),
            [RemoveFinalizer],
            id="somebody's volume is left alone",
        ),
    ],
)
def test_the_next_step(o: Observed, expected: list[type]) -> None:
    assert [type(action) for action in decide(o, OPTIONS).actions] == expected


def test_without_our_finalizer_nothing_is_done() -> None:
    assert decide(ending(session(deleting=True, finalizer=False)), OPTIONS).actions == ()


def test_the_unlink_is_told_with_everything_else_unchanged() -> None:
    before = told_pod(deleted(), Wish(phone="+15551230009", rejected_phone="+15551230008"))
    (action,) = decide(ending(deleted(), pod=before), OPTIONS).actions
    assert isinstance(action, PatchPod)
    told = wish_of(action.annotations[0][1] or "")
    assert (told["unlink"], told["phone"], told["rejectedPhone"]) == (True, "+15551230009", "+15551230008")


@pytest.mark.parametrize(
    ("o", "expected"),
    [
        pytest.param(ending(deleted(), pod=ASKED, deletion_age=UNLINK_SECONDS), True, id="the pod did not answer"),
        pytest.param(ending(deleted(), deletion_age=UNLINK_SECONDS), True, id="no pod could be made"),
        pytest.param(ending(UNLINKED, pod=ASKED), False, id="unlinked"),
        pytest.param(ending(deleted(deletionPolicy="Keep"), deletion_age=99), False, id="not asked for"),
        pytest.param(
            ending(deleted(), namespace_terminating=True, pod=told_pod(deleted())), True, id="the namespace goes too"
        ),
        pytest.param(
            ending(deleted(deletionPolicy="Keep"), namespace_terminating=True),
            False,
            id="so it does, and not asked for",
        ),
        pytest.param(ending(NEVER_PAIRED, namespace_terminating=True), False, id="so it does, and never paired"),
        pytest.param(ending(deleted(), pod=pod(node_lost=True)), True, id="its node is lost"),
        pytest.param(ending(deleted(), pod=pod(node_lost=True, deleting=True)), True, id="its node is lost, evicted"),
        pytest.param(ending(deleted(), volume=None), True, id="its volume is gone, with the credentials"),
        pytest.param(ending(NEVER_PAIRED, pod=pod(node_lost=True)), False, id="its node is lost, never paired"),
        pytest.param(
            ending(deleted(), pod=told_pod(deleted()), deletion_age=UNLINK_SECONDS - 1), False, id="there is still time"
        ),
    ],
)
def test_a_device_that_may_be_left_is_told(o: Observed, expected: bool) -> None:
    assert decide(o, OPTIONS).timed_out is expected


def test_a_kept_volume_is_only_let_go() -> None:
    of = session(deleting=True, status=UNLINKED.status.model_dump(mode="json", by_alias=True, exclude_none=True))
    of = WhatsAppSession.model_validate(
        of.model_dump(mode="json", by_alias=True, exclude_none=True)
        | {"spec": {"tenant": "acme", "phone": "+15551230001", "storage": {"retentionPolicy": "Retain"}}}
    )
    found = decide(ending(of), OPTIONS).actions
    assert [type(action) for action in found] == [ReleaseClaim, PatchVolume, DeleteSecret]
    assert lease() in [action.claim for action in found if isinstance(action, ReleaseClaim)]


def test_only_the_secret_that_this_process_has_made_is_deleted() -> None:
    assert DeleteSecret("wa-shop", "s") in decide(ending(UNLINKED), OPTIONS).actions
    recorded = deleted(status={"session": report("Unlinked", "Unlinked"), "pairing": {"secretName": "wa-shop"}})
    unknown = ending(recorded, secret_uid=None)
    assert DeleteSecret not in [type(action) for action in decide(unknown, OPTIONS).actions]


def test_status_says_that_it_is_being_deleted() -> None:
    found = plan(ending(deleted(), pod=ASKED), OPTIONS, NOW)
    assert found.status is not None
    assert found.status.phase is Phase.DELETING
    reasons = {condition.type: condition.reason for condition in found.status.conditions}
    assert reasons[ConditionType.READY] == reasons[ConditionType.RECONCILING] == "Deleting"
    assert found.requeue_after == pytest.approx(UNLINK_SECONDS - 1)


def test_paused_does_not_block_a_deletion() -> None:
    of = session(deleting=True, status=PAIRED, annotations={"whatsapp-operator.io/paused": "true"})
    assert [type(action) for action in plan(ending(of, pod=told_pod(of)), OPTIONS, NOW).actions] == [PatchPod]


def test_the_pod_of_a_session_that_is_deleted_is_not_the_primary_one_any_more() -> None:
    (action,) = decide(ending(deleted(), pod=replace(ASKED, primary=True)), OPTIONS).actions
    assert isinstance(action, PatchPod)
    assert (action.labels, action.annotations) == (((names.LABEL_PRIMARY, None),), ())
