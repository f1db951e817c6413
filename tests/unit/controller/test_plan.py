from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.controller.builders import (
    NOW,
    OPTIONS,
    OTHER_PHONE,
    PHONE,
    UID,
    claim,
    connected_report,
    linked,
    observed,
    pod,
    report,
    session,
    told_pod,
    volume,
    wish_of,
)
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import ConditionType, Reason
from whatsapp_operator.controller import status
from whatsapp_operator.controller.actions import (
    AcquireClaim,
    AddFinalizer,
    CheckHolder,
    CreatePod,
    CreateSecret,
    CreateVolume,
    DeletePod,
    DeleteVolume,
    EnsureNamespace,
    PatchPod,
    PatchVolume,
    ResizeVolume,
)
from whatsapp_operator.controller.claims import CLAIM_RETRY_SECONDS
from whatsapp_operator.controller.desired import Wish
from whatsapp_operator.controller.observed import Holder, Observed, Problem
from whatsapp_operator.controller.plan import PAST_SECONDS, Plan, plan


def steps(o: Observed) -> list[type]:
    return [type(action) for action in plan(o, OPTIONS, NOW).actions]


def reasons(found: Plan) -> dict[str, str]:
    assert found.status is not None
    return {str(condition.type): str(condition.reason) for condition in found.status.conditions}


NEW = observed(
    session(finalizer=False),
    volume=None,
    claims={PHONE: claim(Holder.NOBODY)},
    held=(),
    namespace_ready=False,
    secret_ready=False,
)


@pytest.mark.parametrize(
    ("o", "expected"),
    [
        pytest.param(NEW, [AddFinalizer, AcquireClaim], id="nothing is there"),
        pytest.param(
            replace(NEW, session=session(finalizer=False, spec={"suspend": True})), [], id="suspended from the start"
        ),
        pytest.param(replace(NEW, claims={PHONE: claim(Holder.OTHER)}), [], id="its phone is held from the start"),
        pytest.param(
            replace(NEW, claims={PHONE: claim(Holder.UNKNOWN)}),
            [CheckHolder],
            id="its phone may be held from the start",
        ),
        pytest.param(
            observed(session(finalizer=False, spec={"suspend": True})), [AddFinalizer], id="a finalizer taken off"
        ),
        pytest.param(
            observed(volume=None, namespace_ready=False, secret_ready=False),
            [EnsureNamespace, CreateSecret, CreateVolume],
            id="finalizer and claim are there",
        ),
        pytest.param(observed(secret_ready=False), [CreateSecret], id="the Secret is missing"),
        pytest.param(observed(), [CreatePod], id="all but the pod is there"),
        pytest.param(observed(pod=told_pod(session())), [], id="all is there"),
        pytest.param(
            observed(
                session(status={"session": report("ShowingQR", "ConfigMissing")}),
                pod=told_pod(session()),
                secret_missed=True,
            ),
            [CreateSecret],
            id="the pod misses the Secret",
        ),
        pytest.param(observed(pod=told_pod(session(), deleting=True)), [], id="the pod is going"),
        pytest.param(observed(pod=told_pod(session(), phase="Failed"), pod_age=60), [DeletePod], id="the pod failed"),
        pytest.param(
            observed(pod=pod(applied_hash="old", spec_hash="old")), [DeletePod], id="the spec asks for another pod"
        ),
        pytest.param(
            observed(pod=told_pod(session(), applied_hash="old")),
            [],
            id="the operator has changed: not without a place",
        ),
        pytest.param(
            observed(pod=told_pod(session(), spec_hash=None)),
            [PatchPod],
            id="the pod is of an operator without spec hashes",
        ),
        pytest.param(
            observed(pod=told_pod(session(), applied_hash="old", spec_hash=None)),
            [PatchPod],
            id="so is one that waits for its turn: what is asked for next is known",
        ),
        pytest.param(observed(pod=told_pod(session(), Wish())), [PatchPod], id="the pod must be told"),
        pytest.param(observed(pod=pod(session_uid="earlier", deleting=True)), [], id="the pod before is going"),
        pytest.param(observed(pod=pod(session_uid="earlier")), [DeletePod], id="the pod before was left behind"),
        pytest.param(observed(volume=volume(deleting=True)), [], id="the volume is being deleted by hand"),
        pytest.param(
            observed(
                session(status={"session": report("Failed", "VolumeForeign", credentials={}), "authPaired": True}),
                pod=told_pod(session()),
                volume=volume(deleting=True),
            ),
            [DeletePod],
            id="a volume of another phone is being deleted by hand",
        ),
        pytest.param(
            observed(
                session(status={"session": report("ShowingQR", "QRAvailable")}),
                pod=told_pod(session()),
                volume=volume(deleting=True),
            ),
            [DeletePod],
            id="an empty volume is being deleted by hand",
        ),
        pytest.param(
            observed(
                session(status={"session": connected_report()}), pod=told_pod(session()), volume=volume(deleting=True)
            ),
            [],
            id="the volume of a connected session is being deleted by hand",
        ),
        pytest.param(
            observed(
                session(status={"session": report("Reconnecting", "Reconnecting", **linked())}),
                pod=told_pod(session()),
                volume=volume(deleting=True),
            ),
            [],
            id="the volume of a linked session is being deleted by hand",
        ),
        pytest.param(observed(pod=told_pod(session(), deleting=True), volume=volume(deleting=True)), [], id="both go"),
        pytest.param(observed(volume=volume(session_uid="")), [PatchVolume], id="a kept volume"),
        pytest.param(observed(volume=volume(requested="128Mi"), pod=told_pod(session())), [ResizeVolume], id="grow"),
        pytest.param(observed(volume=volume(requested="1Gi"), pod=told_pod(session())), [], id="never shrink"),
        pytest.param(
            observed(volume=volume(requested="1Gi", capacity="128Mi", resize_error="no"), pod=told_pod(session())),
            [ResizeVolume],
            id="ask for less after a refusal",
        ),
        pytest.param(
            observed(volume=volume(requested="1Gi", capacity="256Mi", resize_error="no"), pod=told_pod(session())),
            [],
            id="the former size after a refusal",
        ),
        pytest.param(
            observed(volume=volume(requested="1Mi", bound=False), pod=told_pod(session())), [], id="not before bound"
        ),
        pytest.param(
            observed(volume=volume(requested="1Gi", bound=False, pending=True)),
            [DeleteVolume],
            id="another size at first",
        ),
        pytest.param(
            observed(volume=volume(bound=False, pending=True, kind_hash="of another class")),
            [DeleteVolume],
            id="another class at first",
        ),
        pytest.param(
            observed(volume=volume(kind_hash="of another class"), pod=told_pod(session())),
            [],
            id="another class too late",
        ),
        pytest.param(
            observed(
                session(status={"session": connected_report()}),
                pod=told_pod(session(), running=False),
                volume=volume(bound=False, pending=True, deleting=True),
            ),
            [DeletePod],
            id="only the pod holds a volume that was never bound",
        ),
        pytest.param(
            observed(
                session(spec={"suspend": True}, status={"session": connected_report()}),
                volume=volume(requested="128Mi"),
            ),
            [ResizeVolume],
            id="grow suspended",
        ),
        pytest.param(observed(session(spec={"suspend": True}), pod=told_pod(session())), [DeletePod], id="suspend"),
        pytest.param(
            observed(claims={PHONE: claim(Holder.OTHER)}, held=(), pod=told_pod(session())),
            [DeletePod],
            id="claim lost",
        ),
        pytest.param(
            observed(claims={PHONE: claim(Holder.NOBODY)}, held=(), pod=told_pod(session())),
            [AcquireClaim],
            id="claim deleted by hand: taken again before anything else",
        ),
        pytest.param(observed(session(annotations={names.ANNOTATION_PAUSED: "true"})), [], id="paused"),
        pytest.param(observed(invalid="spec.phone: wrong", volume=None), [], id="invalid"),
    ],
)
def test_the_next_step(o: Observed, expected: list[type]) -> None:
    assert steps(o) == expected


@pytest.mark.parametrize(
    ("requested", "capacity", "stalled"),
    [
        pytest.param("256Mi", "128Mi", True, id="as wanted, refused"),
        pytest.param("1Gi", "256Mi", False, id="the former size is wanted again"),
    ],
)
def test_the_former_size_is_the_remedy_of_a_refused_expansion(requested: str, capacity: str, stalled: bool) -> None:
    refused = volume(requested=requested, capacity=capacity, resize_error="no")
    assert (ConditionType.STALLED in reasons(plan(observed(volume=refused), OPTIONS, NOW))) is stalled


def test_a_paused_session_keeps_its_status() -> None:
    assert plan(observed(session(annotations={names.ANNOTATION_PAUSED: "true"})), OPTIONS, NOW).status is None


@pytest.mark.parametrize(
    ("o", "reason"),
    [
        pytest.param(observed(pod=pod(session_uid="")), Reason.NAME_CONFLICT, id="somebody's pod"),
        pytest.param(observed(volume=volume(session_uid="other")), Reason.NAME_CONFLICT, id="somebody's volume"),
        pytest.param(
            observed(volume=volume(session_uid="", ours=False)), Reason.NAME_CONFLICT, id="a volume made by hand"
        ),
        pytest.param(
            observed(volume=volume(session_uid="", tenant="x")), Reason.VOLUME_FOREIGN, id="another tenant's volume"
        ),
        pytest.param(
            observed(session(spec={"template": {"image": "x"}})), Reason.INVALID_SPEC, id="template beyond the lists"
        ),
        pytest.param(observed(problems=(Problem(Reason.POD_REJECTED, "quota"),)), Reason.POD_REJECTED, id="refused"),
        pytest.param(observed(volume=volume(resize_error="no")), Reason.EXPANSION_REFUSED, id="cannot grow"),
    ],
)
def test_problems_stall(o: Observed, reason: Reason) -> None:
    found = plan(o, OPTIONS, NOW)
    assert reasons(found)[ConditionType.STALLED] == reason
    assert reasons(found)[ConditionType.POD_READY] == reason


RESUMED = {
    "conditions": [
        {
            "type": "PodReady",
            "status": "False",
            "reason": "Suspended",
            "lastTransitionTime": "2026-11-21T09:00:00Z",
        }
    ]
}


@pytest.mark.parametrize(
    ("o", "expected"),
    [
        pytest.param(observed(session(finalizer=False), secret_ready=False), False, id="before the first pass"),
        pytest.param(observed(secret_ready=False), True, id="after a crash in the first pass"),
        pytest.param(
            observed(session(status=RESUMED), secret_ready=False), True, id="after a crash in the pass of a resume"
        ),
        pytest.param(
            observed(session(status=RESUMED), secret_ready=False, fresh=True), False, id="in the pass of a resume"
        ),
        pytest.param(
            observed(secret_ready=False, secret_taken=True), False, id="found out in a pass that could not write it"
        ),
        pytest.param(observed(secret_ready=False, fresh=True), False, id="in the first pass"),
        pytest.param(
            observed(session(status={"pairing": {"secretName": "wa-shop"}}), secret_ready=False, fresh=True),
            True,
            id="recorded",
        ),
        pytest.param(
            observed(
                session(
                    status={
                        "conditions": [
                            {
                                "type": "PodReady",
                                "status": "False",
                                "reason": "NameConflict",
                                "lastTransitionTime": "2026-11-21T09:00:00Z",
                            }
                        ]
                    }
                ),
                secret_ready=False,
            ),
            False,
            id="known to be somebody's",
        ),
    ],
)
def test_whose_a_secret_of_that_name_is(o: Observed, expected: bool) -> None:
    found = [action for action in plan(replace(o, pod=None), OPTIONS, NOW).actions if isinstance(action, CreateSecret)]
    if names.FINALIZER in o.session.metadata.finalizers:
        assert [action.may_exist for action in found] == [expected]
    else:
        assert found == []


def test_the_pod_is_told_what_status_says_not_what_the_annotation_says() -> None:
    annotations = {names.ANNOTATION_FORCE_RELINK: "1"}
    of = session(annotations=annotations, status={"session": connected_report()})
    first = plan(observed(of, pod=told_pod(of)), OPTIONS, NOW)
    assert first.actions == ()
    assert first.status is not None
    assert first.status.relink is not None
    request = first.status.relink.request_id
    written = {"session": connected_report(), "relink": first.status.relink.model_dump(by_alias=True)}
    of = session(annotations=annotations, status=written)
    (action,) = plan(observed(of, pod=told_pod(of)), OPTIONS, NOW).actions
    assert isinstance(action, PatchPod)
    told = dict(action.annotations)
    assert wish_of(told[names.ANNOTATION_DESIRED_STATE] or "")["relinkRequestID"] == request
    assert told[names.ANNOTATION_NUDGES] is None


def test_a_change_that_a_running_pod_can_follow_does_not_replace_it() -> None:
    before = told_pod(session())
    of = session(spec={"pairing": {"attempts": 9}})
    (action,) = plan(observed(of, pod=before), OPTIONS, NOW).actions
    assert isinstance(action, PatchPod)


@pytest.mark.parametrize(
    "spec",
    [
        {"proxy": {"url": "http://proxy:3128"}},
        {"caBundle": {"configMapRef": {"name": "ca", "key": "ca.pem"}}},
        {"template": {"nodeSelector": {"disk": "ssd"}}},
        {"template": {"labels": {"team.example/name": "a"}}},
    ],
)
def test_a_change_that_it_cannot_follow_does(spec: dict[str, Any]) -> None:
    assert steps(observed(session(spec=spec), pod=told_pod(session()))) == [DeletePod]


def test_an_upgrade_of_the_operator_alone_replaces_no_pod() -> None:
    later = replace(OPTIONS, version="9.9.9")
    assert plan(observed(pod=told_pod(session())), later, NOW).actions == ()


def test_a_new_number_is_told_only_when_it_is_claimed() -> None:
    of = session(phone=OTHER_PHONE, status={"session": connected_report()})
    running = told_pod(of, Wish(phone=PHONE))
    claims = {PHONE: claim(Holder.OURS), OTHER_PHONE: claim(Holder.OTHER, "phone-2")}
    assert plan(observed(of, pod=running, claims=claims), OPTIONS, NOW).actions == ()
    claims[OTHER_PHONE] = claim(Holder.OURS, "phone-2")
    (action,) = plan(observed(of, pod=running, claims=claims), OPTIONS, NOW).actions
    assert isinstance(action, PatchPod)
    assert wish_of(action.annotations[0][1] or "")["phone"] == OTHER_PHONE


def test_a_pod_is_made_for_the_former_number_while_the_new_one_is_held() -> None:
    of = session(phone=OTHER_PHONE, status={"session": connected_report()})
    found = plan(observed(of, claims={PHONE: claim(Holder.OURS), OTHER_PHONE: claim(Holder.OTHER)}), OPTIONS, NOW)
    (action,) = found.actions
    assert isinstance(action, CreatePod)
    told = wish_of(action.body["metadata"]["annotations"][names.ANNOTATION_DESIRED_STATE])
    assert told["phone"] == PHONE
    assert found.requeue_after == CLAIM_RETRY_SECONDS


@pytest.mark.parametrize(
    ("primary_uid", "rivals", "expected"),
    [
        pytest.param(None, (), True, id="alone"),
        pytest.param(UID, ((NOW - timedelta(hours=1), "x"),), True, id="was it before"),
        pytest.param("x", (), False, id="another one is"),
        pytest.param(None, ((NOW - timedelta(hours=1), "x"),), False, id="another one is older"),
        pytest.param(None, ((NOW + timedelta(hours=1), "x"),), True, id="another one is younger"),
    ],
)
def test_who_is_primary(primary_uid: str | None, rivals: tuple[Any, ...], expected: bool) -> None:
    of = session(status={"session": connected_report()})
    o = observed(of, pod=told_pod(of), primary_uid=primary_uid, rivals=rivals)
    found = plan(o, OPTIONS, NOW).status
    assert found is not None
    assert found.primary is expected


@pytest.mark.parametrize("marked", [True, False])
def test_the_label_follows_the_status(marked: bool) -> None:
    of = session(status={"session": connected_report(), "primary": marked})
    (action,) = plan(observed(of, pod=told_pod(of, primary=not marked)), OPTIONS, NOW).actions
    assert isinstance(action, PatchPod)
    assert action.labels == ((names.LABEL_PRIMARY, "true" if marked else None),)


def test_a_session_that_is_not_connected_is_not_primary() -> None:
    of = session(status={"session": report("Reconnecting", "Reconnecting")})
    found = plan(observed(of, pod=told_pod(of), primary_uid=UID), OPTIONS, NOW).status
    assert found is not None
    assert found.primary is False


@pytest.mark.parametrize(
    ("o", "after"),
    [
        pytest.param(observed(pod=told_pod(session())), None, id="nothing changes by time alone"),
        pytest.param(observed(pod=told_pod(session(), running=False), pod_age=4), 6.1, id="may be worth telling later"),
        pytest.param(observed(claims={PHONE: claim(Holder.OTHER)}, held=()), 60.0, id="the claim may become free"),
        pytest.param(observed(pod=told_pod(session(), phase="Failed"), pod_age=4), 6.0, id="replaced later"),
    ],
)
def test_when_to_look_again(o: Observed, after: float | None) -> None:
    assert plan(o, OPTIONS, NOW).requeue_after == (None if after is None else pytest.approx(after))


def test_a_restart_of_the_operator_writes_nothing_about_a_pod_that_is_long_in_the_making() -> None:
    spec = {"caBundle": {"secretRef": {"name": "ca", "key": "ca.crt"}}}
    of = session(spec=spec)
    creating = told_pod(of, running=False, ready=False, phase="Pending", started_at=None)
    long = plan(observed(of, pod=creating, pod_age=60.0), OPTIONS, NOW).status
    assert long is not None
    assert "Secret ca of spec.caBundle" in str(status.dump(long))
    again = session(spec=spec, status=status.dump(long))
    restarted = plan(observed(again, pod=creating, pod_age=0.5), OPTIONS, NOW).status
    assert restarted is not None
    assert status.dump(restarted) == status.dump(long)


@pytest.mark.parametrize("spec", [{"suspend": True}, {"template": {"nodeSelector": {"disk": "slow"}}}])
def test_a_pod_of_a_later_session_than_is_seen_is_left_alone(spec: dict[str, Any]) -> None:
    seen = session(spec=spec)
    later = pod(generation=seen.metadata.generation + 1)
    assert plan(observed(seen, pod=later), OPTIONS, NOW) == Plan(requeue_after=PAST_SECONDS)
    assert plan(observed(seen, pod=replace(later, generation=seen.metadata.generation)), OPTIONS, NOW).actions


def test_a_generation_that_somebody_has_written_on_a_pod_is_taken_back() -> None:
    written = told_pod(session(), generation=session().metadata.generation + 998)
    (action,) = plan(observed(pod=written, pod_age=PAST_SECONDS), OPTIONS, NOW).actions
    assert isinstance(action, PatchPod)
    assert dict(action.annotations) == {names.ANNOTATION_GENERATION: str(session().metadata.generation)}


TEMPLATE: dict[str, Any] = {"labels": {"example.com/team": "a"}, "annotations": {"example.com/note": "b"}}


@pytest.mark.parametrize(
    "changes",
    [
        {"edited": True},
        {"tenant": "other"},
        {"further": ({"example.com/team": "z"}, {"example.com/note": "b"})},
        {"further": ({"example.com/team": "a"}, {})},
    ],
)
def test_labels_and_annotations_of_ours_that_somebody_has_changed_are_mended(changes: dict[str, Any]) -> None:
    of = session(spec={"template": TEMPLATE})
    (action,) = plan(observed(of, pod=told_pod(of, **changes)), OPTIONS, NOW).actions
    assert isinstance(action, PatchPod)
    written = dict(action.labels)
    assert (
        written.items() >= {names.LABEL_TENANT: "acme", names.LABEL_SESSION_UID: UID, "example.com/team": "a"}.items()
    )
    assert names.LABEL_APP_VERSION not in written
    assert dict(action.annotations) == {"example.com/note": "b"}


def test_labels_and_annotations_that_somebody_has_added_are_theirs() -> None:
    of = session(spec={"template": TEMPLATE})
    further = ({"example.com/team": "a", "mine": "x"}, {"example.com/note": "b", "mine": "y"})
    assert plan(observed(of, pod=told_pod(of, further=further)), OPTIONS, NOW).actions == ()


@pytest.mark.parametrize("changes", [{"edited": True}, {"tenant": "other"}])
def test_labels_of_a_volume_that_somebody_has_changed_are_mended(changes: dict[str, Any]) -> None:
    (action,) = plan(observed(pod=told_pod(session()), volume=volume(**changes)), OPTIONS, NOW).actions
    assert isinstance(action, PatchVolume)
    assert action.patch["metadata"]["labels"][names.LABEL_TENANT] == "acme"
