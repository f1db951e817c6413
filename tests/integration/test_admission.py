"""The policies keep a session pod to its own status.session and its own Secret, on a real API server."""

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.apiserver import ApiError, ApiServer, secrets_path, session, sessions_path
from tests.waiting import eventually
from whatsapp_operator.api import names

NAMESPACE = "policies"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"

Call = Callable[[ApiServer], Any]


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def role_binding(name: str, kind: str, role: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    }


@pytest.fixture(scope="module")
def admin(control_plane: Any) -> ApiServer:
    api = ApiServer.from_kubeconfig(control_plane.kubeconfig)
    api.install()
    api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    account = names.SESSION_SERVICE_ACCOUNT
    api.create(ACCOUNTS, {"metadata": {"name": account}})
    api.create(f"{RBAC}/rolebindings", role_binding(account, "ClusterRole", names.SESSION_CLUSTER_ROLE))
    for name in ("mine", "neighbour"):
        spec = {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "containers": [{"name": "session", "image": "none"}],
        }
        api.create(PODS, {"metadata": {"name": f"wa-{name}"}, "spec": spec})
        api.create(secrets_path(NAMESPACE), {"metadata": {"name": f"wa-{name}"}, "data": {"qr": encode(name)}})
        eventually(partial(created, api, name), "the definition is served")
        api.patch(sessions_path(NAMESPACE, name, "status"), {"status": {"phase": "Starting"}})
    api.create(secrets_path(NAMESPACE), {"metadata": {"name": "unrelated"}, "data": {"password": encode("x")}})
    eventually(lambda: policies_in_force(api), "the policies are in force", seconds=60)
    return api


def created(api: ApiServer, name: str) -> bool:
    try:
        api.create(sessions_path(NAMESPACE), session(name))
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def policies_in_force(admin: ApiServer) -> bool:
    """A policy takes effect some time after it is created: both kinds of attack must be seen refused."""
    api = pod(admin)
    return refusal(lambda: patch_secret("unrelated", {})(api)) == refusal(lambda: status("neighbour", {})(api)) == 403


def pod(admin: ApiServer) -> ApiServer:
    """The API as the session pod of `mine` reaches it."""
    return admin.bearer(admin.pod_token(NAMESPACE, names.SESSION_SERVICE_ACCOUNT, "wa-mine"))


def refusal(call: Callable[[], Any]) -> int:
    """The status of the refusal, 0 where there was none."""
    try:
        call()
    except ApiError as error:
        return error.status
    return 0


def patch_secret(name: str, patch: dict[str, Any], namespace: str = NAMESPACE) -> Call:
    return lambda api: api.patch(secrets_path(namespace, name), patch)


def status(name: str, part: dict[str, Any]) -> Call:
    return lambda api: api.patch(sessions_path(NAMESPACE, name, "status"), {"status": part})


REPORT = {"session": {"machine": "Connecting", "podUID": "u"}}

ATTACKS: dict[str, Call] = {
    "another session's status": status("neighbour", REPORT),
    "its own conditions": status(
        "mine",
        {
            **REPORT,
            "conditions": [
                {
                    "type": "Connected",
                    "status": "True",
                    "reason": "Connected",
                    "message": "",
                    "lastTransitionTime": "2026-11-21T10:00:00Z",
                }
            ],
        },
    ),
    "its own phase": status("mine", {"phase": "Connected"}),
    "removing what the operator wrote": status("mine", {"phase": None}),
    "its own spec": lambda api: api.patch(sessions_path(NAMESPACE, "mine"), {"spec": {"suspend": True}}),
    "another session's Secret": patch_secret("wa-neighbour", {"data": {"qr": encode("forged")}}),
    "an empty patch of another session's Secret": patch_secret("wa-neighbour", {}),
    "an empty patch of any Secret": patch_secret("unrelated", {}),
    "get of its own Secret": lambda api: api.get(secrets_path(NAMESPACE, "wa-mine")),
    "list of Secrets": lambda api: api.get(secrets_path(NAMESPACE)),
    "an unknown key in its own Secret": patch_secret("wa-mine", {"data": {"ca.crt": encode("x")}}),
    "a value without bounds in its own Secret": patch_secret("wa-mine", {"data": {"qr.png": "A" * 65540}}),
    "labels of its own Secret": patch_secret("wa-mine", {"metadata": {"labels": {"a": "b"}}}),
    "ownership of its own Secret": patch_secret(
        "wa-mine", {"metadata": {"ownerReferences": [], "finalizers": ["a/b"]}}
    ),
    "freezing its own Secret": patch_secret("wa-mine", {"immutable": True}),
    "a Secret of another namespace": patch_secret("wa-mine", {}, "default"),
    "creating a pod": lambda api: api.create(PODS, {"metadata": {"name": "x"}, "spec": {"containers": []}}),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_session_pod_cannot(admin: ApiServer, attack: Call) -> None:
    assert refusal(lambda: attack(pod(admin))) == 403


@pytest.mark.parametrize("write", [status("mine", REPORT), patch_secret("wa-mine", {})], ids=["status", "Secret"])
def test_a_token_that_is_not_a_pods_cannot_write_at_all(admin: ApiServer, write: Call) -> None:
    unbound = admin.bearer(admin.account_token(NAMESPACE, names.SESSION_SERVICE_ACCOUNT))
    assert refusal(lambda: write(unbound)) == 403


def test_a_session_pod_reports_and_publishes_its_qr(admin: ApiServer) -> None:
    api = pod(admin)
    status("mine", REPORT)(api)
    patch_secret("wa-mine", {"data": {"qr": encode("2@text"), "expiresAt": encode("2026-11-21T10:01:00Z")}})(api)
    patch_secret("wa-mine", {"data": {"qr": None, "code": encode("ABCD-1234")}})(api)
    found = admin.get(sessions_path(NAMESPACE, "mine"))
    assert found["status"] == {"phase": "Starting", **REPORT}
    assert set(admin.get(secrets_path(NAMESPACE, "wa-mine"))["data"]) == {"code", "expiresAt"}


REFERENCES: dict[str, dict[str, Any]] = {
    "proxy": {"proxy": {"secretRef": {"name": "unrelated", "key": "password"}}},
    "ca-secret": {"caBundle": {"secretRef": {"name": "unrelated", "key": "password"}}},
    "ca-map": {"caBundle": {"configMapRef": {"name": "unrelated", "key": "ca.crt"}}},
    "pull": {"template": {"imagePullSecrets": [{"name": "allowed"}, {"name": "unrelated"}]}},
}


@pytest.fixture(scope="module")
def author(admin: ApiServer) -> ApiServer:
    """Who may write sessions and get the Secret and the ConfigMap `allowed`, but no other."""
    rules = [
        {"apiGroups": [names.GROUP], "resources": [names.PLURAL], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["secrets", "configmaps"], "resourceNames": ["allowed"], "verbs": ["get"]},
    ]
    admin.create(ACCOUNTS, {"metadata": {"name": "author"}})
    admin.create(f"{RBAC}/roles", {"metadata": {"name": "author"}, "rules": rules})
    admin.create(f"{RBAC}/rolebindings", role_binding("author", "Role", "author"))
    return admin.bearer(admin.account_token(NAMESPACE, "author"))


def test_who_may_get_what_is_referred_to_may_refer_to_it(author: ApiServer) -> None:
    allowed = {"name": "allowed", "key": "url"}
    author.create(sessions_path(NAMESPACE), session("refers-to-secret", proxy={"secretRef": allowed}))
    author.create(sessions_path(NAMESPACE), session("refers-to-map", caBundle={"configMapRef": allowed}))


@pytest.mark.parametrize("name", REFERENCES)
def test_who_may_not_get_it_may_not_refer_to_it(author: ApiServer, name: str) -> None:
    with pytest.raises(ApiError, match=r"unrelated.*right to get") as refused:
        author.create(sessions_path(NAMESPACE), session(name, **REFERENCES[name]))
    assert refused.value.status == 403


def test_a_change_that_leaves_the_reference_alone_needs_no_right_to_it(admin: ApiServer, author: ApiServer) -> None:
    admin.create(sessions_path(NAMESPACE), session("by-admin", **REFERENCES["proxy"]))
    author.patch(sessions_path(NAMESPACE, "by-admin"), {"spec": {"suspend": True}})
    other = {"spec": {"proxy": {"secretRef": {"name": "other", "key": "url"}}}}
    with pytest.raises(ApiError, match="right to get"):
        author.patch(sessions_path(NAMESPACE, "by-admin"), other)


@pytest.mark.parametrize(
    "use",
    [
        {"proxy": {"secretRef": {"name": "unrelated", "key": "another"}}},
        {"caBundle": {"secretRef": {"name": "unrelated", "key": "password"}}},
        {"template": {"imagePullSecrets": [{"name": "unrelated"}]}},
    ],
    ids=["another key", "another field", "another list"],
)
def test_another_use_of_a_secret_that_is_referred_to_needs_the_right_to_it(
    admin: ApiServer, author: ApiServer, use: dict[str, Any]
) -> None:
    name = f"reuse-{next(iter(use)).lower()}"
    admin.create(sessions_path(NAMESPACE), session(name, **REFERENCES["proxy"]))
    with pytest.raises(ApiError, match=r"unrelated.*right to get"):
        author.patch(sessions_path(NAMESPACE, name), {"spec": use})
