"""Each link of the chain by what the API server has of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from tests.apiserver import ROOT
from tests.unit.cli.test_linking import EXHAUSTED, READY, SHOWS, changed, condition, session
from whatsapp_operator.api import names
from whatsapp_operator.api.crd import custom_resource_definition
from whatsapp_operator.api.reasons import EXPLANATIONS, Reason
from whatsapp_operator.cli import doctor
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.cli.doctor import Check, Doctor, Result
from whatsapp_operator.cli.reading import Session
from whatsapp_operator.kube.errors import ForbiddenError

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PAUSED = {"annotations": {names.ANNOTATION_PAUSED: "true"}}


def pod(phase: str = "Running", *, ready: bool = True, uid: str = "p", waiting: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    return {
        "metadata": {"name": "wa-support", "uid": uid, "creationTimestamp": NOW.isoformat()},
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"restartCount": 3, "state": state}],
        },
    }


def starts(seconds: float) -> Session:
    """Whose pod has been starting for so long."""
    since = (NOW - timedelta(seconds=seconds)).isoformat()
    return session({**condition("PodReady", "False", Reason.POD_PENDING), "lastTransitionTime": since})


def reports(uid: str) -> Session:
    report = {"podUID": uid, "machine": "Connected", "reportedAt": NOW.isoformat()}
    return changed(READY, status={**READY.status, "session": report})


@pytest.mark.parametrize(
    ("found", "result", "text"),
    [
        (doctor.accepted(READY), Result.OK, "looked at it"),
        (doctor.accepted(Session({"metadata": {"name": "a", "generation": 1}})), Result.BROKEN, "no operator"),
        (doctor.accepted(changed(READY, metadata={"generation": 2})), Result.WARNING, "last change"),
        (doctor.accepted(changed(READY, metadata=PAUSED)), Result.BROKEN, names.ANNOTATION_PAUSED),
        (doctor.claimed(session(condition("PhoneClaimed", "True", Reason.CLAIMED))), Result.OK, "Claimed"),
        (
            doctor.claimed(session(condition("PhoneClaimed", "False", Reason.HELD_BY_OTHER))),
            Result.BROKEN,
            "HeldByOther",
        ),
        (doctor.claimed(session()), Result.WARNING, "not told yet"),
        (doctor.pod_runs(READY, pod(), NOW), Result.OK, "Running on node-1, 3 restarts"),
        (
            doctor.pod_runs(
                session(condition("PodReady", "False", Reason.CRASH_LOOPING)),
                pod(ready=False, waiting="CrashLoopBackOff"),
                NOW,
            ),
            Result.BROKEN,
            "(CrashLoopBackOff): CrashLooping",
        ),
        (
            doctor.absent("pod", session(condition("PodReady", "False", Reason.POD_REJECTED)), NOW),
            Result.BROKEN,
            "there is no wa-support: PodRejected",
        ),
        (doctor.absent("pod", changed(READY, spec={"suspend": True}), NOW), Result.OK, "spec.suspend"),
        # It was made so: nothing of it has been needed yet.
        (doctor.absent("volume", changed(session(), spec={"suspend": True}), NOW), Result.OK, "spec.suspend"),
        (doctor.absent("secret", changed(session(), spec={"suspend": True}), NOW), Result.OK, "spec.suspend"),
        (
            doctor.absent("volume", changed(session(authPaired=True), spec={"suspend": True}), NOW),
            Result.BROKEN,
            "there is no wa-support",
        ),
        (doctor.absent("pod", changed(READY, metadata={"deletionTimestamp": "now"}), NOW), Result.WARNING, "deleted"),
        # In its first seconds no pod is ready.
        (doctor.absent("pod", starts(10), NOW), Result.WARNING, "PodPending"),
        (doctor.pod_runs(starts(10), pod("Pending", ready=False), NOW), Result.WARNING, "Pending"),
        (doctor.reported(starts(10), pod(), NOW), Result.WARNING, "not reported"),
        (doctor.absent("pod", starts(90), NOW), Result.BROKEN, "PodPending"),
        (doctor.pod_runs(starts(90), pod("Pending", ready=False), NOW), Result.BROKEN, "Pending"),
        (doctor.reported(starts(90), pod(), NOW), Result.BROKEN, "not reported"),
        (doctor.reported(reports("p"), pod(uid="p"), NOW), Result.OK, "Connected, 0s ago"),
        (doctor.reported(reports("p"), pod(uid="q"), NOW), Result.BROKEN, "earlier pod"),
        (doctor.reported(READY, pod(), NOW), Result.BROKEN, "has not reported"),
        (next(doctor.conditions(READY)), Result.OK, "Ready"),
        (next(doctor.conditions(SHOWS)), Result.WARNING, "WaitingForScan"),
        (next(doctor.conditions(EXHAUSTED)), Result.BROKEN, "AttemptsExhausted"),
    ],
)
def test_a_link_of_the_chain(found: Check, result: Result, text: str) -> None:
    assert found.result is result
    assert text in found.found
    assert result is not Result.BROKEN or found.remedy


def test_a_stalled_session_is_told_with_remedy_and_command() -> None:
    [found] = doctor.conditions(EXHAUSTED)
    assert found.remedy == EXPLANATIONS[Reason.ATTEMPTS_EXHAUSTED].remedy
    assert found.command == "kubectl wa relink support -n shop"


@pytest.mark.parametrize(
    ("reason", "result"),
    [
        (Reason.PROXY_FAILED, Result.BROKEN),
        (Reason.CONNECT_FAILURE, Result.BROKEN),
        (Reason.TEMPORARY_BAN, Result.BROKEN),
        (Reason.STREAM_REPLACED, Result.BROKEN),
        (Reason.CONNECTING, Result.WARNING),
        (Reason.RECONNECTING, Result.WARNING),
        (Reason.NOT_PAIRED, Result.WARNING),
    ],
)
def test_a_connection_that_fails_is_a_broken_link(reason: Reason, result: Result) -> None:
    [found] = doctor.conditions(session(condition("Connected", "False", reason), condition("Ready", "False", reason)))
    assert found.result is result
    assert reason in found.found
    assert found.remedy == EXPLANATIONS[reason].remedy


@pytest.mark.parametrize(
    ("holder", "seconds", "result"), [("a", 3, Result.OK), ("a", 60, Result.BROKEN), ("", 3, Result.BROKEN)]
)
def test_a_leader_is_one_that_was_heard_of(holder: str, seconds: float, result: Result) -> None:
    renewed = (NOW - timedelta(seconds=seconds)).isoformat()
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 9}
    assert doctor.leads({"spec": spec}, NOW, "system").result is result


@pytest.mark.parametrize(
    ("ready", "wanted", "result"), [(2, 2, Result.OK), (1, 2, Result.WARNING), (0, 2, Result.BROKEN)]
)
def test_an_operator_is_one_that_is_ready(ready: int, wanted: int, result: Result) -> None:
    template = {"spec": {"containers": [{"image": "example/operator:1"}]}}
    found = doctor.operator_runs(
        {
            "metadata": {"name": "whatsapp-operator", "namespace": "system"},
            "spec": {"replicas": wanted, "template": template},
            "status": {"readyReplicas": ready},
        }
    )
    assert found.result is result
    assert f"{ready} of {wanted}" in found.found


def storage_class(provisioner: str, *, default: bool = True) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": "standard", "annotations": annotations}, "provisioner": provisioner}


@pytest.mark.parametrize(
    ("classes", "result"),
    [
        ([storage_class("driver.example.com")], Result.OK),
        ([storage_class("driver.example.com", default=False)], Result.WARNING),
        ([storage_class("kubernetes.io/no-provisioner")], Result.WARNING),
        ([storage_class("kubernetes.io/rbd")], Result.WARNING),
        ([], Result.BROKEN),
    ],
)
def test_storage_is_a_default_class_that_provisions(classes: list[dict[str, Any]], result: Result) -> None:
    assert doctor.storage(classes).result is result


def test_the_first_broken_link_is_named() -> None:
    checks = [Check("a", Result.OK, ""), Check("b", Result.BROKEN, ""), Check("c", Result.BROKEN, "")]
    assert doctor.document(checks)["broken"] == "b"
    assert doctor.document(checks[:1])["broken"] is None


async def test_a_session_that_may_not_be_read_costs_no_other_check() -> None:
    class Closed(Cluster):
        def __init__(self) -> None:
            self.namespace = "shop"

        async def session(self, name: str) -> Any:
            raise ForbiddenError(f'whatsappsessions "{name}" is forbidden: by a policy', code=403)

    [found] = await Doctor(Closed(), "system").session("support")
    assert (found.name, found.result) == ("session", Result.BROKEN)


def test_what_it_looks_for_is_what_the_operator_makes() -> None:
    deployment = (ROOT / "charts" / "whatsapp-operator" / "templates" / "deployment.yaml").read_text()
    assert f"containerPort: {names.OPERATOR_HTTP_PORT}\n" in deployment
    chart = yaml.safe_load((ROOT / "charts" / "whatsapp-operator" / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={'.'.join(map(str, doctor.LEAST_VERSION))}.0-0"


def test_every_field_of_the_definition_is_known() -> None:
    [served] = custom_resource_definition()["spec"]["versions"]
    schema = {
        **served["schema"]["openAPIV3Schema"],
        "x-kubernetes-group-version-kind": [{"group": names.GROUP, "kind": names.KIND, "version": names.VERSION}],
    }
    known = doctor.fields_known()
    assert {"spec.tenant", "spec.pairing.method", "status.session.pairing.history.seq"} <= known
    assert doctor.fields_of({"components": {"schemas": {"it": schema}}}) == known
