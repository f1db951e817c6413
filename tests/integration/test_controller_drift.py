"""What somebody does by hand to what a session owns is undone, or told; what is no concern of the operator stays.

What is done to a claim is in test_controller_claims.py; what is deleted, also in test_controller_failures.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver import ApiServer, sessions_path
from tests.integration.controller_stand_ins import (
    Replica,
    Stage,
    make_namespace,
    operators,
    settled,
)
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import EXPLANATIONS, Reason

TEMPLATE = {"labels": {"example.com/team": "a"}, "annotations": {"example.com/note": "b"}}
PHONE = "+15551230401"
EDITED = [
    names.LABEL_APP_NAME,
    names.LABEL_APP_COMPONENT,
    names.LABEL_APP_PART_OF,
    names.LABEL_APP_MANAGED_BY,
    names.LABEL_APP_INSTANCE,
    names.LABEL_SESSION,
    names.LABEL_TENANT,
]


@pytest.fixture(scope="module")
def stage(api: ApiServer) -> Stage:
    return make_namespace(api, "drift")


@pytest.fixture(scope="module")
def operator(api: ApiServer, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with operators(api, tmp_path_factory.mktemp("operator"), stage.namespace) as found:
        yield found.start_leader("--resync-seconds", "2")


@pytest.fixture(scope="module")
def session(operator: Replica, stage: Stage) -> str:
    """Its name."""
    stage.create("edited", phone=PHONE, tenant="edited", template=TEMPLATE)
    stage.connect("edited", PHONE)
    settled(operator)
    return "edited"


def path_of(stage: Stage, kind: str, session: str) -> str:
    core, rbac = (
        f"/api/v1/namespaces/{stage.namespace}",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}",
    )
    return {
        "session": sessions_path(stage.namespace, session),
        "pod": stage.pod_path(session),
        "volume": stage.volume_path(session),
        "secret": stage.secret_path(session),
        "account": f"{core}/serviceaccounts/{names.SESSION_SERVICE_ACCOUNT}",
        "binding": f"{rbac}/rolebindings/{names.SESSION_SERVICE_ACCOUNT}",
    }[kind]


def edit(stage: Stage, path: str, part: str, key: str, value: str | None) -> None:
    stage.api.patch(path, {"metadata": {part: {key: value}}})


@pytest.mark.parametrize("value", ["other", None], ids=["changed", "removed"])
@pytest.mark.parametrize(
    ("kind", "part", "key"),
    [
        *(("pod", "labels", key) for key in (*EDITED, names.LABEL_PRIMARY, "example.com/team")),
        *(("pod", "annotations", key) for key in (names.ANNOTATION_DESIRED_STATE, "example.com/note")),
        ("pod", "annotations", names.ANNOTATION_SPEC_HASH),
        *(("volume", "labels", key) for key in EDITED),
    ],
)
def test_what_is_written_over_is_mended(
    stage: Stage, session: str, kind: str, part: str, key: str, value: str | None
) -> None:
    path = path_of(stage, kind, session)
    before = stage.api.get(path)["metadata"]
    edit(stage, path, part, key, value)
    eventually(lambda: stage.api.get(path)["metadata"][part] == before[part], f"{key} is mended", every=0.02)
    assert stage.api.get(path)["metadata"]["uid"] == before["uid"]
    stage.condition(session, "Ready", status="True", reason="Connected")


def test_a_volume_that_has_lost_its_owner_is_taken_back(stage: Stage, session: str) -> None:
    path = path_of(stage, "volume", session)
    uid = stage.api.get(path)["metadata"]["labels"][names.LABEL_SESSION_UID]
    edit(stage, path, "labels", names.LABEL_SESSION_UID, None)
    eventually(
        lambda: stage.api.get(path)["metadata"]["labels"].get(names.LABEL_SESSION_UID) == uid, "it is ours", every=0.02
    )


@pytest.mark.parametrize(
    ("kind", "value"), [("volume", "somebody-else"), ("pod", None)], ids=["volume-of-another", "pod-of-nobody"]
)
def test_what_belongs_to_another_now_is_told_until_it_is_given_back(
    operator: Replica, stage: Stage, session: str, kind: str, value: str | None
) -> None:
    path = path_of(stage, kind, session)
    before = stage.api.get(path)["metadata"]
    edit(stage, path, "labels", names.LABEL_SESSION_UID, value)
    told = stage.condition(session, "Stalled", status="True", reason="NameConflict")["message"]
    assert names.owned_name(session) in told
    assert EXPLANATIONS[Reason.NAME_CONFLICT].remedy in told
    settled(operator)
    assert stage.api.get(path)["metadata"]["uid"] == before["uid"]
    edit(stage, path, "labels", names.LABEL_SESSION_UID, before["labels"][names.LABEL_SESSION_UID])
    stage.condition(session, "Ready", status="True", reason="Connected")


def test_a_binding_to_others_is_told_and_made_anew_when_it_is_removed(stage: Stage, session: str) -> None:
    path = path_of(stage, "binding", session)
    wanted = stage.api.get(path)["subjects"]
    stage.api.patch(path, {"subjects": [{"kind": "ServiceAccount", "name": "other", "namespace": stage.namespace}]})
    told = stage.condition(session, "Stalled", status="True", reason="NameConflict")["message"]
    assert names.SESSION_SERVICE_ACCOUNT in told
    assert EXPLANATIONS[Reason.NAME_CONFLICT].remedy in told
    stage.api.delete(path)
    stage.condition(session, "Ready", status="True", reason="Connected")
    assert stage.api.get(path)["subjects"] == wanted


@pytest.mark.parametrize("kind", ["account", "binding"])
def test_what_all_session_pods_share_is_made_again(stage: Stage, session: str, kind: str) -> None:
    path = path_of(stage, kind, session)
    stage.api.delete(path)
    eventually(lambda: stage.api.find(path), f"the {kind} is there again", every=0.05)


def test_the_finalizer_and_the_status_come_back(stage: Stage, session: str) -> None:
    before = stage.session(session)
    stage.patch(session, {"metadata": {"finalizers": None}})
    eventually(lambda: stage.session(session)["metadata"].get("finalizers") == [names.FINALIZER], "it is kept")
    wrong = {"phase": "Expired", "primary": False, "phone": "+15551230402", "conditions": [], "pod": None}
    stage.api.patch(sessions_path(stage.namespace, session, "status"), {"status": wrong})
    known = ("phase", "primary", "phone", "pod")
    eventually(
        lambda: [stage.status(session).get(key) for key in known] == [before["status"][key] for key in known],
        "the status is right",
    )
    stage.condition(session, "Ready", status="True", reason="Connected")


def test_what_somebody_adds_is_theirs(operator: Replica, stage: Stage, session: str) -> None:
    # Long enough for a comparison.
    before = settled(operator, seconds=3)
    paths = [path_of(stage, kind, session) for kind in ("session", "pod", "volume", "secret", "account", "binding")]
    for path in paths:
        for part in ("labels", "annotations"):
            edit(stage, path, part, "example.org/mine", "x")
    assert settled(operator, seconds=3) == before, operator.text()[-6000:]
    for path in paths:
        metadata = stage.api.get(path)["metadata"]
        assert (metadata["labels"]["example.org/mine"], metadata["annotations"]["example.org/mine"]) == ("x", "x")


def test_a_pod_that_is_told_to_be_of_another_session_is_replaced(stage: Stage, session: str) -> None:
    path = path_of(stage, "pod", session)
    uid = stage.api.get(path)["metadata"]["uid"]
    edit(stage, path, "labels", names.LABEL_SESSION_UID, "somebody-else")
    stage.end_pod(session)
    stage.connect(session, PHONE, other_than=uid)
