"""The examples, applied as docs/gitops.md says: the sessions live, those for Argo CD and Flux are what these take."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.apiserver import ROOT, ApiServer, Watch, owned_fields, session, sessions_path
from tests.cluster import binaries
from tests.documentation.shell import Shell
from tests.documentation.shell_blocks import blocks
from tests.e2e.test_documentation import WAY_TO_THE_SIMULATOR
from tests.scenario import Scenario, has_condition
from tests.target import Target
from tests.waiting import eventually
from whatsapp_operator.api import names

Phones = Callable[[], str]
PAGE: Final = "docs/gitops.md"
EXAMPLES: Final = ROOT / "examples"
# The values that name images, in the order in which the operator's container names them.
IMAGES: Final = ("operator", "session")

# The definitions come with the modules of the programs: module, version and checksum; file of each definition.
ARGO_CD: Final = ("github.com/argoproj/argo-cd/v3", "v3.5.7", "h1:Xm1BF+I5OgDKUG3SDK49vn2/Y5AMyaNVko+/JT08gj0=")
KUSTOMIZE: Final = (
    "github.com/fluxcd/kustomize-controller",
    "v1.9.6",
    "h1:XB+G3A0mky0j5uVHZWv4oSlS2RvZBoNIUhstIvY0JKE=",
)
SOURCE: Final = ("github.com/fluxcd/source-controller", "v1.9.6", "h1:nG534/bI6nVpyHra7ONAk6xDB3xPsVT+EOLHZHXPrrc=")
DEFINITIONS: Final = {
    "applications.argoproj.io": (ARGO_CD, "manifests/crds/application-crd.yaml"),
    "applicationsets.argoproj.io": (ARGO_CD, "manifests/crds/applicationset-crd.yaml"),
    "kustomizations.kustomize.toolkit.fluxcd.io": (
        KUSTOMIZE,
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
    "gitrepositories.source.toolkit.fluxcd.io": (
        SOURCE,
        "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml",
    ),
}


@pytest.fixture
def definitions(target: Target) -> Iterator[None]:
    """Argo CD and Flux as the API server knows them, until the end of the test."""
    if any(definition(target.api, name) for name in DEFINITIONS):
        pytest.skip("Argo CD or Flux is installed here")
    files = [f"--filename={binaries.module_files(*module) / path}" for module, path in DEFINITIONS.values()]
    try:
        target.kubectl.run("apply", "--server-side", *files)
        for name in DEFINITIONS:
            eventually(partial(established, target.api, name), f"{name} is served", seconds=60)
        yield
    finally:
        target.kubectl.run("delete", "--wait=false", "--ignore-not-found", "customresourcedefinition", *DEFINITIONS)


def definition(api: ApiServer, name: str) -> Any:
    return api.find(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")


def established(api: ApiServer, name: str) -> bool:
    told = definition(api, name)["status"].get("conditions") or []
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in told)


@pytest.mark.usefixtures("definitions")
def test_argo_cd_and_flux_take_the_examples(target: Target, scenario: Scenario) -> None:
    shown = (EXAMPLES / "argocd" / "applicationset.yaml", EXAMPLES / "argocd" / "operator.yaml")
    for path in (*shown, EXAMPLES / "flux" / "sessions.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            document["metadata"]["namespace"] = scenario.namespace
            apply = ("apply", "--server-side", "--validate=strict", "--filename=-", "--output=json")
            live = json.loads(target.kubectl.run(*apply, stdin=json.dumps(document)))
            assert live["kind"] == document["kind"]
            assert live["metadata"]["uid"]


@pytest.mark.parametrize("tool", ["argocd", "flux"])
def test_the_chart_takes_the_values(tool: str) -> None:
    shown = yaml.safe_load((EXAMPLES / tool / "operator.yaml").read_text())["spec"]
    values = shown["values"] if tool == "flux" else shown["source"]["helm"]["valuesObject"]
    chart = shown["chart"]["spec"]["chart"] if tool == "flux" else shown["source"]["path"]
    command = [binaries.ensure("helm") / "helm", "template", shown.get("releaseName", "whatsapp-operator"), chart]
    done = subprocess.run(
        [*command, "--values=-"], cwd=ROOT, input=json.dumps(values), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rendered = [document for document in yaml.safe_load_all(done.stdout) if document]
    (operator,) = (found for found in rendered if found["kind"] == "Deployment")
    pod = operator["spec"]["template"]["spec"]
    assert values["claimKey"]["existingSecret"] in json.dumps(pod["volumes"])
    images = [pod["containers"][0]["image"], pod["containers"][0]["env"][0]["value"]]
    assert all(image.startswith(values[key]["image"]["repository"]) for image, key in zip(images, IMAGES, strict=True))
    assert "Secret" not in {found["kind"] for found in rendered}


@pytest.fixture
def copied(scenario: Scenario, new_phone: Phones, tmp_path: Path) -> Path:
    """A folder with the examples, with namespaces and phones of this run's own."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    for path in tmp_path.rglob("*.yaml"):
        text = re.sub(r"\bwhatsapp-(?=acme|globex)", f"{scenario.namespace}-", path.read_text())
        path.write_text(re.sub(r"\+1555\d{7}", lambda _: new_phone(), text))
    return tmp_path


@pytest.fixture
def places(target: Target, scenario: Scenario, ended: list[Scenario]) -> Iterator[dict[str, Scenario]]:
    """Where the sessions of the examples live, by name; they are given the way to the simulator there."""
    acme, globex = (scenario.beside(f"{scenario.namespace}-{tenant}") for tenant in ("acme", "globex"))
    for place in (acme, globex):
        place.prepare()
    policies = "---".join(WAY_TO_THE_SIMULATOR.replace("NAMESPACE", place.namespace) for place in (scenario, acme))
    target.kubectl.run("apply", "--server-side", "--filename=-", stdin=policies)
    for place in (scenario, acme):
        eventually(partial(has_way, place), "sessions are given a way to the simulator", seconds=60)
    yield {"front-desk": scenario, "support": acme, "sales": acme, "orders": globex}
    target.kubectl.run("delete", "--filename=-", stdin=policies)
    for place in (acme, globex):
        place.remove(wait=False)
        ended.append(place)


def has_way(place: Scenario) -> bool:
    tried = place.api.create(f"{sessions_path(place.namespace)}?dryRun=All", session("probe"))
    return "proxy" in tried["spec"]


def test_sessions_live_by_what_git_holds(target: Target, places: dict[str, Scenario], copied: Path) -> None:
    kubeconfig = copied / "kubeconfig"
    view = yaml.safe_load(target.kubectl.run("config", "view", "--raw", "--minify", "--flatten"))
    view["contexts"][0]["context"]["namespace"] = places["front-desk"].namespace
    kubeconfig.write_text(yaml.safe_dump(view))
    path = f"{target.kubectl.program.parent}{os.pathsep}{os.environ['PATH']}"
    shell = Shell(copied, {"KUBECONFIG": str(kubeconfig), "PATH": path})
    linked = ("front-desk", "support", "sales")
    with ExitStack() as stack:
        watches = {name: stack.enter_context(place.watching(name)) for name, place in places.items()}
        for block in blocks(PAGE, by="tests/e2e/test_examples.py"):
            shell.run(block)
        phones = {name: place.get(name)["spec"]["phone"] for name, place in places.items()}
        watches["orders"].wait(has_condition("Ready", reason="Suspended"), "Suspended")
        for name in linked:
            places[name].pair(name, phones[name], watches[name])
        session_in_git = yaml.safe_load((copied / "examples" / "session.yaml").read_text())
        relinked_once(places["front-desk"], session_in_git, watches["front-desk"])
    for name, place in places.items():
        live = place.get(name)
        assert "spec.tenant" in owned_fields(live, "kubectl")
        assert owned_fields(live, names.FIELD_MANAGER_SESSION) == ({"status.session"} if name in linked else set())
        own = owned_fields(live, names.FIELD_MANAGER_OPERATOR)
        assert {path for path in own if not path.startswith("status.")} <= {"metadata.finalizers"}
        # As Argo CD prunes.
        place.delete(name, propagation="Foreground")
    for name, place in places.items():
        place.gone(name)
        assert name not in linked or place.simulator.devices(phones[name]) == []


def relinked_once(place: Scenario, manifest: dict[str, Any], watch: Watch) -> None:
    """A token in Git is applied again and again, before, while and after the phone is linked anew."""
    manifest["metadata"]["annotations"] = {names.ANNOTATION_FORCE_RELINK: "2026-11-21"}
    name, phone, began = manifest["metadata"]["name"], manifest["spec"]["phone"], time.monotonic()

    def apply() -> None:
        arguments = ("apply", "--server-side", f"--namespace={place.namespace}", "--filename=-")
        place.kubectl.run(*arguments, stdin=json.dumps(manifest))

    apply()
    apply()
    watch.wait(has_condition("QRReady"), "QRReady", since=began)
    apply()
    place.simulator.scan(phone, place.qr(name))
    scanned = time.monotonic()
    watch.wait(has_condition("Connected"), "Connected", since=scanned)
    apply()
    eventually(lambda: place.get(name)["status"]["relink"].get("outcome") == "Completed", "the relink is done")
    assert len({(seen.status.get("relink") or {}).get("requestID") for seen in watch.events} - {None}) == 1
    assert len(place.simulator.devices(phone)) == 1
