"""The rows of the failure table that are the operator's: what is seen of pods, volumes and claims, and what is told."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver import ApiServer
from tests.integration.controller_stand_ins import (
    Replica,
    Stage,
    make_namespace,
    now,
    operators,
    running_status,
    settled,
)
from tests.waiting import eventually
from whatsapp_operator.api import names

# Each with a policy of its own.
REFUSING = ("limit-range", "quota", "quota-of-storage")


@pytest.fixture(scope="module")
def stage(api: ApiServer) -> Stage:
    return make_namespace(api, "failures")


@pytest.fixture(scope="module")
def operator(api: ApiServer, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    namespaces = ",".join((stage.namespace, *REFUSING))
    with operators(api, tmp_path_factory.mktemp("operator"), namespaces) as found:
        yield found.start_leader("--lease-seconds", "3")


def connected(stage: Stage, name: str, phone: str, **spec: Any) -> str:
    """A session of a tenant of its own, taken all the way; returns the pod's uid."""
    stage.create(name, phone=phone, tenant=name, **spec)
    return stage.connect(name, phone)


def comes_back(stage: Stage, name: str, phone: str, *, other_than: str) -> None:
    """Another pod connects with the credentials of the volume, and nothing was paired anew."""
    volume = stage.api.get(stage.volume_path(name))["metadata"]
    assert "deletionTimestamp" not in volume
    stage.connect(name, phone, other_than=other_than)
    stage.condition(name, "AuthPaired", status="True")
    assert stage.desired(name)["relinkRequestID"] is None


def container(**state: Any) -> dict[str, Any]:
    """Status of a pod on a node whose session container does not run."""
    status = running_status()
    status["containerStatuses"][0] |= {"ready": False, "started": False, **state}
    for condition in status["conditions"]:
        condition["status"] = "True" if condition["type"] == "PodScheduled" else "False"
    return status


def test_a_deleted_pod_is_replaced_on_the_same_volume(operator: Replica, stage: Stage) -> None:
    uid = connected(stage, "deleted", "+15551230301")
    stage.api.delete(stage.pod_path("deleted"))
    stage.fails(
        "deleted",
        "PodPending",
        stalled=False,
        detail="being stopped",
        Connected="Unknown PodNotReady",
        AuthPaired="True Paired",
    )
    stage.end_pod("deleted")
    stage.fails("deleted", "PodPending", stalled=False, Connected="Unknown PodNotReady", AuthPaired="True Paired")
    comes_back(stage, "deleted", "+15551230301", other_than=uid)


def test_a_drained_node_costs_no_pairing(operator: Replica, stage: Stage) -> None:
    uid = connected(stage, "drained", "+15551230302")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": names.owned_name("drained")}}
    stage.api.create(stage.pod_path("drained", "eviction"), eviction)
    stage.fails("drained", "PodPending", stalled=False, detail="being stopped", Connected="Unknown PodNotReady")
    stage.end_pod("drained")
    comes_back(stage, "drained", "+15551230302", other_than=uid)


def test_an_evicted_pod_is_replaced(operator: Replica, stage: Stage) -> None:
    uid = connected(stage, "pressed", "+15551230303")
    evicted = {**running_status(), "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}
    stage.set_pod_status("pressed", evicted)
    stage.fails(
        "pressed",
        "PodFailed",
        stalled=False,
        detail="Evicted: The node was low",
        PodReady="False PodFailed",
        Connected="Unknown PodNotReady",
    )
    comes_back(stage, "pressed", "+15551230303", other_than=uid)


def test_a_container_that_needs_too_much_memory_says_so(operator: Replica, stage: Stage) -> None:
    uid = connected(stage, "fat", "+15551230304")
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "startedAt": None, "finishedAt": None}}
    remedy = "raise spec.template.resources.limits.memory"
    stage.set_pod_status("fat", container(state=killed, lastState={}))
    stage.fails("fat", "PodPending", stalled=False, detail=remedy, Connected="Unknown PodNotReady")
    stage.set_pod_status("fat", container(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=killed))
    stage.fails("fat", "CrashLooping", stalled=True, detail=remedy, PodReady="False CrashLooping")
    reported = stage.status("fat")["session"]["reportedAt"]
    # The kubelet tells the start of a container to the second only.
    eventually(lambda: now()[:19] > reported[:19], "a second has begun after that of the report", every=0.02)
    again = running_status()
    again["containerStatuses"][0] |= {"restartCount": 2, "lastState": killed}
    stage.set_pod_status("fat", again)
    # The report of the container before is still there, of the same pod.
    stage.condition("fat", "Connected", status="Unknown", reason="PodNotReady")
    stage.report_connected("fat", "+15551230304")
    stage.condition("fat", "Ready", status="True", reason="Connected")
    assert remedy in stage.condition("fat", "PodReady", status="True")["message"]
    assert stage.status("fat")["pod"]["restarts"] == 2
    assert stage.pod("fat")["metadata"]["uid"] == uid


def test_a_container_that_ends_again_and_again_is_told(operator: Replica, stage: Stage) -> None:
    connected(stage, "crashing", "+15551230305")
    ended = {"terminated": {"reason": "Error", "exitCode": 2, "startedAt": None, "finishedAt": None}}
    stage.set_pod_status("crashing", container(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended))
    stage.fails(
        "crashing",
        "CrashLooping",
        stalled=True,
        detail="exit code 2",
        PodReady="False CrashLooping",
        Connected="Unknown PodNotReady",
    )
    stage.set_pod_status("crashing", running_status())
    stage.report_connected("crashing", "+15551230305")
    stage.condition("crashing", "Ready", status="True", reason="Connected")


@pytest.mark.parametrize(
    ("name", "waiting", "reason"),
    [
        ("no-image", {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "example"'}, "ImagePullFailed"),
        ("no-secret", {"reason": "CreateContainerConfigError", "message": 'secret "proxy" not found'}, "ConfigMissing"),
    ],
)
def test_a_container_that_cannot_be_made_says_what_is_missing(
    operator: Replica, stage: Stage, name: str, waiting: dict[str, str], reason: str
) -> None:
    stage.create(name, phone="+15551230306", tenant=name)
    uid = str(stage.pod(name)["metadata"]["uid"])
    stage.set_pod_status(name, container(state={"waiting": waiting}) | {"phase": "Pending"})
    stage.fails(
        name,
        reason,
        stalled=True,
        detail=waiting["message"],
        PodReady=f"False {reason}",
        Connected="Unknown PodNotReady",
    )
    stage.connect(name, "+15551230306")
    assert stage.pod(name)["metadata"]["uid"] == uid


@pytest.mark.parametrize(
    ("kind", "spec", "detail"),
    [
        pytest.param(
            "limitranges",
            {"limits": [{"type": "Container", "max": {"memory": "32Mi"}}]},
            'Pod: pods "wa-{name}" is forbidden: maximum memory usage per Container is 32Mi',
            id="limit-range",
        ),
        pytest.param("resourcequotas", {"hard": {"pods": "0"}}, "exceeded quota: small, requested: pods=1", id="quota"),
        pytest.param(
            "resourcequotas",
            {"hard": {"requests.storage": "1048576"}},
            "exceeded quota: small, requested: requests.storage=256Mi, used: requests.storage=0",
            id="quota-of-storage",
        ),
    ],
)
def test_a_pod_that_the_api_server_refuses_is_tried_again(
    operator: Replica, api: ApiServer, request: pytest.FixtureRequest, kind: str, spec: dict[str, Any], detail: str
) -> None:
    name = str(request.node.callspec.id)
    stage = make_namespace(api, name)
    path = f"/api/v1/namespaces/{stage.namespace}/{kind}"
    stage.api.create(path, {"metadata": {"name": "small"}, "spec": spec})
    if kind == "resourcequotas":
        eventually(lambda: stage.api.get(f"{path}/small").get("status", {}).get("hard"), "the quota is known")
    stage.create(name, phone="+15551230307")
    stage.fails(name, "PodRejected", stalled=True, detail=detail.format(name=name), PodReady="False PodRejected")
    stage.api.delete(f"{path}/small")
    stage.connect(name, "+15551230307")


def volume_by_hand(stage: Stage, name: str) -> dict[str, str]:
    """Make a volume that only one claim finds; returns the session's `storage` that asks for it."""
    volume = {
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "256Mi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": name,
            "hostPath": {"path": "/nonexistent"},
        },
    }
    stage.api.create("/api/v1/persistentvolumes", volume)
    return {"storageClassName": name, "accessMode": "ReadWriteOnce"}


def bound(stage: Stage, name: str) -> None:
    claim = stage.volume_path(name)
    eventually(lambda: stage.api.get(claim)["status"].get("phase") == "Bound", "the volume is bound")


def test_a_volume_that_cannot_grow_does_not_stop_the_session(operator: Replica, stage: Stage) -> None:
    uid = connected(stage, "growing", "+15551230308", storage=volume_by_hand(stage, "growing"))
    bound(stage, "growing")
    stage.patch("growing", {"spec": {"storage": {"size": "512Mi"}}})
    stalled = stage.condition("growing", "Stalled", status="True", reason="ExpansionRefused")
    for part in ("only dynamically provisioned pvc can be resized", "allowVolumeExpansion, or set the former size"):
        assert part in stalled["message"]
    stage.condition("growing", "PodReady", status="False", reason="ExpansionRefused")
    stage.condition("growing", "Connected", status="True")
    assert stage.pod("growing")["metadata"]["uid"] == uid
    stage.patch("growing", {"spec": {"storage": {"size": "256Mi"}}})
    stage.condition("growing", "Ready", status="True", reason="Connected")


@pytest.mark.parametrize("reason", ["VolumeFull", "VolumeReadOnly", "VolumeForeign"])
def test_a_volume_that_cannot_be_used_is_told_as_the_pod_reports_it(
    operator: Replica, stage: Stage, reason: str
) -> None:
    name = f"volume-{reason.lower()}"
    uid = connected(stage, name, "+15551230309")
    unknown = {"present": None, "valid": None, "registeredAt": None, "lastUsedAt": None}
    stage.report(name, "Failed", reason, credentials=unknown)
    stage.fails(name, reason, stalled=True, PodReady=f"False {reason}", AuthPaired="True Paired")
    assert len(stage.claims(name)) == 1
    stage.report_connected(name, "+15551230309")
    stage.condition(name, "Ready", status="True", reason="Connected")
    assert stage.pod(name)["metadata"]["uid"] == uid


def test_a_volume_of_another_phone_is_made_anew_when_it_is_deleted(operator: Replica, stage: Stage) -> None:
    stage.create("foreign", phone="+15551230311", tenant="foreign")
    uid = stage.start_pod("foreign")
    unknown = {"present": None, "valid": None, "registeredAt": None, "lastUsedAt": None}
    stage.report("foreign", "Failed", "VolumeForeign", credentials=unknown)
    stage.fails("foreign", "VolumeForeign", stalled=True, PodReady="False VolumeForeign")
    before = stage.api.get(stage.volume_path("foreign"))["metadata"]["uid"]
    stage.api.delete(stage.volume_path("foreign"))
    stage.end_pod("foreign")
    stage.connect("foreign", "+15551230311", other_than=uid)
    assert stage.api.get(stage.volume_path("foreign"))["metadata"]["uid"] != before


def test_a_connected_session_outlasts_the_deletion_of_its_volume(operator: Replica, stage: Stage) -> None:
    uid = connected(stage, "held-on", "+15551230312", storage=volume_by_hand(stage, "held-on"))
    bound(stage, "held-on")
    before = stage.api.get(stage.volume_path("held-on"))["metadata"]["uid"]
    stage.api.delete(stage.volume_path("held-on"))
    settled(operator)
    stage.condition("held-on", "Ready", status="True", reason="Connected")
    going = stage.api.get(stage.volume_path("held-on"))["metadata"]
    assert (going["uid"], "deletionTimestamp" in going) == (before, True)
    assert "deletionTimestamp" not in stage.pod("held-on")["metadata"]
    # With the pod goes the volume, and the session begins on a new one.
    stage.api.delete(stage.pod_path("held-on"))
    stage.end_pod("held-on")
    stage.start_pod("held-on", other_than=uid)
    assert stage.api.get(stage.volume_path("held-on"))["metadata"]["uid"] != before
    stage.report("held-on", "ShowingQR", "QRAvailable")
    stage.condition("held-on", "AuthPaired", status="False", reason="NotPaired")


def test_the_pod_of_a_lost_node_is_left_to_kubernetes(operator: Replica, stage: Stage) -> None:
    uid = connected(stage, "lost", "+15551230310")
    lost = running_status()
    for condition in lost["conditions"]:
        condition["status"] = "False" if condition["type"] == "Ready" else "True"
    stage.set_pod_status("lost", lost)
    told = {"PodReady": "Unknown NodeLost", "Connected": "Unknown NodeLost", "AuthPaired": "True Paired"}
    stage.fails("lost", "NodeLost", stalled=False, **told)
    settled(operator)
    assert "deletionTimestamp" not in stage.pod("lost")["metadata"]
    stage.set_pod_status("lost", running_status())
    stage.report_connected("lost", "+15551230310")
    stage.condition("lost", "Ready", status="True", reason="Connected")
    # Lost again, and now evicted by the taint: the pod stays until somebody knows that it has ended.
    stage.set_pod_status("lost", lost)
    stage.api.delete(stage.pod_path("lost"))
    stage.fails("lost", "NodeLost", stalled=False, **told)
    settled(operator)
    assert stage.pod("lost")["metadata"]["uid"] == uid
    stage.end_pod("lost")
    comes_back(stage, "lost", "+15551230310", other_than=uid)
