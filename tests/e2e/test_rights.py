"""What the operator and the session pods may do is what they do: their rights beside the audit log of a whole run."""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from charts.render import NAMESPACE
from tests.cluster.paths import cluster_paths
from tests.e2e.test_security import ATTACKER
from tests.target import Target
from whatsapp_operator.api import names

pytestmark = pytest.mark.alone

RBAC = "/apis/rbac.authorization.k8s.io/v1"
OPERATOR = rf"system:serviceaccount:{NAMESPACE}:whatsapp-operator"
SESSIONS = rf"system:serviceaccount:[^:]+:{names.SESSION_SERVICE_ACCOUNT}"
SUBJECT = {"kind": "ServiceAccount", "name": "whatsapp-operator", "namespace": NAMESPACE}

READ_AGAIN = "read by name only after a write that came too late, or to see whose it is that has the name"
COMPARED = "looked at by the regular comparison, every ten minutes"
NO_REQUEST = "asked for by the API server itself when another right is used"
# Granted although a run need not use it: (group, resource, verb) and why.
SELDOM = {
    (names.GROUP, "whatsappsessions/finalizers", "update"): f"{NO_REQUEST}: an owner reference that blocks deletion",
    (names.GROUP, names.PLURAL, "get"): READ_AGAIN,
    ("", "pods", "get"): READ_AGAIN,
    ("", "persistentvolumeclaims", "get"): READ_AGAIN,
    ("rbac.authorization.k8s.io", "rolebindings", "get"): COMPARED,
    ("", "serviceaccounts", "get"): COMPARED,
    ("rbac.authorization.k8s.io", "clusterroles", "bind"): f"{NO_REQUEST}: a role binding is created",
}


@dataclass(frozen=True, order=True)
class Right:
    """An empty namespace or name is any."""

    group: str
    resource: str
    verb: str
    namespace: str = ""
    name: str = ""

    def covers(self, use: "Right") -> bool:
        same = (self.group, self.resource, self.verb) == (use.group, use.resource, use.verb)
        return same and self.namespace in ("", use.namespace) and self.name in ("", use.name)


@dataclass(frozen=True)
class Request:
    user: str
    right: Right
    allowed: bool


@pytest.fixture(scope="module")
def requests(whole_run: datetime, target: Target) -> list[Request]:
    """What service accounts have asked for since the operator was rolled out for this run, attacks of tests aside."""
    if os.environ.get("CONTEXT"):
        pytest.skip("the audit log of another cluster is not at hand")
    path = (
        f"/apis/apps/v1/namespaces/{NAMESPACE}/replicasets?labelSelector=app.kubernetes.io%2Fname%3Dwhatsapp-operator"
    )
    rollouts = [replicas["metadata"]["creationTimestamp"] for replicas in target.api.get(path)["items"]]
    # Tests may roll it out again.
    since = max(rollout for rollout in rollouts if datetime.fromisoformat(rollout) <= whole_run)
    log = cluster_paths().audit_log
    lines = itertools.chain.from_iterable(part.read_text().splitlines() for part in log.parent.glob("audit*.log"))
    entries = (json.loads(line) for line in lines)
    return [
        request(entry)
        for entry in entries
        if entry["requestReceivedTimestamp"] >= since and "objectRef" in entry and entry.get("userAgent") != ATTACKER
    ]


def request(entry: dict[str, Any]) -> Request:
    about = entry["objectRef"]
    resource = "/".join(part for part in (about["resource"], about.get("subresource")) if part)
    right = Right(about.get("apiGroup", ""), resource, entry["verb"], about.get("namespace", ""), about.get("name", ""))
    return Request(entry["user"]["username"], right, entry["annotations"]["authorization.k8s.io/decision"] == "allow")


def expanded(rules: list[dict[str, Any]], namespace: str = "") -> Iterator[Right]:
    for rule in rules:
        named = rule.get("resourceNames", [""])
        for group, resource, verb, name in itertools.product(
            rule["apiGroups"], rule["resources"], rule["verbs"], named
        ):
            yield Right(group, resource, verb, namespace, name)


def of_operator(target: Target) -> set[Right]:
    """All that any binding in the cluster gives to its account."""
    found: set[Right] = set()
    for kind in ("clusterrolebindings", "rolebindings"):
        for binding in target.api.get(f"{RBAC}/{kind}")["items"]:
            if SUBJECT not in binding.get("subjects", []):
                continue
            role, namespace = binding["roleRef"], binding["metadata"].get("namespace", "")
            where = "" if role["kind"] == "ClusterRole" else f"/namespaces/{namespace}"
            path = f"{RBAC}{where}/{role['kind'].lower()}s/{role['name']}"
            found.update(expanded(target.api.get(path)["rules"], namespace))
    return found


def of_sessions(target: Target) -> set[Right]:
    return set(expanded(target.api.get(f"{RBAC}/clusterroles/{names.SESSION_CLUSTER_ROLE}")["rules"]))


ACCOUNTS = {"operator": (OPERATOR, of_operator), "session pods": (SESSIONS, of_sessions)}


@pytest.mark.parametrize(("user", "granted"), ACCOUNTS.values(), ids=ACCOUNTS.keys())
def test_what_is_granted_is_used_and_nothing_else_is_tried(
    requests: list[Request], target: Target, user: str, granted: Callable[[Target], set[Right]]
) -> None:
    mine = [request for request in requests if re.fullmatch(user, request.user)]
    used, rights = {request.right for request in mine if request.allowed}, granted(target)
    assert sorted({request.right for request in mine if not request.allowed}) == []
    assert not any("*" in (right.group, right.resource, right.verb) for right in rights)
    unused = {right for right in rights if not any(right.covers(use) for use in used)}
    assert sorted(right for right in unused if (right.group, right.resource, right.verb) not in SELDOM) == []


def test_every_exception_is_a_right_that_is_granted(target: Target) -> None:
    rights = of_operator(target) | of_sessions(target)
    assert set(SELDOM) <= {(right.group, right.resource, right.verb) for right in rights}


def test_of_secrets_nothing_is_granted_but_what_reads_none(target: Target) -> None:
    """`patch` reads too: what keeps a session pod to its own Secret is the policy."""
    verbs = {
        account: {right.verb for right in granted(target) if right.resource.partition("/")[0] == "secrets"}
        for account, (_, granted) in ACCOUNTS.items()
    }
    assert verbs == {"operator": {"create", "delete"}, "session pods": {"patch"}}


def test_nobody_of_ours_reads_secrets(requests: list[Request]) -> None:
    ours = [request for request in requests if re.fullmatch(f"{OPERATOR}|{SESSIONS}", request.user)]
    of_secrets = {request.right.verb for request in ours if request.right.resource == "secrets"}
    assert {"create", "patch"} <= of_secrets <= {"create", "delete", "patch"}
