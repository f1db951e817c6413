from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.controller.builders import NOW, UID, connected_report, linked, observed, pod, report, session, volume
from whatsapp_operator.api import names
from whatsapp_operator.api.models import Condition
from whatsapp_operator.api.reasons import ConditionType, MachineState, Reason, sentence
from whatsapp_operator.controller import conditions
from whatsapp_operator.controller.conditions import Draft
from whatsapp_operator.controller.observed import Observed, Problem
from whatsapp_operator.controller.views import PodView

CLAIMED = Draft("True", Reason.CLAIMED)


def reported(machine: str, reason: str, *, spec: dict[str, Any] | None = None, **changes: Any) -> Observed:
    return observed(session(spec=spec, status={"session": report(machine, reason, **changes)}), pod=pod())


def waiting(code: str, message: str = "") -> PodView:
    return pod(running=False, ready=False, started_at=None, waiting_reason=code, waiting_message=message)


PENDING = {"phase": "Pending", "running": False, "ready": False, "started_at": None}


@pytest.mark.parametrize(
    ("o", "status", "reason"),
    [
        pytest.param(observed(), "False", Reason.POD_PENDING, id="no pod yet"),
        pytest.param(observed(session(spec={"suspend": True})), "False", Reason.SUSPENDED, id="suspended"),
        pytest.param(observed(pod=pod(session_uid="x")), "False", Reason.POD_PENDING, id="pod of an earlier session"),
        pytest.param(observed(pod=pod(deleting=True)), "False", Reason.POD_PENDING, id="being stopped"),
        pytest.param(observed(pod=pod(node_lost=True)), "Unknown", Reason.NODE_LOST, id="node lost"),
        pytest.param(
            observed(pod=pod(node_lost=True, deleting=True)), "Unknown", Reason.NODE_LOST, id="node lost, then evicted"
        ),
        pytest.param(observed(pod=pod(phase="Failed", running=False)), "False", Reason.POD_FAILED, id="failed"),
        pytest.param(observed(pod=waiting("ImagePullBackOff")), "False", Reason.IMAGE_PULL_FAILED, id="no image"),
        pytest.param(
            observed(pod=waiting("CreateContainerConfigError")), "False", Reason.CONFIG_MISSING, id="no Secret"
        ),
        pytest.param(observed(pod=waiting("CrashLoopBackOff")), "False", Reason.CRASH_LOOPING, id="crashes"),
        pytest.param(observed(pod=waiting("ContainerCreating")), "False", Reason.POD_PENDING, id="being created"),
        pytest.param(
            observed(pod=pod(**PENDING, unschedulable="0/1 nodes"), pod_age=11),
            "False",
            Reason.UNSCHEDULABLE,
            id="full",
        ),
        pytest.param(
            observed(pod=pod(**PENDING, unschedulable="0/1 nodes"), pod_age=9),
            "False",
            Reason.POD_PENDING,
            id="not yet",
        ),
        pytest.param(
            observed(pod=pod(**PENDING), volume=volume(bound=False), pod_age=11),
            "False",
            Reason.VOLUME_PENDING,
            id="no volume",
        ),
        pytest.param(observed(pod=pod()), "False", Reason.POD_PENDING, id="runs, without a report"),
        pytest.param(reported("ShowingQR", "QRAvailable"), "True", Reason.POD_READY, id="runs and reports"),
        pytest.param(
            reported("Failed", "VolumeFull", message="no space"), "False", Reason.VOLUME_FULL, id="volume is full"
        ),
        pytest.param(
            observed(problems=(Problem(Reason.POD_REJECTED, "quota"),)), "False", Reason.POD_REJECTED, id="refused"
        ),
    ],
)
def test_pod_ready(o: Observed, status: str, reason: Reason) -> None:
    found = conditions.pod_ready(o)
    assert (found.status, found.reason) == (status, reason)


UNBOUND = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims"


@pytest.mark.parametrize(
    ("unschedulable", "storage", "storage_class", "reason", "told"),
    [
        (
            UNBOUND,
            {},
            "fast",
            Reason.VOLUME_PENDING,
            "The StorageClass fast is asked for a volume with the access mode",
        ),
        (
            None,
            {},
            "fast",
            Reason.VOLUME_PENDING,
            "ReadWriteOncePod, which CSI drivers alone provide: for another, set",
        ),
        (UNBOUND, {"accessMode": "ReadWriteOnce"}, "fast", Reason.VOLUME_PENDING, "the access mode ReadWriteOnce. 0/1"),
        (UNBOUND, {}, None, Reason.VOLUME_PENDING, "the cluster has no default. 0/1 nodes are available"),
        ("0/1 nodes are available: 1 Insufficient cpu", {}, "fast", Reason.UNSCHEDULABLE, "0/1 nodes are available"),
    ],
)
def test_a_volume_that_does_not_come_tells_what_was_asked_of_whom(
    unschedulable: str | None, storage: dict[str, str], storage_class: str | None, reason: Reason, told: str
) -> None:
    waits = volume(bound=False, pending=True, storage_class=storage_class)
    found = pod(**PENDING, unschedulable=unschedulable)
    draft = conditions.pod_ready(observed(session(spec={"storage": storage}), pod=found, volume=waits, pod_age=11))
    assert draft.reason is reason
    assert told in draft.text
    assert draft.text.endswith(sentence(reason))


@pytest.mark.parametrize(
    ("modes", "told"),
    [
        ((), ""),
        (("ReadWriteOncePod",), ""),
        (("ReadWriteOnce",), "(its access mode is ReadWriteOnce, not ReadWriteOncePod)"),
        (("ReadWriteOnce", "ReadWriteOncePod"), "(its access mode is ReadWriteOnce, ReadWriteOncePod, not"),
    ],
)
def test_a_volume_that_two_pods_could_mount_is_told_of(modes: tuple[str, ...], told: str) -> None:
    running = session(status={"session": connected_report()})
    draft = conditions.pod_ready(observed(running, pod=pod(), volume=volume(access_modes=modes)))
    assert (draft.status, draft.reason) == ("True", Reason.POD_READY)
    assert told in draft.text
    assert (draft.text == sentence(Reason.POD_READY)) is (told == "")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (pod(ended="OOMKilled"), Reason.POD_READY),
        (pod(ended="OOMKilled", ready=False), Reason.POD_PENDING),
        (pod(ended="OOMKilled", running=False), Reason.POD_PENDING),
        (pod(ended="OOMKilled", running=False, waiting_reason="CrashLoopBackOff"), Reason.CRASH_LOOPING),
    ],
)
def test_a_lack_of_memory_is_told_with_its_remedy(found: PodView, reason: Reason) -> None:
    draft = conditions.pod_ready(observed(session(status={"session": connected_report()}), pod=found))
    assert draft.reason is reason
    assert "OOMKilled" in draft.text
    assert "raise spec.template.resources.limits.memory" in draft.text
    assert draft.text.endswith(sentence(reason))


def test_a_crash_loop_tells_the_exit_code() -> None:
    crashing = pod(running=False, waiting_reason="CrashLoopBackOff", ended="exit code 2")
    assert conditions.pod_ready(observed(pod=crashing)).text.startswith("CrashLoopBackOff: exit code 2. ")


def test_why_a_pod_is_pending_is_still_told_after_a_restart_of_the_operator() -> None:
    told = {
        "type": "PodReady",
        "status": "False",
        "reason": "Unschedulable",
        "lastTransitionTime": "2026-11-21T09:00:00Z",
    }
    o = observed(session(status={"conditions": [told]}), pod=pod(**PENDING, unschedulable="0/1 nodes"), pod_age=0)
    assert conditions.pod_ready(o).reason is Reason.UNSCHEDULABLE


@pytest.mark.parametrize(
    ("o", "status", "reason"),
    [
        pytest.param(observed(), "False", Reason.POD_NOT_READY, id="no pod"),
        pytest.param(reported("ShowingQR", "QRAvailable"), "True", Reason.QR_AVAILABLE, id="QR"),
        pytest.param(reported("ShowingCode", "CodeAvailable"), "True", Reason.CODE_AVAILABLE, id="code"),
        pytest.param(reported("Connecting", "Connecting"), "False", Reason.STARTING, id="asked for"),
        pytest.param(reported("Authenticating", "NotPaired"), "False", Reason.NOT_NEEDED, id="scanned"),
        pytest.param(reported("Connected", "Connected", **linked()), "False", Reason.NOT_NEEDED, id="paired"),
        pytest.param(reported("Failed", "AttemptsExhausted"), "False", Reason.ATTEMPTS_EXHAUSTED, id="exhausted"),
        pytest.param(reported("Held", "RateLimited"), "False", Reason.RATE_LIMITED, id="limited"),
        pytest.param(reported("Failed", "PasskeyRequired"), "False", Reason.PASSKEY_REQUIRED, id="passkey"),
    ],
)
def test_qr_ready(o: Observed, status: str, reason: Reason) -> None:
    found = conditions.qr_ready(o)
    assert (found.status, found.reason) == (status, reason)


@pytest.mark.parametrize(
    ("o", "status", "reason"),
    [
        pytest.param(observed(), "False", Reason.NOT_PAIRED, id="never reported"),
        pytest.param(reported("Connected", "Connected", **linked()), "True", Reason.PAIRED, id="paired"),
        pytest.param(
            observed(session(status={"session": connected_report()})), "True", Reason.PAIRED, id="paired, no pod now"
        ),
        pytest.param(reported("Held", "LoggedOut"), "False", Reason.LOGGED_OUT, id="logged out"),
        pytest.param(reported("Held", "MainDeviceGone"), "False", Reason.MAIN_DEVICE_GONE, id="main device gone"),
        pytest.param(reported("ShowingQR", "QRAvailable"), "False", Reason.NOT_PAIRED, id="waits"),
        pytest.param(reported("Failed", "SomethingNew"), "False", Reason.NOT_PAIRED, id="a reason of a later version"),
    ],
)
def test_auth_paired(o: Observed, status: str, reason: Reason) -> None:
    found = conditions.auth_paired(o)
    assert (found.status, found.reason) == (status, reason)


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        ({"reason": "Expired"}, f"Expired: {sentence(Reason.EXPIRED)}"),
        (
            {"reason": "PasskeyRequired", "message": "Asked after the scan."},
            f"PasskeyRequired: Asked after the scan. {sentence(Reason.PASSKEY_REQUIRED)}",
        ),
        ({"reason": "NotPaired"}, "The phone has scanned, but the pairing was refused or not finished."),
        ({"reason": "NotPaired", "message": "The phone has no multi-device."}, "The phone has no multi-device."),
        ({"reason": "OfLater"}, "The phone has scanned, but the pairing was refused or not finished."),
    ],
)
@pytest.mark.parametrize("reason", ["QRAvailable", "Expired"])
def test_why_the_last_attempt_failed_is_told(attempt: dict[str, Any], told: str, reason: str) -> None:
    history = [{"seq": 1, "result": "Failed", **attempt}]
    found = conditions.auth_paired(reported("ShowingQR", reason, pairing={"history": history}))
    if reason == "Expired" and attempt["reason"] != "Expired":
        assert found.reason is Reason.EXPIRED
    else:
        assert (found.reason, found.text) == (
            Reason.NOT_PAIRED,
            f"No device is linked. The last attempt failed. {told}",
        )


@pytest.mark.parametrize(
    ("before", "status", "relink", "expected"),
    [
        pytest.param("LoggedOut", "False", None, Reason.LOGGED_OUT, id="removed on the phone"),
        pytest.param("MainDeviceGone", "False", "2026-11-21T08:00:00Z", Reason.MAIN_DEVICE_GONE, id="asked for before"),
        pytest.param("LoggedOut", "False", "2026-11-21T09:30:00Z", Reason.NOT_PAIRED, id="asked for since"),
        pytest.param("PhoneMismatch", "False", None, Reason.NOT_PAIRED, id="was never linked"),
        pytest.param("Paired", "True", None, Reason.NOT_PAIRED, id="relinked"),
    ],
)
def test_why_the_device_was_lost_is_told_until_another_is_linked(
    before: str, status: str, relink: str | None, expected: Reason
) -> None:
    told = {"type": "AuthPaired", "status": status, "reason": before, "lastTransitionTime": "2026-11-21T09:00:00Z"}
    asked = {"relink": {"requestID": "r", "requestedAt": relink}} if relink is not None else {}
    of = session(status={"conditions": [told], "session": report("ShowingQR", "QRAvailable"), **asked})
    assert conditions.auth_paired(observed(of, pod=pod())).reason is expected


@pytest.mark.parametrize(
    ("machine", "reason", "compute"),
    [
        ("Failed", "VolumeFull", conditions.pod_ready),
        ("Held", "RateLimited", conditions.qr_ready),
        ("Held", "LoggedOut", conditions.auth_paired),
        ("Connecting", "ProxyFailed", conditions.connected),
    ],
)
def test_what_the_pod_says_more_does_not_replace_the_remedy(
    machine: str, reason: str, compute: Callable[[Observed], Draft]
) -> None:
    found = compute(reported(machine, reason, message="The proxy answers 403."))
    assert found.text == f"The proxy answers 403. {sentence(Reason(reason))}"


@pytest.mark.parametrize(
    ("o", "status", "reason"),
    [
        pytest.param(observed(), "Unknown", Reason.POD_NOT_READY, id="no pod"),
        pytest.param(observed(session(spec={"suspend": True})), "False", Reason.SUSPENDED, id="suspended"),
        pytest.param(
            observed(session(spec={"suspend": True}), pod=pod(deleting=True)),
            "False",
            Reason.SUSPENDED,
            id="being suspended",
        ),
        pytest.param(
            observed(session(spec={"suspend": True}), pod=pod(node_lost=True)),
            "Unknown",
            Reason.NODE_LOST,
            id="suspended, on a lost node",
        ),
        pytest.param(reported("Connected", "Connected", **linked()), "True", Reason.CONNECTED, id="open and paired"),
        pytest.param(reported("Connected", "Connected"), "False", Reason.NOT_PAIRED, id="open, not paired"),
        pytest.param(reported("Connecting", "ProxyFailed"), "False", Reason.PROXY_FAILED, id="proxy"),
        pytest.param(reported("Reconnecting", "Reconnecting", **linked()), "False", Reason.RECONNECTING, id="lost"),
        pytest.param(reported("Starting", "Starting", **linked()), "False", Reason.CONNECTING, id="starting"),
        pytest.param(reported("Held", "TemporaryBan", **linked()), "False", Reason.TEMPORARY_BAN, id="banned"),
    ],
)
def test_connected(o: Observed, status: str, reason: Reason) -> None:
    found = conditions.connected(o)
    assert (found.status, found.reason) == (status, reason)


@pytest.mark.parametrize(
    "phantom",
    [
        pytest.param(None, id="pod is gone"),
        pytest.param(pod(uid="another"), id="another pod"),
        pytest.param(pod(session_uid="another"), id="pod of another session"),
        pytest.param(pod(running=False), id="not running"),
        pytest.param(pod(deleting=True), id="going"),
        pytest.param(pod(node_lost=True), id="node lost"),
        pytest.param(pod(started_at=NOW + timedelta(seconds=1)), id="container restarted since"),
    ],
)
def test_no_phantom_connected(phantom: PodView | None) -> None:
    o = observed(session(status={"session": connected_report()}), pod=phantom)
    drafts = conditions.compute(o, CLAIMED)
    for kind in (ConditionType.CONNECTED, ConditionType.READY):
        draft = drafts[kind]
        assert draft is not None
        assert draft.status != "True"


@pytest.mark.parametrize(
    ("o", "claimed", "ready", "abnormal"),
    [
        pytest.param(reported("Connected", "Connected", **linked()), CLAIMED, ("True", "Connected"), None, id="ready"),
        pytest.param(
            reported("ShowingQR", "QRAvailable"), CLAIMED, ("False", "WaitingForScan"), "Reconciling", id="scan"
        ),
        pytest.param(observed(), CLAIMED, ("False", "PodPending"), "Reconciling", id="starting"),
        pytest.param(
            observed(session(spec={"suspend": True})), CLAIMED, ("True", "Suspended"), None, id="suspended as asked"
        ),
        pytest.param(
            observed(session(spec={"suspend": True}), pod=pod(deleting=True)),
            CLAIMED,
            ("False", "Progressing"),
            "Reconciling",
            id="being suspended",
        ),
        pytest.param(
            reported("Connected", "Connected", **linked()),
            Draft("False", Reason.HELD_BY_OTHER),
            ("False", "HeldByOther"),
            "Stalled",
            id="never ready without the claim",
        ),
        pytest.param(
            reported("Failed", "AttemptsExhausted"),
            Draft("False", Reason.ATTEMPTS_EXHAUSTED),
            ("False", "AttemptsExhausted"),
            "Stalled",
            id="exhausted",
        ),
        pytest.param(
            reported("Held", "LoggedOut", spec={"recovery": {"onLoggedOut": "Hold"}}),
            CLAIMED,
            ("False", "LoggedOut"),
            "Stalled",
            id="logged out, waits for a person",
        ),
        pytest.param(
            reported("Connecting", "LoggedOut"),
            CLAIMED,
            ("False", "LoggedOut"),
            "Reconciling",
            id="logged out, relinks",
        ),
        pytest.param(
            reported("Held", "TemporaryBan", connection={"nextRetryAt": "2026-11-21T11:00:00Z"}, **linked()),
            CLAIMED,
            ("False", "TemporaryBan"),
            "Reconciling",
            id="banned",
        ),
        pytest.param(
            reported("Failed", "StreamReplaced", **linked()),
            CLAIMED,
            ("False", "StreamReplaced"),
            "Stalled",
            id="replaced for good",
        ),
        pytest.param(
            observed(invalid="spec.phone: wrong"), CLAIMED, ("False", "InvalidSpec"), "Stalled", id="invalid spec"
        ),
        pytest.param(
            observed(session(deleting=True), pod=pod()), CLAIMED, ("False", "Deleting"), "Reconciling", id="deleting"
        ),
    ],
)
def test_ready_and_the_abnormal_ones(o: Observed, claimed: Draft, ready: tuple[str, str], abnormal: str | None) -> None:
    drafts = conditions.compute(o, claimed)
    found = drafts[ConditionType.READY]
    assert found is not None
    assert (found.status, found.reason) == ready
    present = [kind for kind in (ConditionType.RECONCILING, ConditionType.STALLED) if drafts[kind] is not None]
    assert present == ([abnormal] if abnormal else [])


@given(
    machine=st.sampled_from(list(MachineState)),
    reason=st.sampled_from(list(Reason)),
    is_linked=st.booleans(),
    suspend=st.booleans(),
    deleting=st.booleans(),
    claimed=st.sampled_from([CLAIMED, Draft("False", Reason.HELD_BY_OTHER)]),
    found=st.sampled_from([None, pod(), pod(deleting=True), pod(node_lost=True), waiting("CrashLoopBackOff")]),
)
def test_what_always_holds(
    machine: MachineState,
    reason: Reason,
    is_linked: bool,
    suspend: bool,
    deleting: bool,
    claimed: Draft,
    found: PodView | None,
) -> None:
    body = report(machine, reason, **(linked() if is_linked else {}))
    of = session(spec={"suspend": suspend}, status={"session": body}, deleting=deleting)
    drafts = conditions.compute(observed(of, pod=found), claimed)
    ready = drafts[ConditionType.READY]
    assert ready is not None
    stalled, reconciling = drafts[ConditionType.STALLED], drafts[ConditionType.RECONCILING]
    assert stalled is None or reconciling is None
    assert (ready.status == "True") == (stalled is None and reconciling is None)
    if ready.reason is Reason.CONNECTED and ready.status == "True":
        assert claimed.status == "True"
    for draft in drafts.values():
        assert draft is None or len(draft.text.encode()) <= conditions.MESSAGE_BYTES


def test_only_a_change_of_status_moves_the_time() -> None:
    earlier = NOW - timedelta(hours=1)
    before = [
        Condition(type=ConditionType.READY, status="False", reason="A", last_transition_time=earlier),
        Condition(type=ConditionType.CONNECTED, status="False", reason="A", last_transition_time=earlier),
        Condition(type=ConditionType.RECONCILING, status="True", reason="A", last_transition_time=earlier),
    ]
    drafts = {
        ConditionType.READY: Draft("False", Reason.POD_PENDING),
        ConditionType.CONNECTED: Draft("True", Reason.CONNECTED),
        ConditionType.RECONCILING: None,
    }
    merged = conditions.merge(before, drafts, generation=3, now=NOW)
    assert [(c.type, c.last_transition_time, c.observed_generation) for c in merged] == [
        (ConditionType.CONNECTED, NOW, 3),
        (ConditionType.READY, earlier, 3),
    ]


@pytest.mark.parametrize("text", ["x" * 600, "é" * 300, "€" * 200, "short"])
def test_messages_are_bounded(text: str) -> None:
    found = conditions.bounded(text)
    assert len(found.encode()) <= conditions.MESSAGE_BYTES
    assert found == text or found.endswith("...")


@pytest.mark.parametrize("reason", list(Reason))
def test_the_remedy_is_told_however_long_the_detail(reason: Reason) -> None:
    found = conditions.told(reason, "exceeded quota: " + "é" * 600)
    assert found.startswith("exceeded quota: ")
    assert found.endswith(sentence(reason))
    assert conditions.bounded(found) == found


def test_nothing_that_others_say_brings_a_number_into_a_message() -> None:
    said = "x" * 180 + " +15551230001 " * 30
    for text in (conditions.told(Reason.POD_REJECTED, said), Draft("False", Reason.POD_FAILED, said).text):
        assert "1555" not in text


def test_an_annotation_that_is_ignored_is_told() -> None:
    asked = {names.ANNOTATION_LOG_LEVEL: "trace", names.ANNOTATION_FORCE_RELINK: "x" * 129}
    drafts = conditions.compute(observed(session(annotations=asked)), CLAIMED)
    found = drafts[ConditionType.READY]
    assert found is not None
    assert "128 bytes" in found.text
    assert "whatsapp-operator.io/logLevel is ignored: it is none of DEBUG, INFO, WARNING, ERROR." in found.text
    assert found.text.endswith(sentence(Reason.POD_PENDING))


def test_own_pod_is_told_by_the_label() -> None:
    assert observed(pod=pod(session_uid=UID)).own_pod is not None
    assert observed(pod=pod(session_uid="x")).own_pod is None


@pytest.mark.parametrize(
    ("spec", "age", "named"),
    [
        ({"caBundle": {"configMapRef": {"name": "trust", "key": "ca.crt"}}}, 11.0, "ConfigMap trust of spec.caBundle"),
        ({"caBundle": {"secretRef": {"name": "trust", "key": "ca.crt"}}}, 11.0, "Secret trust of spec.caBundle"),
        ({"caBundle": {"configMapRef": {"name": "trust", "key": "ca.crt"}}}, 9.0, None),
        ({}, 11.0, None),
    ],
)
def test_a_pod_that_is_long_in_the_making_names_what_may_be_missing(
    spec: dict[str, Any], age: float, named: str | None
) -> None:
    creating = pod(phase="Pending", running=False, ready=False, started_at=None, waiting_reason="ContainerCreating")
    draft = conditions.pod_ready(observed(session(spec=spec), pod=creating, pod_age=age))
    assert draft.reason is Reason.POD_PENDING
    assert ("spec.caBundle" in draft.text) is (named is not None)
    assert (named or "") in draft.text


def test_annotations_that_are_ignored_push_no_remedy_out() -> None:
    asked = {names.ANNOTATION_LOG_LEVEL: "trace", names.ANNOTATION_FORCE_RELINK: "x" * 129}
    refused = Problem(Reason.POD_REJECTED, conditions.told(Reason.POD_REJECTED, "Pod: " + "é" * 600))
    found = conditions.compute(observed(session(annotations=asked), problems=(refused,)), CLAIMED)[ConditionType.READY]
    assert found is not None
    assert found.text.startswith("The forceRelink token")
    assert " Pod: " in found.text
    assert found.text.endswith(sentence(Reason.POD_REJECTED))
    assert len(found.text.encode()) <= conditions.MESSAGE_BYTES


@pytest.mark.parametrize(("machine", "paired"), [("Held", True), ("Held", False), ("Failed", True)])
def test_a_reason_of_a_later_version_for_which_a_person_must_act(machine: str, paired: bool) -> None:
    o = reported(machine, "SomethingNew", message="Press the button.", **(linked() if paired else {}))
    drafts = conditions.compute(o, CLAIMED)
    for kind in (ConditionType.STALLED, ConditionType.READY):
        draft = drafts[kind]
        assert draft is not None
        assert draft.reason is Reason.HELD
        assert draft.text == f"SomethingNew: Press the button. {sentence(Reason.HELD)}"
    assert drafts[ConditionType.RECONCILING] is None
    waits = reported(machine, "SomethingNew", connection={"nextRetryAt": "2026-11-21T11:00:00Z"})
    if machine == "Held":
        assert conditions.compute(waits, CLAIMED)[ConditionType.STALLED] is None


@pytest.mark.parametrize("reason", [Reason.HELD_BY_OTHER, Reason.INVALID_SPEC])
def test_nothing_is_said_to_be_starting_before_the_phone_is_claimed(reason: Reason) -> None:
    drafts = conditions.compute(observed(), Draft("False", reason))
    found = drafts[ConditionType.POD_READY]
    assert found == Draft("False", Reason.POD_PENDING, conditions.NO_POD_YET)
    suspended = conditions.compute(observed(session(spec={"suspend": True})), Draft("False", reason))
    assert suspended[ConditionType.POD_READY] == Draft("False", Reason.SUSPENDED)
