"""The life of a session on a real API server."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml

from tests.apiserver import ApiServer, sessions_path
from tests.integration.controller_stand_ins import (
    OPERATOR_NAMESPACE,
    Replica,
    Stage,
    make_namespace,
    operators,
    paired,
    running_status,
    settled,
)
from tests.waiting import eventually
from whatsapp_operator.api import names

MOST_WRITES = 10


@pytest.fixture(scope="module")
def stage(api: ApiServer) -> Stage:
    return make_namespace(api, "controller")


@pytest.fixture(scope="module")
def doomed(api: ApiServer) -> Stage:
    return make_namespace(api, "doomed")


@pytest.fixture(scope="module")
def operator(
    api: ApiServer, stage: Stage, doomed: Stage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    namespaces = f"{stage.namespace},{doomed.namespace}"
    with operators(api, tmp_path_factory.mktemp("operator"), namespaces) as found:
        yield found.start_leader()


def owners(body: dict[str, Any]) -> list[str]:
    return [owner["kind"] for owner in body["metadata"].get("ownerReferences", [])]


def test_what_a_session_owns(operator: Replica, stage: Stage) -> None:
    created = stage.create("owned", phone="+15551230101")
    uid = created["metadata"]["uid"]
    pod = stage.pod("owned")
    volume, secret = stage.api.get(stage.volume_path("owned")), stage.api.get(stage.secret_path("owned"))
    assert [owners(body) for body in (pod, volume, secret)] == [[], [], [names.KIND]]
    assert {body["metadata"]["labels"][names.LABEL_SESSION_UID] for body in (pod, volume, secret)} == {uid}
    assert secret.get("data") is None
    (claim,) = stage.claims("owned")
    assert claim["spec"]["holderIdentity"] == f"{stage.namespace}/owned/{uid}"
    assert "15551230101" not in json.dumps(claim)
    assert stage.desired("owned")["phone"] == "+15551230101"
    assert names.FINALIZER in stage.session("owned")["metadata"]["finalizers"]
    binding = stage.api.get(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}/rolebindings/{names.SESSION_SERVICE_ACCOUNT}"
    )
    assert binding["roleRef"]["name"] == names.SESSION_CLUSTER_ROLE


def test_from_apply_to_connected_in_few_writes(operator: Replica, stage: Stage) -> None:
    # A pod that does not start within 10 s is told of, which is a write too.
    stage.create("life", phone="+15551230102", tenant="life")
    stage.pod("life")
    for other in stage.api.get(sessions_path(stage.namespace))["items"]:
        stage.delete(other["metadata"]["name"])
        stage.gone(other["metadata"]["name"])
    before = settled(operator)
    stage.create("counted", phone="+15551230103", tenant="counted")
    stage.condition("counted", "Reconciling", status="True", reason="Progressing")
    stage.condition("counted", "Connected", status="Unknown", reason="PodNotReady")
    stage.start_pod("counted")
    stage.report("counted", "ShowingQR", "QRAvailable")
    stage.condition("counted", "QRReady", status="True", reason="QRAvailable")
    stage.condition("counted", "Reconciling", status="True", reason="WaitingForScan")
    assert stage.status("counted")["phase"] == "WaitingForScan"
    assert stage.status("counted")["sessionState"] == "waiting_qr"
    stage.report("counted", "Authenticating", "Connecting", credentials={"present": True, "valid": False})
    eventually(lambda: stage.status("counted")["phase"] == "Authenticating", "authenticating", every=0.02)
    stage.report_connected("counted", "+15551230103")
    stage.condition("counted", "Ready", status="True", reason="Connected")
    writes = settled(operator) - before - operator_events(stage, "counted")
    assert writes <= MOST_WRITES, operator.text()
    status = stage.status("counted")
    assert (status["phase"], status["sessionState"], status["authPaired"], status["primary"]) == (
        "Connected",
        "connected",
        True,
        True,
    )
    assert status["phone"] == "+15551230103"
    kinds = [condition["type"] for condition in status["conditions"]]
    assert "Reconciling" not in kinds
    assert "Stalled" not in kinds
    assert stage.pod("counted")["metadata"]["labels"][names.LABEL_PRIMARY] == "true"


def operator_events(stage: Stage, name: str) -> int:
    return len(stage.events(name))


def doings(operator: Replica, stage: Stage, name: str) -> list[str]:
    """What the operator has done to one session, by its log; its count of writes is of all sessions."""
    entries = [json.loads(line) for line in operator.text().splitlines()]
    own = [entry["message"] for entry in entries if entry.get("session") == f"{stage.namespace}/{name}"]
    return [message for message in own if message.startswith(("acting", "writing status"))]


def test_suspend_and_resume(operator: Replica, stage: Stage) -> None:
    stage.create("sleepy", phone="+15551230105", tenant="sleepy")
    uid = stage.connect("sleepy", "+15551230105")
    stage.patch("sleepy", {"spec": {"suspend": True}})
    stage.end_pod("sleepy")
    stage.condition("sleepy", "Ready", status="True", reason="Suspended")
    stage.condition("sleepy", "Connected", status="False", reason="Suspended")
    stage.condition("sleepy", "AuthPaired", status="True")
    assert stage.find_pod("sleepy") is None
    assert stage.api.get(stage.volume_path("sleepy"))
    assert len(stage.claims("sleepy")) == 1
    assert stage.status("sleepy")["phase"] == "Suspended"
    stage.patch("sleepy", {"spec": {"suspend": False}})
    stage.connect("sleepy", "+15551230105", other_than=uid)


def test_unused_credentials_of_a_suspended_session_are_removed_where_that_is_asked_for(
    operator: Replica, stage: Stage
) -> None:
    pods = {}
    for name, recovery in (("kept-on", {}), ("unused", {"inactiveExpiry": "1h"})):
        phone = "+15551230144"
        stage.create(name, phone=phone, tenant=name, recovery=recovery)
        pods[name] = stage.connect(name, phone)
        stage.patch(name, {"spec": {"suspend": True}})
        stage.end_pod(name)
        stage.condition(name, "Ready", status="True", reason="Suspended")
        # The time comes a moment later, so that as a rule nothing but a timer tells of it.
        stage.age(name, timedelta(hours=1) - timedelta(seconds=5))
    stage.start_pod("unused", other_than=pods["unused"])
    assert stage.desired("unused")["expire"] is True
    stage.report("unused", "Connecting", "Connecting", **paired(phone))
    stage.condition("unused", "Ready", status="False", reason="Connecting")
    stage.condition("unused", "Reconciling", status="True", reason="Progressing")
    stage.report("unused", "Held", "Expired")
    stage.end_pod("unused")
    stage.condition("unused", "Ready", status="True", reason="Suspended")
    stage.condition("unused", "AuthPaired", status="False", reason="Expired")
    stage.condition("unused", "PhoneClaimed", status="False", reason="Suspended")
    assert stage.status("unused")["phase"] == "Expired"
    assert stage.claims("unused") == []
    settled(operator)
    assert stage.find_pod("unused") is None
    assert stage.find_pod("kept-on") is None
    stage.condition("kept-on", "AuthPaired", status="True")
    stage.patch("unused", {"spec": {"suspend": False}})
    stage.start_pod("unused")
    assert stage.desired("unused")["expire"] is False
    stage.condition("unused", "PhoneClaimed", status="True")


def test_suspending_before_pairing_gives_the_phone_up(operator: Replica, stage: Stage) -> None:
    stage.create("never", phone="+15551230106", tenant="never")
    stage.pod("never")
    stage.patch("never", {"spec": {"suspend": True}})
    eventually(lambda: not stage.claims("never"), "the claim is dropped", every=0.02)
    stage.condition("never", "PhoneClaimed", status="False", reason="Suspended")
    stage.condition("never", "Ready", status="True", reason="Suspended")


def test_each_token_relinks_once(operator: Replica, stage: Stage) -> None:
    stage.create("again", phone="+15551230107", tenant="again")
    stage.connect("again", "+15551230107")
    stage.annotate("again", "1")

    def request() -> str | None:
        found: str | None = stage.desired("again")["relinkRequestID"]
        return found

    first = eventually(request, "the pod is told", every=0.02)
    assert stage.status("again")["relink"]["requestID"] == first
    stage.report_connected("again", "+15551230107", relinkRequestID=first, relinkOutcome="Completed")
    eventually(lambda: stage.status("again")["relink"].get("outcome") == "Completed", "it is done", every=0.02)
    # Counted once the status is written, so a moment after it can be seen.
    eventually(lambda: operator.metric("whatsapp_relinks_total", outcome="Completed") >= 1, "it is counted", every=0.02)
    stage.annotate("again", "1")
    settled(operator)
    assert request() == first
    stage.annotate("again", None)
    eventually(lambda: "tokenHash" not in stage.status("again")["relink"], "the token is forgotten", every=0.02)
    for no_token in ("", "false", "x" * 129):
        stage.annotate("again", no_token)
    settled(operator)
    assert request() == first
    assert "128 bytes" in stage.condition("again", "Ready")["message"]
    stage.annotate("again", "1")
    eventually(lambda: request() != first, "the same token after its removal is a new request", every=0.02)


def test_the_log_level_is_told_to_the_running_pod(operator: Replica, stage: Stage) -> None:
    stage.create("verbose", phone="+15551230143", tenant="verbose")
    uid = stage.connect("verbose", "+15551230143")
    settled(operator)
    before = doings(operator, stage, "verbose")
    stage.annotate("verbose", "debug", names.ANNOTATION_LOG_LEVEL)
    eventually(lambda: stage.desired("verbose")["logLevel"] == "DEBUG", "the pod is told", every=0.02)
    settled(operator)
    assert doings(operator, stage, "verbose")[len(before) :] == ["acting: PatchPod"]
    stage.annotate("verbose", "loud", names.ANNOTATION_LOG_LEVEL)
    eventually(lambda: stage.desired("verbose")["logLevel"] is None, "the pod is told", every=0.02)

    def told() -> str:
        found: str = stage.condition("verbose", "Ready")["message"]
        return found

    eventually(lambda: "is ignored" in told(), "what is wrong is told", every=0.02)
    assert f"{names.ANNOTATION_LOG_LEVEL} is ignored: it is none of DEBUG, INFO, WARNING, ERROR" in told()
    stage.condition("verbose", "Ready", status="True", reason="Connected")
    assert stage.pod("verbose")["metadata"]["uid"] == uid


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_deletion_unlinks_first(operator: Replica, stage: Stage, propagation: str) -> None:
    name, phone = f"ending-{propagation.lower()}", "+15551230108"
    stage.create(name, phone=phone, tenant=name)
    stage.connect(name, phone)
    stage.delete(name, propagation=propagation)
    eventually(lambda: stage.desired(name)["unlink"], "the pod is told to unlink", every=0.02)
    stage.condition(name, "Ready", status="False", reason="Deleting")
    assert stage.api.get(stage.volume_path(name))["metadata"].get("deletionTimestamp") is None
    assert stage.pod(name)["metadata"].get("deletionTimestamp") is None
    stage.unlink(name)
    stage.gone(name)
    assert stage.claims(name) == []


def test_a_suspended_session_gets_a_pod_to_unlink(operator: Replica, stage: Stage) -> None:
    stage.create("asleep", phone="+15551230109", tenant="asleep")
    uid = stage.connect("asleep", "+15551230109")
    stage.patch("asleep", {"spec": {"suspend": True}})
    stage.end_pod("asleep")
    stage.condition("asleep", "Ready", status="True", reason="Suspended")
    stage.delete("asleep")
    stage.start_pod("asleep", other_than=uid)
    stage.unlink("asleep")
    stage.gone("asleep")


def test_a_session_that_never_paired_goes_at_once(operator: Replica, stage: Stage) -> None:
    stage.create("fresh", phone="+15551230110", tenant="fresh")
    stage.pod("fresh")
    stage.delete("fresh")
    stage.gone("fresh")


def test_a_pod_is_not_left_behind_when_the_finalizer_is_removed_by_hand(operator: Replica, stage: Stage) -> None:
    stage.create("forced", phone="+15551230129", tenant="forced")
    stage.connect("forced", "+15551230129")
    stage.delete("forced")
    stage.patch("forced", {"metadata": {"finalizers": None}})
    stage.end_pod("forced")
    eventually(lambda: stage.find_pod("forced") is None, "the pod is gone", every=0.02)
    assert stage.api.get(stage.volume_path("forced"))


def test_a_kept_volume_is_adopted_by_the_same_tenant_only(operator: Replica, stage: Stage) -> None:
    keep: dict[str, Any] = {"storage": {"retentionPolicy": "Retain"}, "deletionPolicy": "Keep"}
    stage.create("kept", phone="+15551230111", tenant="kept", **keep)
    stage.connect("kept", "+15551230111")
    volume = stage.api.get(stage.volume_path("kept"))["metadata"]["uid"]
    stage.delete("kept")
    stage.end_pod("kept")
    eventually(lambda: stage.find_session("kept") is None, "the session is gone", every=0.02)
    stage.create("kept", phone="+15551230111", tenant="other", **keep)
    stage.condition("kept", "Stalled", status="True", reason="VolumeForeign")
    assert stage.find_pod("kept") is None
    stage.delete("kept")
    eventually(lambda: stage.find_session("kept") is None, "the session is gone", every=0.02)
    created = stage.create("kept", phone="+15551230111", tenant="kept", **keep)
    stage.pod("kept")
    adopted = stage.api.get(stage.volume_path("kept"))["metadata"]
    assert adopted["uid"] == volume
    assert adopted["labels"][names.LABEL_SESSION_UID] == created["metadata"]["uid"]


def test_a_terminating_namespace_is_not_held_up(operator: Replica, doomed: Stage) -> None:
    doomed.create("doomed", phone="+15551230112")
    doomed.connect("doomed", "+15551230112")
    doomed.api.delete(f"/api/v1/namespaces/{doomed.namespace}")
    # Pods go first, so by the time that the session is deleted there is none to unlink with.
    doomed.end_pod("doomed")
    eventually(lambda: doomed.find_session("doomed") is None, "the session is gone", every=0.02)
    eventually(lambda: not doomed.claims("doomed"), "the claim is gone", every=0.02)

    def told() -> list[str]:
        # Not in its own namespace, where nothing can be made any more.
        found = doomed.api.get(f"/apis/events.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/events")["items"]
        return [event["reason"] for event in found if event["regarding"]["namespace"] == doomed.namespace]

    assert eventually(told, "the device that is left is told", every=0.02) == ["UnlinkTimedOut"]


def test_a_phone_is_held_once(operator: Replica, stage: Stage) -> None:
    stage.create("first", phone="+15551230113", tenant="phones")
    stage.connect("first", "+15551230113")
    stage.create("second", phone="+15551230113", tenant="phones")
    near = f"Held by {stage.namespace}/first"
    stage.fails("second", "HeldByOther", stalled=True, detail=near, PhoneClaimed="False HeldByOther")
    stage.create("elsewhere", phone="+15551230113", tenant="another")
    stage.condition("elsewhere", "PhoneClaimed", status="True")
    assert stage.find_pod("second") is None
    stage.delete("first")
    stage.unlink("first")
    stage.gone("first")
    stage.condition("second", "PhoneClaimed", status="True", reason="Claimed")
    stage.pod("second")


def test_a_paired_session_takes_the_phone_from_one_that_never_did(operator: Replica, stage: Stage) -> None:
    stage.create("waiting", phone="+15551230114", tenant="yield")
    stage.pod("waiting")
    stage.api.create(
        f"/apis/{names.API_VERSION}/namespaces/{stage.namespace}/{names.PLURAL}",
        {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": "scanned"},
            "spec": {"tenant": "yield"},
        },
    )
    stage.condition("scanned", "PhoneClaimed", status="True", reason="NotDeclared")
    stage.connect("scanned", "+15551230114")
    stage.condition("scanned", "PhoneClaimed", status="True", reason="Claimed")
    stage.condition("waiting", "PhoneClaimed", status="False", reason="HeldByOther")
    eventually(lambda: stage.find_pod("waiting") is None, "the other one's pod is gone", every=0.02)


def test_a_scanned_phone_that_another_session_has_paired_is_rejected(operator: Replica, stage: Stage) -> None:
    stage.create("owner", phone="+15551230115", tenant="conflict")
    stage.connect("owner", "+15551230115")
    stage.create("intruder", phone=None, tenant="conflict")
    stage.start_pod("intruder")
    stage.report_connected("intruder", "+15551230115")
    stage.condition("intruder", "PhoneClaimed", status="False", reason="PhoneClaimConflict")
    stage.condition("intruder", "Ready", status="False", reason="PhoneClaimConflict")
    eventually(lambda: stage.desired("intruder")["rejectedPhone"] == "+15551230115", "the pod is told", every=0.02)
    stage.report("intruder", "Held", "PhoneClaimConflict")
    stage.fails("intruder", "PhoneClaimConflict", stalled=True, PhoneClaimed="False PhoneClaimConflict")
    settled(operator)
    assert stage.desired("intruder")["rejectedPhone"] == "+15551230115"
    stage.annotate("intruder", "once more")
    eventually(lambda: stage.desired("intruder")["rejectedPhone"] is None, "a new request starts again", every=0.02)


def test_another_phone_is_claimed_before_the_old_one_is_given_up(operator: Replica, stage: Stage) -> None:
    stage.create("taken", phone="+15551230116", tenant="move")
    stage.pod("taken")
    stage.create("mover", phone="+15551230117", tenant="move")
    stage.connect("mover", "+15551230117")
    stage.patch("mover", {"spec": {"phone": "+15551230116"}})
    stage.condition("mover", "PhoneClaimed", status="False", reason="HeldByOther")
    stage.condition("mover", "Connected", status="True")
    assert stage.desired("mover")["phone"] == "+15551230117"
    stage.patch("mover", {"spec": {"phone": "+15551230118"}})
    eventually(lambda: stage.desired("mover")["phone"] == "+15551230118", "the pod is told", every=0.02)
    assert len(stage.claims("mover")) == 2
    stage.report("mover", "ShowingQR", "QRAvailable")
    eventually(lambda: len(stage.claims("mover")) == 1, "the old claim is released", every=0.02)


def test_a_number_that_cannot_exist_is_told_and_a_linked_session_goes_on(operator: Replica, stage: Stage) -> None:
    stage.create("nonsense", phone="+9991234567", tenant="nonsense")
    stalled = stage.condition("nonsense", "Stalled", status="True", reason="InvalidSpec")
    assert "spec.phone: it begins with the calling code of no country" in stalled["message"]
    assert "Correct the field" in stalled["message"]
    assert "9991234567" not in yaml.safe_dump(stage.status("nonsense"))
    assert stage.find_pod("nonsense") is None
    stage.patch("nonsense", {"spec": {"phone": "+15551230141"}})
    uid = stage.connect("nonsense", "+15551230141")
    stage.patch("nonsense", {"spec": {"phone": "+1555123014"}})
    stalled = stage.condition("nonsense", "Stalled", status="True", reason="InvalidSpec")
    assert "too short for a number of the country calling code +1" in stalled["message"]
    settled(operator)
    assert stage.pod("nonsense")["metadata"]["uid"] == uid
    assert stage.desired("nonsense")["phone"] == "+15551230141"
    assert len(stage.claims("nonsense")) == 1
    stage.condition("nonsense", "Connected", status="True")
    stage.condition("nonsense", "Ready", status="False", reason="InvalidSpec")
    stage.api.delete(stage.pod_path("nonsense"))
    stage.end_pod("nonsense")
    stage.start_pod("nonsense", other_than=uid)
    stage.report_connected("nonsense", "+15551230141")
    stage.condition("nonsense", "Connected", status="True")
    stage.patch("nonsense", {"spec": {"phone": "+15551230141"}})
    stage.condition("nonsense", "Ready", status="True", reason="Connected")


def test_one_account_in_two_spellings_is_claimed_once(operator: Replica, stage: Stage) -> None:
    stage.create("nine", phone="+5511987650142", tenant="spelling")
    stage.connect("nine", "+551187650142")
    assert stage.status("nine")["phone"] == "+551187650142"
    stage.create("no-nine", phone="+551187650142", tenant="spelling")
    stage.condition("no-nine", "Stalled", status="True", reason="HeldByOther")


def test_a_secret_that_the_pod_misses_is_made_again(operator: Replica, stage: Stage) -> None:
    stage.create("secretless", phone="+15551230128", tenant="secretless")
    stage.start_pod("secretless")
    stage.report("secretless", "ShowingQR", "QRAvailable")
    stage.condition("secretless", "QRReady", status="True")
    stage.api.delete(stage.secret_path("secretless"))
    stage.report("secretless", "ShowingQR", "ConfigMissing")
    eventually(lambda: stage.api.find(stage.secret_path("secretless")), "it is there again", every=0.02)

    def made() -> int:
        return sum("CreateSecret" in done for done in doings(operator, stage, "secretless"))

    before = made()
    # The report is still the same when the operator looks again, for whatever reason.
    stage.annotate("secretless", "debug", names.ANNOTATION_LOG_LEVEL)
    eventually(lambda: stage.desired("secretless")["logLevel"] == "DEBUG", "the pod is told", every=0.02)
    assert made() == before


def foreign(stage: Stage, kind: str, name: str) -> tuple[str, dict[str, Any]]:
    metadata = {"name": names.owned_name(name)}
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "Pod": (stage.pod_path(name), {"spec": {"containers": [{"name": "x", "image": "x"}]}}),
        "PersistentVolumeClaim": (
            stage.volume_path(name),
            {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
        ),
        "Secret": (stage.secret_path(name), {"stringData": {"a": "b"}}),
    }
    path, body = bodies[kind]
    return path, {"metadata": metadata, **body}


@pytest.mark.parametrize("kind", ["Pod", "PersistentVolumeClaim", "Secret"])
def test_what_belongs_to_somebody_else_is_left_alone(operator: Replica, stage: Stage, kind: str) -> None:
    name = f"conflict-{kind.lower()}"
    path, body = foreign(stage, kind, name)
    uid = stage.api.create(path.rpartition("/")[0], body)["metadata"]["uid"]
    stage.create(name, phone="+15551230119", tenant=name)
    stalled = stage.condition(name, "Stalled", status="True", reason="NameConflict")
    assert kind in stalled["message"]
    settled(operator)
    assert stage.api.get(path)["metadata"]["uid"] == uid
    stage.delete(name)
    eventually(lambda: stage.find_session(name) is None, "the session is gone", every=0.02)
    assert stage.api.get(path)["metadata"]["uid"] == uid
    stage.create(name, phone="+15551230119", tenant=name)
    stage.condition(name, "Stalled", status="True", reason="NameConflict")
    stage.api.delete(path)
    eventually(lambda: owned_pod(stage, name), "the session goes on by itself", every=0.05)
    eventually(
        lambda: "Stalled" not in {c["type"] for c in stage.status(name)["conditions"]}, "not stalled", every=0.05
    )


@pytest.mark.parametrize("waits", ["suspended", "held"])
def test_a_foreign_secret_outlives_a_session_that_began_later(operator: Replica, stage: Stage, waits: str) -> None:
    name, phone = f"later-{waits}", "+15551230140"
    path, body = foreign(stage, "Secret", name)
    uid = stage.api.create(path.rpartition("/")[0], body)["metadata"]["uid"]
    if waits == "held":
        stage.create("later-holder", phone=phone, tenant=name)
        stage.pod("later-holder")
        stage.create(name, phone=phone, tenant=name)
        stage.condition(name, "Stalled", status="True", reason="HeldByOther")
        stage.delete("later-holder")
    else:
        stage.create(name, phone=phone, tenant=name, suspend=True)
        stage.condition(name, "Ready", status="True", reason="Suspended")
        stage.patch(name, {"spec": {"suspend": False}})
    stage.condition(name, "Stalled", status="True", reason="NameConflict")
    stage.delete(name)
    eventually(lambda: stage.find_session(name) is None, "the session is gone", every=0.02)
    assert stage.api.get(path)["metadata"]["uid"] == uid


def owned_pod(stage: Stage, name: str) -> bool:
    found = stage.find_pod(name)
    return found is not None and names.LABEL_SESSION_UID in found["metadata"].get("labels", {})


def test_a_change_that_needs_a_new_pod_replaces_it_and_no_other(operator: Replica, stage: Stage) -> None:
    stage.create("changing", phone="+15551230121", tenant="changing")
    uid = stage.connect("changing", "+15551230121")
    stage.patch("changing", {"spec": {"pairing": {"attempts": 7}}})
    eventually(lambda: stage.desired("changing")["pairing"]["attempts"] == 7, "the pod is told", every=0.02)
    eventually(lambda: stage.status("changing")["observedGeneration"] == 2, "the generation is seen", every=0.02)
    assert stage.pod("changing")["metadata"]["uid"] == uid
    stage.patch("changing", {"spec": {"template": {"resources": {"limits": {"memory": "256Mi"}}}}})
    stage.condition("changing", "Connected", status="Unknown", reason="PodNotReady")
    stage.end_pod("changing")
    replaced = stage.connect("changing", "+15551230121", other_than=uid)
    assert replaced != uid
    limits = stage.pod("changing")["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "256Mi"}


def test_a_template_beyond_the_allow_lists_is_refused(operator: Replica, stage: Stage) -> None:
    stage.create("greedy", phone="+15551230122", tenant="greedy", template={"priorityClassName": "high"})
    stalled = stage.condition("greedy", "Stalled", status="True", reason="InvalidSpec")
    assert "spec.template.priorityClassName" in stalled["message"]
    assert stage.find_pod("greedy") is None


def test_no_report_counts_but_that_of_the_pod_that_runs(operator: Replica, stage: Stage) -> None:
    stage.create("phantom", phone="+15551230123", tenant="phantom")
    uid = stage.connect("phantom", "+15551230123")
    lost = running_status()
    lost["conditions"][2]["status"] = "False"
    stage.set_pod_status("phantom", lost)
    stage.condition("phantom", "Connected", status="Unknown", reason="NodeLost")
    stage.condition("phantom", "PodReady", status="Unknown", reason="NodeLost")
    stage.set_pod_status("phantom", running_status())
    stage.report_connected("phantom", "+15551230123")
    stage.condition("phantom", "Connected", status="True")
    stage.api.delete(stage.pod_path("phantom"))
    stage.condition("phantom", "Connected", status="Unknown", reason="PodNotReady")
    stage.end_pod("phantom")
    stage.start_pod("phantom", other_than=uid)
    settled(operator)
    # The report that is still there is that of the pod before.
    stage.condition("phantom", "Connected", status="Unknown", reason="PodNotReady")
    stage.condition("phantom", "AuthPaired", status="True")
    stage.report_connected("phantom", "+15551230123")
    stage.condition("phantom", "Connected", status="True")


def test_one_primary_per_tenant(operator: Replica, stage: Stage) -> None:
    for number in (1, 2, 3):
        stage.create(f"primary-{number}", phone=f"+1555123013{number}", tenant="primaries")
        stage.connect(f"primary-{number}", f"+1555123013{number}")

    def primaries() -> list[str]:
        found = [f"primary-{number}" for number in (1, 2, 3)]
        return [name for name in found if (stage.find_session(name) or {}).get("status", {}).get("primary")]

    settled(operator)
    assert primaries() == ["primary-1"]
    stage.delete("primary-1")
    stage.unlink("primary-1")
    stage.gone("primary-1")
    # Both connected within the same second, which is as fine as conditions tell.
    (heir,) = eventually(primaries, "one of the others takes over", every=0.02)
    settled(operator)
    assert primaries() == [heir]
    labels = {name: stage.pod(name)["metadata"]["labels"] for name in ("primary-2", "primary-3")}
    assert [name for name in labels if labels[name].get(names.LABEL_PRIMARY) == "true"] == [heir]


def test_a_paused_session_is_left_alone_but_can_be_deleted(operator: Replica, stage: Stage) -> None:
    stage.create("paused", phone="+15551230125", tenant="paused", annotations={names.ANNOTATION_PAUSED: "true"})
    settled(operator)
    assert stage.find_pod("paused") is None
    assert stage.status("paused") == {"observedGeneration": -1}
    stage.annotate("paused", None, names.ANNOTATION_PAUSED)
    stage.connect("paused", "+15551230125")
    stage.annotate("paused", "true", names.ANNOTATION_PAUSED)
    stage.delete("paused")
    stage.unlink("paused")
    stage.gone("paused")


def test_finished_attempts_are_counted_and_told_once(operator: Replica, stage: Stage) -> None:
    stage.create("attempts", phone="+15551230126", tenant="attempts")
    stage.start_pod("attempts")
    labels = {"method": "QRCode", "result": "Failed", "reason": "Expired"}
    before = operator.metric("whatsapp_pairing_attempts_total", **labels)
    stage.report("attempts", "Starting", "Starting")
    eventually(lambda: stage.status("attempts")["pairing"].get("lastCountedSeq") == 0, "counting starts", every=0.02)
    attempt = {"seq": 1, "id": "first", "method": "QRCode", "result": "Failed", "reason": "Expired", "secondsToQR": 0.4}
    pairing = {"state": "Showing", "attempt": 2, "id": "second", "seq": 1, "failed": 1, "history": [attempt]}
    stage.report("attempts", "ShowingQR", "QRAvailable", pairing=pairing)
    stage.condition("attempts", "QRReady", status="True")
    stage.report("attempts", "Connected", "Connected", pairing=pairing, **paired("+15551230126"))
    stage.condition("attempts", "Connected", status="True")
    settled(operator)
    assert operator.metric("whatsapp_pairing_attempts_total", **labels) == before + 1
    good = {"seq": 2, "id": "second", "method": "QRCode", "result": "Succeeded", "reason": "Paired"}
    done = {"state": "Succeeded", "attempt": 0, "seq": 2, "succeeded": 1, "failed": 1, "history": [attempt, good]}
    stage.report("attempts", "Connected", "Connected", pairing=done, **paired("+15551230126"))
    eventually(lambda: stage.status("attempts")["pairing"]["lastCountedSeq"] == 2, "it is counted", every=0.02)
    assert stage.status("attempts")["pairing"]["last"]["id"] == "second"
    settled(operator)
    notes = {
        reason: [event["note"] for event in stage.events_in_full("attempts") if event["reason"] == reason]
        for reason in ("PairingFailed", "QRAvailable", "PairingSucceeded")
    }
    assert [len(found) for found in notes.values()] == [1, 1, 1]
    assert "Expired: Time has run out" in notes["PairingFailed"][0]
    assert notes["PairingFailed"][0].endswith("Attempt first.")
    assert notes["QRAvailable"][0].endswith("Attempt second.")
    assert notes["PairingSucceeded"][0].endswith("Attempt second.")
    entries = [json.loads(line) for line in operator.text().splitlines()]
    (failed,) = [entry for entry in entries if entry["message"] == "PairingFailed"]
    assert (failed["session"], failed["tenant"], failed["attempt"]) == (
        f"{stage.namespace}/attempts",
        "attempts",
        "first",
    )
    acting = [entry for entry in entries if entry["message"].startswith(("acting", "writing status"))]
    assert acting
    assert [entry for entry in acting if not entry.get("session") or not entry.get("tenant")] == []


def test_a_claim_whose_holder_is_gone_does_not_block(operator: Replica, stage: Stage) -> None:
    stage.create("leftover", phone="+15551230127", tenant="leftover")
    stage.pod("leftover")
    (claim,) = stage.claims("leftover")
    stage.delete("leftover")
    stage.gone("leftover")
    del claim["metadata"]["resourceVersion"], claim["metadata"]["uid"]
    stage.api.create(f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases", claim)
    stage.create("next", phone="+15551230127", tenant="leftover")
    stage.condition("next", "PhoneClaimed", status="True", reason="Claimed")
    stage.pod("next")


def test_no_number_reaches_the_log_events_or_metrics(operator: Replica, stage: Stage) -> None:
    events = stage.api.get(f"/apis/events.k8s.io/v1/namespaces/{stage.namespace}/events")["items"]
    assert events
    for text in (operator.text(), operator.get("/metrics")[1], yaml.safe_dump(events)):
        assert "15551230" not in text
