from typing import Any

import pytest

from whatsapp_operator.api import names
from whatsapp_operator.controller.views import ClaimView, PodView, VolumeView


def pod_body(status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "wa-shop", "uid": "p", "resourceVersion": "1", **metadata}, "status": status or {}}


def with_conditions(**conditions: str) -> dict[str, Any]:
    running = {"name": names.SESSION_CONTAINER, "state": {"running": {"startedAt": "2026-11-21T10:00:00Z"}}}
    listed = [{"type": kind, "status": value} for kind, value in conditions.items()]
    return {"phase": "Running", "conditions": listed, "containerStatuses": [running]}


@pytest.mark.parametrize(
    ("status", "ready", "lost"),
    [
        (with_conditions(Ready="True", ContainersReady="True"), True, False),
        (with_conditions(Ready="False", ContainersReady="False"), False, False),
        (with_conditions(Ready="False", ContainersReady="True"), False, True),
        ({**with_conditions(Ready="True", ContainersReady="True"), "reason": "NodeLost"}, True, True),
        ({}, False, False),
    ],
)
def test_only_the_node_controller_leaves_ready_containers_in_an_unready_pod(
    status: dict[str, Any], ready: bool, lost: bool
) -> None:
    found = PodView.parse(pod_body(status), 1.0)
    assert (found.ready, found.node_lost) == (ready, lost)


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ({"state": {"running": {}}}, ""),
        (
            {"state": {"running": {}}, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}},
            "OOMKilled",
        ),
        ({"state": {"terminated": {"reason": "Error", "exitCode": 2}}}, "exit code 2"),
        ({"state": {"waiting": {}}, "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}, "exit code 1"),
    ],
)
def test_how_the_container_last_ended(status: dict[str, Any], ended: str) -> None:
    found = PodView.parse(pod_body({"containerStatuses": [{"name": names.SESSION_CONTAINER, **status}]}), 1.0)
    assert found.ended == ended


def test_other_containers_do_not_count() -> None:
    injected = {"name": "sidecar", "restartCount": 9, "state": {"running": {}}}
    found = PodView.parse(pod_body({"phase": "Running", "containerStatuses": [injected]}), 1.0)
    assert (found.running, found.restarts) == (False, 0)


def test_the_first_sight_of_a_pod_is_kept_for_that_pod() -> None:
    first = PodView.parse(pod_body(), 1.0)
    assert PodView.parse(pod_body(), 9.0, first).first_seen == 1.0
    assert PodView.parse(pod_body(uid="other"), 9.0, first).first_seen == 9.0


@pytest.mark.parametrize("identity", ["", None, "somebody", "a/b", "a/b/c/d"])
def test_a_lease_that_is_no_claim_of_a_session_has_no_holder(identity: str | None) -> None:
    metadata = {"name": "phone-1", "uid": "l", "resourceVersion": "1"}
    found = ClaimView.parse({"metadata": metadata, "spec": {"holderIdentity": identity}})
    assert (found.namespace, found.session, found.session_uid) == ("", "", "")


def test_a_volume() -> None:
    failed = {"type": "ControllerResizeError", "status": "True", "message": "no"}
    body = {
        "metadata": {"name": "wa-shop", "uid": "v", "resourceVersion": "1", "labels": {names.LABEL_TENANT: "acme"}},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fast"},
        "status": {
            "phase": "Bound",
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "512Mi"},
            "conditions": [failed],
        },
    }
    found = VolumeView.parse(body)
    assert (found.storage_class, found.access_modes) == ("fast", ("ReadWriteOnce",))
    assert found.capacity == "512Mi"
    assert (found.tenant, found.requested, found.bound, found.ours, found.resize_error) == (
        "acme",
        "1Gi",
        True,
        False,
        "no",
    )


def test_numbers_that_this_operator_has_not_written_are_none() -> None:
    for text in ("9" * 5000, "-1", "x", ""):
        annotations = {names.ANNOTATION_GENERATION: text, names.ANNOTATION_NUDGES: text}
        found = PodView.parse(pod_body(annotations=annotations), 1.0)
        assert (found.generation, found.nudges) == (0, 0)
