"""The real API server takes all that the chart renders, and real Helm installs, upgrades and removes it."""

import base64
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.render import CHART, CLAIM_KEY, NAMESPACE, REGISTRY, RELEASE, HelmError, helm, manifest, merged, render
from tests.apiserver import APPLY_PATCH, ROOT, ApiError, ApiServer, secrets_path, session, sessions_path
from tests.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.control_plane import control_plane as run_control_plane
from tests.documentation.shell import Shell
from tests.documentation.shell_blocks import blocks
from tests.scenario import Kubectl
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.api.names import ADMISSION_POLICIES

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = f"{DEFINITIONS}/{names.PLURAL}.{names.GROUP}"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/whatsapp-operator"
# The definitions of the Prometheus operator, as the module was published.
PROMETHEUS_OPERATOR = (
    "github.com/prometheus-operator/prometheus-operator",
    "v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
)
MONITORING = ("servicemonitors", "podmonitors", "prometheusrules")
SERVED = "chart-sessions"

EVERYTHING: dict[str, Any] = {
    "commonLabels": {"team.example/name": "chat"},
    "imagePullSecrets": [{"name": "pull"}],
    "watchNamespaces": [SERVED, NAMESPACE],
    "namespaces": {"create": True},
    "claimScope": "Cluster",
    "serviceAccount": {"annotations": {"team.example/a": "b"}},
    "operator": {
        "image": {"digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"},
        "replicas": 3,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}],
        "affinity": {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
                ]
            }
        },
        "priorityClassName": "system-cluster-critical",
        "podAnnotations": {"team.example/a": "b"},
        "podLabels": {"team.example/c": "d"},
    },
    "session": {"maxUnavailable": "10%", "allow": {"images": ["a/b:1"], "tolerationKeys": ["gpu"]}},
    "networkPolicy": {
        "enabled": True,
        "sessionNamespaces": ["default"],
        "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"]},
        "dns": {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]},
        "session": {"extraEgress": [{"to": [{"podSelector": {}}], "ports": [{"port": 1080, "protocol": "TCP"}]}]},
    },
    "metrics": {part: {"enabled": True} for part in ("serviceMonitor", "podMonitor", "prometheusRule", "dashboard")},
}
MATRIX = {
    "default": {},
    "everything": EVERYTHING,
    "namespaced": {"watchNamespaces": [SERVED], "operator": {"replicas": 1}},
    "open network": {"networkPolicy": {"enabled": True, "metricsFrom": []}},
}


class Release:
    """The chart, installed by Helm into the cluster of the test."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._environment = {"KUBECONFIG": str(control_plane.kubeconfig)}

    def run(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        told = ("--values=-",) if values is not None else ()
        return helm(
            *arguments, f"--namespace={NAMESPACE}", *told, stdin=json.dumps(values or {}), environment=self._environment
        )

    def upgrade(self, values: dict[str, Any], *options: str, chart: Path = CHART) -> str:
        images = {name: {"image": {"repository": f"{REGISTRY}/{name}"}} for name in ("operator", "session")}
        return self.run("upgrade", "--install", RELEASE, str(chart), *options, values=merged(images, values))


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    """One of its own: the other modules stand on what is removed here, and their phone claims forbid another key."""
    with run_control_plane() as running:
        yield running


@pytest.fixture
def release(control_plane: ControlPlane, api: ApiServer) -> Iterator[Release]:
    found = Release(control_plane)
    yield found
    found.run("uninstall", RELEASE, "--ignore-not-found")
    api.install()


def test_monitors_without_their_definitions_are_refused_with_the_remedy(api: ApiServer, release: Release) -> None:
    """The first of the module: the definitions come with the next one."""
    assert api.find("/apis/monitoring.coreos.com/v1") is None
    with pytest.raises(HelmError, match=r"metrics\.serviceMonitor\.enabled: this cluster has no ServiceMonitor"):
        release.upgrade({"metrics": {"serviceMonitor": {"enabled": True}}})


@pytest.fixture(scope="module")
def monitoring(api: ApiServer) -> Iterator[None]:
    folder = binaries.module_files(*PROMETHEUS_OPERATOR) / "example/prometheus-operator-crd"
    paths = [f"{DEFINITIONS}/{plural}.monitoring.coreos.com" for plural in MONITORING]
    for plural in MONITORING:
        api.apply(yaml.load((folder / f"monitoring.coreos.com_{plural}.yaml").read_text(), yaml.CSafeLoader))

    def served() -> bool:
        found = {
            resource["name"] for resource in (api.find("/apis/monitoring.coreos.com/v1") or {}).get("resources", ())
        }
        return found >= set(MONITORING)

    eventually(served, "the definitions are served")
    yield
    for path in paths:
        api.delete(path)


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX.keys())
@pytest.mark.usefixtures("monitoring")
def test_the_api_server_takes_every_object(api: ApiServer, values: dict[str, Any]) -> None:
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SERVED}})
    refused = {}
    for found in render(values):
        query = "fieldManager=chart&force=true&dryRun=All&fieldValidation=Strict"
        try:
            api.request("PATCH", f"{api.path_of(found)}?{query}", found, APPLY_PATCH)
        except ApiError as error:
            refused[found["kind"], found["metadata"]["name"]] = error.message
    assert refused == {}


def claim_key(api: ApiServer) -> bytes:
    return base64.b64decode(api.get(secrets_path(NAMESPACE, CLAIM_KEY))["data"]["key"])


def session_image(api: ApiServer) -> str:
    variables = api.get(DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["env"]
    return next(str(variable["value"]) for variable in variables if variable["name"] == "SESSION_IMAGE")


def described(api: ApiServer) -> bool:
    """Whether the definition in the cluster has a field that the older chart does not know."""
    spec = api.get(DEFINITION)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    return "suspend" in spec


@pytest.fixture
def older_chart(tmp_path: Path) -> Path:
    """The chart as it was before a field came."""
    chart = tmp_path / "whatsapp-operator"
    shutil.copytree(CHART, chart)
    path = chart / f"files/{names.GROUP}_{names.PLURAL}.yaml"
    definition = yaml.safe_load(path.read_text())
    del definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["suspend"]
    path.write_text(yaml.safe_dump(definition))
    return chart


def test_a_release_from_its_installation_to_its_return(api: ApiServer, release: Release, older_chart: Path) -> None:
    """What another hand has made is taken over; definition, sessions and claim key outlive everything.

    A key that is lost is not replaced while claims are named after it.
    """
    release.upgrade({}, "--take-ownership", "--force-conflicts", chart=older_chart)
    key = claim_key(api)
    assert len(key) == 32
    assert not described(api)
    api.create(sessions_path("default"), session("kept"))

    said = release.upgrade({"session": {"image": {"tag": "2"}}})
    assert f"kubectl --namespace {NAMESPACE} rollout status deployment/whatsapp-operator" in said
    assert described(api), "an upgrade of the release upgrades the definition"
    assert (session_image(api), claim_key(api)) == (f"{REGISTRY}/session:2", key)
    release.run("rollback", RELEASE, "1")
    assert (session_image(api), claim_key(api)) == (f"{REGISTRY}/session:0.1.0", key)

    objects = render()
    release.run("uninstall", RELEASE)
    left = Counter(found["kind"] for found in objects if api.find(api.path_of(found)) is not None)
    assert left == {
        "CustomResourceDefinition": 1,
        "ValidatingAdmissionPolicy": len(ADMISSION_POLICIES),
        "ValidatingAdmissionPolicyBinding": len(ADMISSION_POLICIES),
    }
    assert claim_key(api) == key
    assert api.find(sessions_path("default", "kept")) is not None

    release.upgrade({})
    assert claim_key(api) == key
    assert api.find(sessions_path("default", "kept")) is not None
    api.delete(sessions_path("default", "kept"))

    claims = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
    api.create(claims, {"metadata": {"name": "phone-0123"}, "spec": {"holderIdentity": "default/gone"}})
    api.delete(secrets_path(NAMESPACE, CLAIM_KEY))
    with pytest.raises(
        HelmError, match=f"the Secret {CLAIM_KEY} in namespace {NAMESPACE} is not there, but phone claim"
    ):
        release.upgrade({})
    api.delete(f"{claims}/phone-0123")
    release.upgrade({})
    assert claim_key(api) != key


def test_the_commands_of_the_page(control_plane: ControlPlane, api: ApiServer, release: Release) -> None:
    release.upgrade({}, "--take-ownership", "--force-conflicts")
    api.delete(secrets_path(NAMESPACE, CLAIM_KEY))
    programs = (control_plane.kubectl.parent, binaries.ensure("helm"))
    path = os.pathsep.join([*map(str, programs), os.environ["PATH"]])
    shell = Shell(ROOT, {"KUBECONFIG": str(control_plane.kubeconfig), "PATH": path})
    label, key, by_kubectl, uninstall = blocks("docs/install.md", by="tests/integration/test_chart.py")
    shell.run(label)
    shell.run(key)
    assert len(claim_key(api)) == 32
    shell.run(uninstall)
    assert api.find(DEPLOYMENT) is None
    shell.run(by_kubectl)
    assert session_image(api).startswith("REGISTRY/session:")
    assert api.get(DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["image"].startswith("REGISTRY/operator:")
    api.delete(DEPLOYMENT)


def test_the_manifest_is_installed_by_kubectl(control_plane: ControlPlane, api: ApiServer) -> None:
    kubectl = Kubectl(control_plane.kubectl, str(control_plane.kubeconfig), None)
    apply = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    said = kubectl.run(*apply, stdin=manifest())
    assert len(said.splitlines()) == 1 + len(render())
    assert api.get(DEPLOYMENT)["spec"]["replicas"] == 2
    assert kubectl.run(*apply, stdin=manifest()) == said
    api.delete(DEPLOYMENT)
