"""What a session pod and the operator must not be able to do, tried from where they run."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver import ApiError
from tests.scenario import Scenario, has_condition
from tests.target import Target
from tests.waiting import eventually
from whatsapp_operator.api import names

Phones = Callable[[], str]

# Marks in the audit log what no part of the product has asked for.
ATTACKER = "attacker"
# Sends one request with the pod's own token and prints the status of the answer.
REQUEST = """
import json, os, ssl, urllib.error, urllib.request
directory = "/var/run/secrets/kubernetes.io/serviceaccount"
method, path, body, kind = json.loads({request!r})
url = "https://{{}}:{{}}".format(os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]) + path
token = open(directory + "/token").read()
headers = {{"Authorization": "Bearer " + token, "Content-Type": kind, "User-Agent": {agent!r}}}
data = None if body is None else json.dumps(body).encode()
context = ssl.create_default_context(cafile=directory + "/ca.crt")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}), urllib.request.HTTPSHandler(context=context))
try:
    print(opener.open(urllib.request.Request(url, data, headers, method=method), timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
WRITE_BESIDE_THE_CODE = """
try:
    open("/app/written", "w")
except OSError as error:
    print(error.strerror)
"""
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def two_sessions(scenario: Scenario, new_phone: Phones) -> Scenario:
    """`mine`, from whose pod the attacks come, and `neighbour`."""
    for name in ("mine", "neighbour"):
        scenario.apply(scenario.manifest(name, phone=new_phone()))
    for name in ("mine", "neighbour"):
        with scenario.watching(name) as watch:
            watch.wait(has_condition("QRReady"), "QRReady")
    return scenario


def from_inside(scenario: Scenario, method: str, path: str, body: Any = None, kind: str = MERGE) -> int:
    script = REQUEST.format(request=json.dumps([method, path, body, kind]), agent=ATTACKER)
    return int(scenario.kubectl.python(scenario.namespace, names.owned_name("mine"), script))


def attacks(namespace: str) -> dict[str, tuple[str, str, Any]]:
    sessions = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    forged = {"session": {"machine": "Connected"}}
    condition = {
        "type": "Connected", "status": "True", "reason": "Connected", "message": "",
        "lastTransitionTime": "2026-11-21T10:00:00Z",
    }  # fmt: skip
    return {
        "another's status": ("PATCH", f"{sessions}/neighbour/status", {"status": forged}),
        "its own conditions": ("PATCH", f"{sessions}/mine/status", {"status": {"conditions": [condition]}}),
        "its own spec": ("PATCH", f"{sessions}/mine", {"spec": {"suspend": True}}),
        "another's Secret": ("PATCH", f"{secrets}/wa-neighbour", {"data": {"qr": "Zm9yZ2Vk"}}),
        "an empty patch of another's Secret": ("PATCH", f"{secrets}/wa-neighbour", {}),
        "its own Secret, read": ("GET", f"{secrets}/wa-mine", None),
        "another's Secret, read": ("GET", f"{secrets}/wa-neighbour", None),
        "all Secrets": ("GET", secrets, None),
        "the operator's claim key": (
            "PATCH", "/api/v1/namespaces/whatsapp-operator-system/secrets/whatsapp-operator-claim-key", {},
        ),
        "pods": ("GET", f"/api/v1/namespaces/{namespace}/pods", None),
    }  # fmt: skip


@pytest.mark.parametrize("name", attacks("any"))
def test_a_session_pod_is_refused(two_sessions: Scenario, name: str) -> None:
    method, path, body = attacks(two_sessions.namespace)[name]
    assert from_inside(two_sessions, method, path, body) == 403


def test_the_same_pod_may_write_its_own_report(two_sessions: Scenario) -> None:
    """The refusals above are worth something only if the pod's token is good."""
    path = f"/apis/{names.API_VERSION}/namespaces/{two_sessions.namespace}/{names.PLURAL}/mine/status"
    assert from_inside(two_sessions, "PATCH", path, {"status": {"session": {"message": "written by a test"}}}) == 200


@pytest.mark.parametrize("namespace", ["whatsapp-operator-system", "whatsapp-simulator", "the sessions' own"])
def test_pod_security_restricted_is_enforced(two_sessions: Scenario, namespace: str) -> None:
    chosen = two_sessions.namespace if namespace == "the sessions' own" else namespace
    root = {"name": "root", "image": "none", "securityContext": {"privileged": True, "runAsUser": 0}}
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [root], "hostNetwork": True}}
    with pytest.raises(ApiError, match='violates PodSecurity "restricted:latest"') as refused:
        two_sessions.api.create(f"/api/v1/namespaces/{chosen}/pods?dryRun=All", pod)
    assert refused.value.status == 403


def test_the_session_pod_is_hardened(two_sessions: Scenario) -> None:
    pod = two_sessions.running_pod("mine")
    [container] = pod["spec"]["containers"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "Read-only" in two_sessions.kubectl.python(two_sessions.namespace, "wa-mine", WRITE_BESIDE_THE_CODE)


def test_no_number_qr_or_code_reaches_logs_events_or_metrics(
    scenario: Scenario, target: Target, new_phone: Phones
) -> None:
    phone, friend = new_phone(), new_phone()
    scenario.simulator.add_phone(friend)
    secrets_seen = {phone, phone.lstrip("+"), friend, friend.lstrip("+")}
    with scenario.watching("quiet") as watch:
        scenario.apply(scenario.manifest("quiet", phone=phone))
        watch.wait(has_condition("QRReady"), "QRReady")
        secrets_seen |= set(scenario.qr("quiet").rpartition("#")[2].split(",")[:4])
        scenario.pair("quiet", phone, watch)
        scenario.send_message("quiet", friend, "secret words of the message")
        secrets_seen.add("secret words of the message")
        eventually(lambda: scenario.simulator.inbox(friend), "the friend has the message")
        scenario.force_relink("quiet", "token-of-the-relink")
        secrets_seen.add("token-of-the-relink")
        watch.wait(lambda seen: seen.status.get("relink", {}).get("outcome") == "Completed", "relinked")
    kubectl, here = scenario.kubectl, f"--namespace={scenario.namespace}"
    pod = f"/api/v1/namespaces/{scenario.namespace}/pods/wa-quiet:{names.SESSION_HTTP_PORT}"
    operator = "/api/v1/namespaces/whatsapp-operator-system/services/whatsapp-operator:http"
    told = {
        "operator log": kubectl.run(
            "logs", "--namespace=whatsapp-operator-system", "--selector=app.kubernetes.io/name=whatsapp-operator",
            "--tail=-1", "--prefix",
        ),
        "session log": kubectl.run("logs", here, names.owned_name("quiet")),
        "events": kubectl.run("get", "events", here, "--output=json"),
        "session metrics": str(scenario.api.get(f"{pod}/proxy/metrics")),
        "operator metrics": str(target.api.get(f"{operator}/proxy/metrics")),
    }  # fmt: skip
    for where, text in told.items():
        assert text.strip(), where
        leaked = [secret for secret in secrets_seen if secret in text]
        assert leaked == [], where
