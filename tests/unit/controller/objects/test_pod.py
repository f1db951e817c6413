import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.controller.builders import OPTIONS, UID, session
from whatsapp_operator.api import names
from whatsapp_operator.api.models import Template
from whatsapp_operator.controller.objects import pod
from whatsapp_operator.controller.settings import AllowLists


def built(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    return pod.build(session(spec=spec), OPTIONS, "{}")


def container(body: dict[str, Any]) -> dict[str, Any]:
    (found,) = body["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def test_name_labels_and_binding() -> None:
    metadata = built()["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("wa-shop", "team")
    assert "ownerReferences" not in metadata
    assert metadata["labels"] == {
        "app.kubernetes.io/name": "whatsapp-session",
        "app.kubernetes.io/instance": "shop",
        "app.kubernetes.io/component": "session",
        "app.kubernetes.io/part-of": "whatsapp-operator",
        "app.kubernetes.io/managed-by": "whatsapp-operator",
        "app.kubernetes.io/version": "1.2.3",
        "whatsapp-operator.io/session": "shop",
        "whatsapp-operator.io/session-uid": session().metadata.uid,
        "whatsapp-operator.io/tenant": "acme",
    }


def test_pod_security_restricted() -> None:
    body = built()
    assert body["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(body)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert body["spec"]["automountServiceAccountToken"] is False
    assert body["spec"]["enableServiceLinks"] is False


def test_environment() -> None:
    env = by_name(container(built())["env"])
    assert {name: variable.get("value") for name, variable in env.items()} == {
        names.ENV_NAMESPACE: "team",
        names.ENV_SESSION: "shop",
        names.ENV_SESSION_UID: UID,
        names.ENV_TENANT: "acme",
        names.ENV_POD_UID: None,
        names.ENV_LOG_LEVEL: "info",
    }
    assert env[names.ENV_POD_UID]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ({"url": "http://proxy:3128"}, {"value": "http://proxy:3128"}),
        (
            {"secretRef": {"name": "proxy", "key": "url"}},
            {"valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}},
        ),
    ],
)
def test_proxy(proxy: dict[str, Any], expected: dict[str, Any]) -> None:
    env = by_name(container(built({"proxy": proxy}))["env"])
    assert env[names.ENV_PROXY_URL] == {"name": names.ENV_PROXY_URL, **expected}


def test_volumes() -> None:
    body = built()
    volumes = by_name(body["spec"]["volumes"])
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "wa-shop"}
    assert volumes["run"]["emptyDir"]["medium"] == "Memory"
    assert volumes["desired-state"]["downwardAPI"]["items"] == [
        {
            "path": "desired-state.json",
            "fieldRef": {"fieldPath": "metadata.annotations['whatsapp-operator.io/desired-state']"},
        }
    ]
    token = volumes["api-access"]["projected"]["sources"][0]["serviceAccountToken"]
    assert token == {"path": "token", "expirationSeconds": 3607}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(body)["volumeMounts"]}
    assert mounts == {
        "data": names.DATA_DIR,
        "run": names.RUN_DIR,
        "desired-state": names.DESIRED_DIR,
        "api-access": names.SERVICE_ACCOUNT_DIR,
    }


@pytest.mark.parametrize(
    ("bundle", "expected"),
    [
        (
            {"secretRef": {"name": "ca", "key": "pem"}},
            {"secret": {"secretName": "ca", "items": [{"key": "pem", "path": "ca.crt"}]}},
        ),
        (
            {"configMapRef": {"name": "ca", "key": "pem"}},
            {"configMap": {"name": "ca", "items": [{"key": "pem", "path": "ca.crt"}]}},
        ),
    ],
)
def test_ca_bundle(bundle: dict[str, Any], expected: dict[str, Any]) -> None:
    body = built({"caBundle": bundle})
    assert by_name(body["spec"]["volumes"])["ca-bundle"] == {"name": "ca-bundle", **expected}
    assert by_name(container(body)["volumeMounts"])["ca-bundle"]["mountPath"] == names.CA_DIR


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param(None, {"requests": pod.DEFAULT_REQUESTS, "limits": pod.DEFAULT_LIMITS}, id="defaults"),
        pytest.param(
            {"limits": {"memory": "128Mi"}}, {"requests": {"cpu": "10m"}, "limits": {"memory": "128Mi"}}, id="limit"
        ),
        pytest.param(
            {"requests": {"memory": "300Mi"}},
            {"requests": {"cpu": "10m", "memory": "300Mi"}, "limits": {}},
            id="request above the default limit",
        ),
        pytest.param(
            {"requests": {"cpu": 1}, "limits": {"cpu": 2}},
            {"requests": {"memory": "64Mi", "cpu": 1}, "limits": {"memory": "192Mi", "cpu": 2}},
            id="cpu",
        ),
    ],
)
def test_resources(resources: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    spec = {"template": {"resources": resources}} if resources else None
    assert container(built(spec))["resources"] == expected


TEMPLATE: dict[str, Any] = {
    "labels": {"team.example/name": "shop"},
    "annotations": {"team.example/note": "x"},
    "nodeSelector": {"disk": "ssd"},
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "imagePullSecrets": [{"name": "pull"}],
    "image": "example/other:2",
    "priorityClassName": "low",
    "tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}],
}
ALLOW = AllowLists(frozenset({"example/other:2"}), frozenset({"low"}), frozenset({"a"}))


def test_template_is_applied() -> None:
    template = TEMPLATE
    body = pod.build(session(spec={"template": template}), replace(OPTIONS, allow=ALLOW), "{}")
    assert body["metadata"]["labels"]["team.example/name"] == "shop"
    assert body["metadata"]["annotations"]["team.example/note"] == "x"
    for key in ("nodeSelector", "affinity", "topologySpreadConstraints", "imagePullSecrets", "priorityClassName"):
        assert body["spec"][key] == template[key]
    assert body["spec"]["tolerations"] == template["tolerations"]
    assert container(body)["image"] == "example/other:2"


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"image": "evil"}, "spec.template.image"),
        ({"priorityClassName": "system-node-critical"}, "spec.template.priorityClassName"),
        ({"tolerations": [{"operator": "Exists"}]}, r"spec.template.tolerations\[0\]"),
        ({"labels": {"app.kubernetes.io/name": "x"}}, "spec.template.labels"),
        ({"labels": {"whatsapp-operator.io/session": "x"}}, "spec.template.labels"),
        ({"labels": {"sub.whatsapp-operator.io/x": "x"}}, "spec.template.labels"),
        ({"annotations": {"container.apparmor.security.beta.kubernetes.io/s": "x"}}, "spec.template.annotations"),
        ({"annotations": {"sidecar.istio.io/inject": "x"}}, "spec.template.annotations"),
        ({"annotations": {"vault.hashicorp.com/agent-inject": "x"}}, "spec.template.annotations"),
        ({"labels": {"aadpodidbinding": "x"}}, "spec.template.labels.*team.example/name"),
        ({"annotations": {"whatsapp-operator.io/desired-state": "{}"}}, "spec.template.annotations"),
    ],
)
def test_what_a_template_may_not_ask_for(template: dict[str, Any], field: str) -> None:
    with pytest.raises(pod.InvalidTemplateError, match=field):
        pod.check_template(Template.model_validate(template), AllowLists())


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"template": TEMPLATE, "proxy": {"url": "http://p:1"}, "suspend": True},
        {
            "template": {"resources": {"limits": {"memory": "1Gi"}}, "affinity": {"x": None, "y": [1.5, None]}},
            "caBundle": {"secretRef": {"name": "ca", "key": "k"}},
            "proxy": {"secretRef": {"name": "p", "key": "k"}},
        },
    ],
)
def test_the_hash_is_that_of_the_pod(spec: dict[str, Any]) -> None:
    """It is not computed each time, nor from the pod that is made."""
    body = pod.build(session(spec=spec), replace(OPTIONS, allow=ALLOW), "{}")
    labels, annotations = body["metadata"]["labels"], body["metadata"]["annotations"]
    hashed = {
        "labels": {key: value for key, value in labels.items() if key != names.LABEL_APP_VERSION},
        "annotations": {key: value for key, value in annotations.items() if not key.startswith(names.GROUP)},
        "spec": body["spec"],
    }
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
    assert annotations[names.ANNOTATION_APPLIED_HASH] == digest[:32]


def test_the_spec_hash_tells_a_change_of_the_spec_from_one_of_the_operator() -> None:
    def spec_hash(body: dict[str, Any]) -> str:
        found: str = body["metadata"]["annotations"][names.ANNOTATION_SPEC_HASH]
        return found

    same = spec_hash(built())
    assert (
        spec_hash(pod.build(session(), replace(OPTIONS, session_image="other", session_log_level="debug"), "")) == same
    )
    assert spec_hash(built({"suspend": True, "deletionPolicy": "Keep", "pairing": {"attempts": 9}})) == same
    for spec in CHANGES:
        assert spec_hash(built(spec)) != same


def test_the_spec_hash_stays_the_same_from_one_version_to_the_next() -> None:
    """Else the next version would replace all pods at once."""
    body = built(
        {
            "proxy": {"url": "http://p:1"},
            "template": {"labels": {"team.example/a": "b"}, "resources": {"limits": {"cpu": "1"}}},
        }
    )
    assert body["metadata"]["annotations"][names.ANNOTATION_SPEC_HASH] == "0c562c64f3189f3bb3aed847beb47d6b"


SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
CHANGES: list[dict[str, Any]] = [
    {"proxy": {"url": "http://p:1"}},
    {"proxy": {"secretRef": {"name": "s", "key": "k"}}},
    {"caBundle": {"secretRef": {"name": "s", "key": "k"}}},
    {"caBundle": {"configMapRef": {"name": "s", "key": "k"}}},
    {"template": {"labels": {"team.example/a": "b"}}},
    {"template": {"annotations": {"team.example/a": "b"}}},
    {"template": {"resources": {"limits": {"cpu": "1"}}}},
    {"template": {"nodeSelector": {"a": "b"}}},
    {"template": {"topologySpreadConstraints": [SPREAD]}},
    {"template": {"imagePullSecrets": [{"name": "s"}]}},
]


def test_the_revision_is_that_of_everything_but_the_session() -> None:
    same = pod.revision(OPTIONS)
    assert pod.revision(replace(OPTIONS, version="2", claim_key=b"l" * 32)) == same
    assert pod.revision(replace(OPTIONS, session_image="other")) != same
    assert pod.revision(replace(OPTIONS, session_log_level="debug")) != same


def test_a_session_with_an_image_of_its_own_does_not_follow_the_operator() -> None:
    def applied_hash(image: str) -> str:
        options = replace(OPTIONS, session_image=image, allow=AllowLists(images=frozenset({"mine"})))
        body = pod.build(session(spec={"template": {"image": "mine"}}), options, "")
        found: str = body["metadata"]["annotations"][names.ANNOTATION_APPLIED_HASH]
        return found

    assert applied_hash("one") == applied_hash("two")


def test_the_hash_leaves_out_what_a_running_pod_can_follow() -> None:
    def applied_hash(body: dict[str, Any]) -> str:
        found: str = body["metadata"]["annotations"][names.ANNOTATION_APPLIED_HASH]
        return found

    same = applied_hash(built())
    assert applied_hash(pod.build(session(), OPTIONS, '{"unlink":true}')) == same
    assert applied_hash(pod.build(session(), replace(OPTIONS, version="2"), "{}")) == same
    assert applied_hash(built({"suspend": True, "deletionPolicy": "Keep", "pairing": {"attempts": 9}})) == same
    assert applied_hash(built({"proxy": {"url": "http://p:1"}})) != same
    assert applied_hash(pod.build(session(), replace(OPTIONS, session_image="example/session:2"), "{}")) != same
