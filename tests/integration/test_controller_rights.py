"""The operator with no right on the whole cluster, without the policies, and what people's roles allow."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from charts.render import render
from tests.apiserver import ApiError, ApiServer
from tests.integration.controller_life import STEPS, Life
from tests.integration.controller_stand_ins import (
    OPERATOR_NAMESPACE,
    Operators,
    Replica,
    Stage,
    make_namespace,
    operators,
)
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.api.names import ADMISSION_POLICIES
from whatsapp_operator.controller.policies import PROBE_PREFIX

OPERATOR = f"system:serviceaccount:{OPERATOR_NAMESPACE}:whatsapp-operator"
SERVED = "whatsapp-sessions"
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/whatsapp-operator"
POLICY_API = "/apis/admissionregistration.k8s.io/v1"
BINDINGS = f"{POLICY_API}/validatingadmissionpolicybindings"


def may(api: ApiServer, user: str, verb: str, resource: str, namespace: str | None = None, **attributes: str) -> bool:
    """Whether a user may; without a namespace, in all of them."""
    plural, _, subresource = resource.partition("/")
    group = names.GROUP if plural == names.PLURAL else attributes.pop("group", "")
    asked = {"verb": verb, "group": group, "resource": plural, "subresource": subresource, "namespace": namespace or ""}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": asked | attributes},
    }
    return bool(api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"])


# ---------------------------------------------------------------- namespaced mode


@pytest.fixture
def namespaced(api: ApiServer) -> Iterator[list[str]]:
    """The chart is installed for one namespace; what its Deployment tells the operator."""
    manifests = render({"watchNamespaces": [SERVED], "namespaces": {"create": True}})
    api.delete(BINDING)
    for manifest in manifests:
        api.apply(manifest)
    [deployment] = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    yield deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    api.install()


def test_a_whole_life_with_no_right_on_the_whole_cluster(namespaced: list[str], api: ApiServer, tmp_path: Path) -> None:
    assert api.find(BINDING) is None
    elsewhere = make_namespace(api, "not-served")
    stranger = elsewhere.create("stranger", phone="+15551230301")
    [served] = [told.partition("=")[2] for told in namespaced if told.startswith("--watch-namespaces=")]
    with operators(api, tmp_path, served) as running:
        replica = running.start_leader()
        life = Life(Stage(api, SERVED))
        for step in STEPS:
            getattr(life, step)()
        assert running.stop(replica) == 0
    assert "forbidden" not in replica.text()
    assert elsewhere.session("stranger") == stranger
    assert elsewhere.find_pod("stranger") is None


def test_a_namespace_that_is_not_served_does_not_hinder_the_others(
    namespaced: list[str], api: ApiServer, tmp_path: Path
) -> None:
    """Neither at the start nor later; the one was served once, the other never was."""
    here, lost = Stage(api, SERVED), make_namespace(api, "lost")
    make_namespace(api, "never")
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SERVED}/rolebindings"
    bound = {**api.get(f"{bindings}/whatsapp-operator-sessions"), "metadata": {"name": "whatsapp-operator-sessions"}}

    def bind() -> None:
        api.create(bindings.replace(SERVED, lost.namespace), bound)

    def unbind() -> None:
        api.delete(f"{bindings.replace(SERVED, lost.namespace)}/whatsapp-operator-sessions")

    def left_out(replica: Replica) -> set[str]:
        entries = [json.loads(line)["message"] for line in replica.text().splitlines()]
        said = [entry for entry in entries if entry.startswith("not served, for the RoleBinding is not there: ")]
        return set(said[-1].rpartition(": ")[2].split(", ")) if said else set()

    bind()
    with operators(api, tmp_path, f"{SERVED},{lost.namespace},never") as running:
        replica = running.start_leader("--resync-seconds", "1")
        lost.create("early", phone="+15551230311")
        lost.connect("early", "+15551230311")
        unbind()
        eventually(lambda: left_out(replica) == {lost.namespace, "never"}, "it is told")
        here.create("meanwhile", phone="+15551230312")
        here.connect("meanwhile", "+15551230312")
        api.delete(f"{bindings}/{names.SESSION_SERVICE_ACCOUNT}")
        eventually(lambda: api.find(f"{bindings}/{names.SESSION_SERVICE_ACCOUNT}"), "the comparison goes on")
        assert running.stop(replica) == 0
        replica = running.start_leader("--resync-seconds", "600")
        assert left_out(replica) == {lost.namespace, "never"}
        lost.create("late", phone="+15551230313")
        here.delete("meanwhile")
        here.unlink("meanwhile")
        here.gone("meanwhile")
        assert lost.find_pod("late") is None
        bind()
        lost.connect("late", "+15551230313")
        lost.condition("early", "Ready", status="True", reason="Connected")
        assert running.stop(replica) == 0


EVERYWHERE = [
    ("list", names.PLURAL),
    ("watch", "pods"),
    ("create", "pods"),
    ("create", "secrets"),
    ("delete", "secrets"),
    ("get", "namespaces"),
    ("create", "serviceaccounts"),
]


@pytest.mark.parametrize("namespace", [None, "kube-system", "default"], ids=["all", "kube-system", "default"])
def test_in_namespaced_mode_nothing_is_granted_elsewhere(
    namespaced: list[str], api: ApiServer, namespace: str | None
) -> None:
    eventually(lambda: not may(api, OPERATOR, *EVERYWHERE[0]), "the binding is gone")
    allowed = [what for what in EVERYWHERE if may(api, OPERATOR, *what, namespace=namespace)]
    assert allowed == []
    assert all(may(api, OPERATOR, *what, namespace=SERVED) for what in EVERYWHERE)
    assert not may(api, OPERATOR, "list", "validatingadmissionpolicies", group="admissionregistration.k8s.io")


# ---------------------------------------------------------------- the policies


@pytest.fixture
def running(api: ApiServer, tmp_path: Path) -> Iterator[Operators]:
    with operators(api, tmp_path, "default") as found:
        yield found


def enforced(api: ApiServer, policy: str) -> bool:
    lease = {"metadata": {"name": f"{PROBE_PREFIX}{policy}"}}
    path = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases?dryRun=All"
    try:
        api.create(path, lease)
    except ApiError as error:
        return error.status == 403
    return False


def test_without_the_policies_the_operator_does_not_run(api: ApiServer, running: Operators) -> None:
    """Each in another way: the policy is missing, it is not bound, and its binding does but audit."""
    missing, unbound, audited = ADMISSION_POLICIES
    api.delete(f"{POLICY_API}/validatingadmissionpolicies/{missing}")
    api.delete(f"{BINDINGS}/{unbound}")
    api.patch(f"{BINDINGS}/{audited}", {"spec": {"validationActions": ["Audit"]}})
    eventually(lambda: not any(enforced(api, policy) for policy in ADMISSION_POLICIES), "no policy is enforced")
    replica = running.start()
    assert replica.process.wait(timeout=120) == 1
    assert f"not enforced in this cluster: ValidatingAdmissionPolicy {', '.join(ADMISSION_POLICIES)}." in replica.text()
    assert "with the chart (admissionPolicies.install)" in replica.text()
    assert "leading" not in replica.text()
    api.install()
    assert running.stop(running.start_leader()) == 0


def test_a_policy_that_is_taken_away_ends_the_operator(api: ApiServer, running: Operators) -> None:
    leader = running.start_leader("--resync-seconds", "0.5")
    api.delete(f"{BINDINGS}/{ADMISSION_POLICIES[1]}")
    assert leader.process.wait(timeout=120) == 1
    last = [json.loads(line) for line in leader.text().splitlines() if '"error"' in line]
    assert any(f"ValidatingAdmissionPolicy {ADMISSION_POLICIES[1]}." in entry["message"] for entry in last)
    api.install()


# ---------------------------------------------------------------- rights


@pytest.mark.parametrize("verb", ["get", "list", "watch", "patch", "update", "deletecollection"])
@pytest.mark.parametrize("namespace", [None, "default", OPERATOR_NAMESPACE], ids=["all", "default", "own"])
def test_the_operator_cannot_read_secrets(api: ApiServer, verb: str, namespace: str | None) -> None:
    assert not may(api, OPERATOR, verb, "secrets", namespace)


READS, WRITES = ("get", "list", "watch"), ("create", "update", "patch", "delete", "deletecollection")


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_roles_of_people(api: ApiServer, role: str) -> None:
    user, namespace = f"{role}er", "default"
    api.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": user, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }
    )
    eventually(lambda: may(api, user, "get", names.PLURAL, namespace), "the role is aggregated")
    eventually(lambda: may(api, user, "create", names.PLURAL, namespace) == (role != "view"), "the role is aggregated")
    assert all(may(api, user, verb, names.PLURAL, namespace) for verb in READS)
    assert {may(api, user, verb, names.PLURAL, namespace) for verb in WRITES} == {role != "view"}
    subresources = ("status", "finalizers")
    for verb, subresource in itertools.product(("update", "patch"), subresources):
        assert not may(api, user, verb, f"{names.PLURAL}/{subresource}", namespace)
    assert not may(api, user, "get", names.PLURAL, "kube-system")
    assert may(api, user, "get", "secrets", namespace) == (role != "view")
