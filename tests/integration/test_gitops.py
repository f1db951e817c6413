"""What Argo CD, Flux and kstatus make of a session in each moment of its life, and what they and the operator write."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.apiserver import APPLY_PATCH, ROOT, ApiServer, conditions, owned_fields, session, sessions_path
from tests.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.documentation.shell import Shell
from tests.documentation.shell_blocks import blocks
from tests.integration.controller_stand_ins import (
    Replica,
    Stage,
    make_namespace,
    operators,
    paired,
    report,
    settled,
)
from tests.scenario import Kubectl
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import EXPLANATIONS, Phase, Reason

EXAMPLES = ROOT / "examples"
HEALTH_KEY = "resource.customizations.health.whatsapp-operator.io_WhatsAppSession"
PHONE = "+15551230901"


@pytest.fixture(scope="module")
def stage(api: ApiServer) -> Stage:
    return make_namespace(api, "gitops")


@pytest.fixture(scope="module")
def operator(api: ApiServer, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with operators(api, tmp_path_factory.mktemp("operator"), stage.namespace) as found:
        yield found.start_leader()


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    return Kubectl(binaries.ensure("kubernetes", ["kubectl"]) / "kubectl", str(control_plane.kubeconfig), None)


@pytest.fixture(scope="module")
def life(operator: Replica, stage: Stage) -> dict[str, dict[str, Any]]:
    """The session as the API server has it, by the moment."""
    name = "life"
    seen = {"created": stage.create(name, phone=PHONE, tenant=name)}

    def record(moment: str, phase: str, **known: str) -> None:
        def there() -> dict[str, Any] | None:
            found = stage.session(name)
            ready = conditions(found).get("Ready", {})
            told = found.get("status", {}).get("phase") == phase and known.items() <= ready.items()
            return found if told else None

        seen[moment] = eventually(there, f"{moment}: {phase} {known}", every=0.02, seconds=60)

    def reports(machine: str, reason: str, **changes: Any) -> None:
        stage.report(name, machine, reason, **changes)

    record("pending", "Pending")
    first = stage.start_pod(name)
    reports("Starting", "Starting")
    record("starting", "Starting")
    reports("ShowingQR", "QRAvailable")
    record("showing a QR", "WaitingForScan")
    reports("ShowingCode", "CodeAvailable")
    stage.condition(name, "QRReady", status="True", reason="CodeAvailable")
    record("showing a code", "WaitingForScan")
    reports("Authenticating", "Connecting")
    record("authenticating", "Authenticating")
    stage.report_connected(name, PHONE)
    record("connected", "Connected", status="True")
    reports("Reconnecting", "Reconnecting", **paired(PHONE))
    record("reconnecting", "Disconnected")
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    banned = report("", "Held", "TemporaryBan")["connection"] | {"nextRetryAt": later}
    reports("Held", "TemporaryBan", connection=banned, **paired(PHONE))
    record("banned for a while", "Disconnected", reason="TemporaryBan")
    reports("Held", "ClientOutdated", **paired(PHONE))
    record("outdated", "Stalled")
    stage.report_connected(name, PHONE)
    record("connected again", "Connected", status="True")

    settled(operator)
    operator.process.send_signal(signal.SIGSTOP)
    try:
        stage.patch(name, {"spec": {"pairing": {"attempts": 4}}})
        seen["changed"] = stage.session(name)
    finally:
        operator.process.send_signal(signal.SIGCONT)
    generation = seen["changed"]["metadata"]["generation"]
    eventually(lambda: stage.status(name)["observedGeneration"] == generation, "the change is seen", every=0.02)
    stage.annotate(name, "true", names.ANNOTATION_PAUSED)
    stage.patch(name, {"spec": {"pairing": {"attempts": 5}}})
    seen["paused"] = stage.session(name)
    stage.annotate(name, None, names.ANNOTATION_PAUSED)

    stage.patch(name, {"spec": {"suspend": True}})
    record("stopping", "Suspended", status="False")
    stage.end_pod(name)
    record("suspended", "Suspended", status="True")
    stage.patch(name, {"spec": {"suspend": False}})
    second = stage.start_pod(name, other_than=first)
    reports("Connecting", "Expired")
    record("credentials expired", "Expired", status="False")
    reports("Held", "Expired")
    stage.patch(name, {"spec": {"suspend": True}})
    stage.end_pod(name)
    record("expired in its sleep", "Expired", status="True")
    stage.patch(name, {"spec": {"suspend": False}})
    stage.start_pod(name, other_than=second)
    stage.report_connected(name, PHONE)
    record("relinked", "Connected", status="True")
    stage.delete(name)
    record("deleting", "Deleting")
    stage.unlink(name)
    stage.gone(name)
    return seen


@pytest.fixture(scope="module")
def verdicts(
    life: dict[str, dict[str, Any]], api: ApiServer, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, str]]]:
    """What each tool says, by moment and tool; the health check is the one that is in argocd-cm."""
    api.create("/api/v1/namespaces", {"metadata": {"name": "argocd"}})
    configuration = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": "argocd"}}
    api.apply(configuration | {"data": {"url": "https://argocd.example.com"}})
    path = f"{kubectl.program.parent}{os.pathsep}{os.environ['PATH']}"
    shell = Shell(ROOT, {"KUBECONFIG": kubectl.kubeconfig, "PATH": path})
    for block in blocks("docs/gitops.md", by="tests/integration/test_gitops.py"):
        shell.run(block)
    data = api.get("/api/v1/namespaces/argocd/configmaps/argocd-cm")["data"]
    assert data.keys() == {"url", HEALTH_KEY}
    script, kustomization = (tmp_path_factory.mktemp("checks") / kind for kind in ("health.lua", "kustomization.yaml"))
    script.write_text(data[HEALTH_KEY])
    documents = yaml.safe_load_all((EXAMPLES / "flux" / "sessions.yaml").read_text())
    kustomization.write_text(yaml.safe_dump(next(found for found in documents if found["kind"] == "Kustomization")))
    program = binaries.ensure("gitops") / "gitops-health"
    command = [str(program), "-lua", str(script), "-kustomization", str(kustomization)]
    lines = "\n".join(json.dumps(obj) for obj in life.values())
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(life, map(json.loads, done.stdout.splitlines()), strict=True))


class Moment(NamedTuple):
    phase: str | None
    argo: str
    flux: str
    kstatus: str


MOMENTS = {
    "created": Moment(None, "Progressing", "InProgress", "InProgress"),
    "pending": Moment("Pending", "Progressing", "InProgress", "InProgress"),
    "starting": Moment("Starting", "Progressing", "InProgress", "InProgress"),
    "showing a QR": Moment("WaitingForScan", "Suspended", "Current", "InProgress"),
    "showing a code": Moment("WaitingForScan", "Suspended", "Current", "InProgress"),
    "authenticating": Moment("Authenticating", "Progressing", "InProgress", "InProgress"),
    "connected": Moment("Connected", "Healthy", "Current", "Current"),
    "reconnecting": Moment("Disconnected", "Progressing", "InProgress", "InProgress"),
    "banned for a while": Moment("Disconnected", "Progressing", "InProgress", "InProgress"),
    "outdated": Moment("Stalled", "Degraded", "Failed", "Failed"),
    "connected again": Moment("Connected", "Healthy", "Current", "Current"),
    "changed": Moment("Connected", "Progressing", "InProgress", "InProgress"),
    "paused": Moment("Connected", "Suspended", "InProgress", "InProgress"),
    "stopping": Moment("Suspended", "Progressing", "InProgress", "InProgress"),
    "suspended": Moment("Suspended", "Suspended", "Current", "Current"),
    "credentials expired": Moment("Expired", "Progressing", "InProgress", "InProgress"),
    "expired in its sleep": Moment("Expired", "Suspended", "Current", "Current"),
    "relinked": Moment("Connected", "Healthy", "Current", "Current"),
    "deleting": Moment("Deleting", "Progressing", "InProgress", "Terminating"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_each_tool_says(
    life: dict[str, dict[str, Any]], verdicts: dict[str, dict[str, dict[str, str]]], moment: str
) -> None:
    said = verdicts[moment]
    phase = life[moment].get("status", {}).get("phase")
    assert Moment(phase, *(said[tool]["status"] for tool in ("argo", "flux", "kstatus"))) == MOMENTS[moment], said


def test_every_phase_was_seen(life: dict[str, dict[str, Any]]) -> None:
    assert life.keys() == MOMENTS.keys()
    assert {moment.phase for moment in MOMENTS.values()} - {None} == set(Phase)


def test_what_a_person_is_told(life: dict[str, dict[str, Any]], verdicts: dict[str, dict[str, dict[str, str]]]) -> None:
    degraded = verdicts["outdated"]["argo"]["message"]
    assert degraded == conditions(life["outdated"])["Stalled"]["message"]
    assert EXPLANATIONS[Reason.CLIENT_OUTDATED].remedy in degraded
    assert EXPLANATIONS[Reason.WAITING_FOR_SCAN].remedy in verdicts["showing a QR"]["argo"]["message"]
    assert all(said["argo"]["message"] for said in verdicts.values())


def test_flux_takes_the_helm_release(tmp_path: Path) -> None:
    program, release = binaries.ensure("gitops") / "gitops-health", EXAMPLES / "flux" / "operator.yaml"
    subprocess.run([program, "-helmrelease", release], check=True)
    misspelled = tmp_path / "operator.yaml"
    misspelled.write_text(release.read_text().replace("targetNamespace", "targetNamespaces"))
    refused = subprocess.run([program, "-helmrelease", misspelled], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "targetNamespaces" in refused.stderr


@dataclass
class GitOps:
    """Applies what Git holds where the live object differs, and deletes what it does not: self-heal and pruning."""

    stage: Stage
    git: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: int = 0

    def commit(self, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        body = session(name, **{"phone": PHONE, "tenant": name} | spec)
        body["metadata"] |= {"annotations": annotations} if annotations else {}
        self.git[name] = body

    def sync(self) -> None:
        """As with server-side diff and apply in Argo CD; what others have set is taken back."""
        for name, body in self.git.items():
            before = self.stage.find_session(name)
            if before is None or settings(self._apply(name, body, "force=true&dryRun=All")) != settings(before):
                self._apply(name, body, "force=true")
                self.writes += 1
        for live in self.stage.api.get(sessions_path(self.stage.namespace))["items"]:
            name, metadata = live["metadata"]["name"], live["metadata"]
            if name not in self.git and "deletionTimestamp" not in metadata:
                self.stage.delete(name, propagation="Foreground")
                self.writes += 1

    def apply(self, name: str) -> dict[str, Any]:
        """Raises ApiError where another manager has set one of the fields to something else."""
        return self._apply(name, self.git[name], "force=false")

    def _apply(self, name: str, body: dict[str, Any], options: str) -> dict[str, Any]:
        path = f"{sessions_path(self.stage.namespace, name)}?fieldManager=gitops&fieldValidation=Strict&{options}"
        applied: dict[str, Any] = self.stage.api.request("PATCH", path, body, APPLY_PATCH)
        return applied


def settings(live: dict[str, Any]) -> dict[str, Any]:
    """What people and Git decide on."""
    metadata = live["metadata"]
    return {"spec": live["spec"], **{key: metadata.get(key) for key in ("labels", "annotations")}}


def check_owners(live: dict[str, Any]) -> None:
    """The operator owns nothing of what others decide on, and not the pod's report; Git has kept its own."""
    own = owned_fields(live, names.FIELD_MANAGER_OPERATOR)
    assert {path for path in own if not path.startswith("status.")} == {"metadata.finalizers"}
    assert "status.session" not in own
    assert owned_fields(live, "gitops") == {"spec.tenant", "spec.phone"}


@pytest.fixture
def gitops(operator: Replica, stage: Stage) -> Iterator[GitOps]:
    """Takes away at the end what is left: each test may use the same phone, and prunes what is not its own."""
    found = GitOps(stage)
    yield found
    for live in stage.api.get(sessions_path(stage.namespace))["items"]:
        name = live["metadata"]["name"]
        stage.delete(name)
        stage.unlink(name)
        stage.gone(name)


def test_appliers_and_the_operator_never_fight(
    operator: Replica, stage: Stage, gitops: GitOps, kubectl: Kubectl, tmp_path: Path
) -> None:
    gitops.commit("calm")
    gitops.sync()

    def nothing_changes() -> None:
        writes, version = settled(operator), stage.session("calm")["metadata"]["resourceVersion"]
        for _ in range(20):
            assert gitops.apply("calm")["metadata"]["resourceVersion"] == version
        gitops.sync()
        # Time for an answer of the operator's, if it had one.
        assert settled(operator, seconds=0.5) == writes
        found = stage.session("calm")
        assert found["metadata"]["resourceVersion"] == version
        check_owners(found)

    stage.start_pod("calm")
    stage.report("calm", "ShowingQR", "QRAvailable")
    stage.condition("calm", "QRReady", status="True")
    nothing_changes()
    stage.report_connected("calm", PHONE)
    stage.condition("calm", "Ready", status="True")
    manifest = tmp_path / "calm.json"
    manifest.write_text(json.dumps(gitops.git["calm"]))
    arguments = (f"--namespace={stage.namespace}", f"--filename={manifest}")
    # The first one adds the annotation with the manifest.
    kubectl.run("apply", *arguments)
    assert kubectl.run("apply", *arguments).strip() == f"whatsappsession.{names.GROUP}/calm unchanged"
    for how in ((), ("--server-side", "--field-manager=gitops")):
        assert kubectl.run("diff", *how, *arguments) == ""
    nothing_changes()
    assert owned_fields(stage.session("calm"), "kubectl-client-side-apply") == {"metadata.annotations"}
    assert gitops.writes == 1


def test_a_relink_token_in_git_relinks_once(operator: Replica, stage: Stage, gitops: GitOps) -> None:
    done = operator.metric("whatsapp_relinks_total")
    gitops.commit("again", pairing={"attempts": 4})
    gitops.sync()
    stage.connect("again", PHONE)

    def mended() -> None:
        """Somebody changes by hand what Git decides on."""
        stage.patch("again", {"spec": {"pairing": {"attempts": 9}}})
        gitops.sync()
        assert stage.session("again")["spec"]["pairing"]["attempts"] == 4

    with stage.api.watch(sessions_path(stage.namespace, "again")) as watch:
        gitops.commit("again", {names.ANNOTATION_FORCE_RELINK: "2026-11-21"}, pairing={"attempts": 4})
        gitops.sync()
        gitops.sync()
        request = eventually(lambda: stage.desired("again")["relinkRequestID"], "the pod is told", every=0.02)
        mended()
        stage.report("again", "ShowingQR", "QRAvailable", relinkRequestID=request, relinkOutcome="Completed")
        stage.condition("again", "QRReady", status="True")
        gitops.sync()
        stage.report_connected("again", PHONE, relinkRequestID=request, relinkOutcome="Completed")
        stage.condition("again", "Ready", status="True", reason="Connected")
        gitops.sync()
        for _ in range(5):
            gitops.apply("again")
        eventually(lambda: operator.metric("whatsapp_relinks_total") > done, "it is counted", every=0.02)
        settled(operator)
        mended()
        settled(operator)
        requests = {(seen.status.get("relink") or {}).get("requestID") for seen in watch.events}
    assert requests == {None, request}
    assert operator.metric("whatsapp_relinks_total") == done + 1
    assert gitops.writes == 4, "created, given the token, mended twice"


def test_what_git_leaves_out_may_be_set_by_hand(operator: Replica, stage: Stage, gitops: GitOps) -> None:
    gitops.commit("byhand")
    gitops.sync()
    stage.connect("byhand", PHONE)
    stage.patch("byhand", {"spec": {"pairing": {"attempts": 9}}})
    stage.annotate("byhand", "now")
    request = eventually(lambda: stage.desired("byhand")["relinkRequestID"], "the pod is told", every=0.02)
    gitops.sync()
    stage.report_connected("byhand", PHONE, relinkRequestID=request, relinkOutcome="Completed")
    eventually(lambda: stage.status("byhand")["relink"].get("outcome") == "Completed", "it is done", every=0.02)
    gitops.sync()
    found = stage.session("byhand")
    assert found["metadata"]["annotations"] == {names.ANNOTATION_FORCE_RELINK: "now"}
    assert found["spec"]["pairing"]["attempts"] == 9
    assert gitops.writes == 1


def test_pruning_unlinks(operator: Replica, stage: Stage, gitops: GitOps) -> None:
    gitops.commit("pruned")
    gitops.sync()
    stage.connect("pruned", PHONE)
    del gitops.git["pruned"]
    gitops.sync()
    eventually(lambda: stage.desired("pruned")["unlink"], "the pod is told to unlink", every=0.02)
    present: Callable[[str], Any] = stage.api.get
    for path in (stage.pod_path("pruned"), stage.volume_path("pruned")):
        assert "deletionTimestamp" not in present(path)["metadata"]
    gitops.sync()
    assert gitops.writes == 2
    stage.unlink("pruned")
    stage.gone("pruned")
