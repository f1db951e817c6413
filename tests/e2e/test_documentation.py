"""The commands of the documentation, copied as they stand, in the order of their page, with a phone that scans.

Sessions here need a way to the simulator; an admission policy adds it, so that the pages need not speak of it.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster import binaries
from tests.cluster.paths import CHECKOUT
from tests.documentation.shell import Shell
from tests.documentation.shell_blocks import CLUSTER, blocks, files, pages
from tests.scenario import PROXY_URL, TRUST, Scenario, has_condition
from tests.target import Target
from tests.waiting import eventually
from whatsapp_operator.api import names

SESSION = "support"
PHONE = "+15551230001"
BEGINS = f"apply -f {SESSION}.yaml"
# Those that make the session themselves come last: the others share one.
PAGES = sorted(
    (page for page in pages() if blocks(page, by=CLUSTER)), key=lambda page: BEGINS in blocks(page, by=CLUSTER)[0].text
)


WAY_TO_THE_SIMULATOR = f"""
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {{name: NAMESPACE}}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: NAMESPACE}}}}
    resourceRules:
    - {{apiGroups: [{names.GROUP}], apiVersions: ["*"], resources: [{names.PLURAL}], operations: [CREATE, UPDATE]}}
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >-
        Object{{spec: Object.spec{{caBundle: Object.spec.caBundle{{
        configMapRef: Object.spec.caBundle.configMapRef{{name: "{TRUST}", key: "ca.crt"}}}}}}}}
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >-
        has(object.spec.proxy) ? Object{{}} :
        Object{{spec: Object.spec{{proxy: Object.spec.proxy{{url: "{PROXY_URL}"}}}}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {{name: NAMESPACE}}
spec: {{policyName: NAMESPACE}}
"""


@pytest.fixture(scope="module")
def environment(
    target: Target, scenario: Scenario, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """What a reader has: kubectl, and a context with a namespace for sessions."""
    kubeconfig = tmp_path_factory.mktemp("kubeconfig") / "config"
    view = yaml.safe_load(target.kubectl.run("config", "view", "--raw", "--minify", "--flatten"))
    view["contexts"][0]["context"]["namespace"] = scenario.namespace
    kubeconfig.write_text(yaml.safe_dump(view))
    policy = WAY_TO_THE_SIMULATOR.replace("NAMESPACE", scenario.namespace)
    target.kubectl.run("apply", "--server-side", "--filename=-", stdin=policy)
    path = f"{target.kubectl.program.parent}:{binaries.ensure('helm')}:{os.environ['PATH']}"
    yield {"KUBECONFIG": str(kubeconfig), "PATH": path, "PROXY_URL": PROXY_URL}
    target.kubectl.run("delete", "--filename=-", stdin=policy)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page: str, scenario: Scenario, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "charts").symlink_to(CHECKOUT / "charts")
    for name, content in files(page).items():
        (tmp_path / name).write_text(content)
    shell, commands = Shell(tmp_path, environment), blocks(page, by=CLUSTER)
    if BEGINS in commands[0].text:
        scenario.delete_if_there(SESSION)
    else:
        connected(scenario)
    for block in commands:
        shell.run(block)
        if block.then:
            action, name = block.then
            ANSWERS[action](scenario, name)


def connected(scenario: Scenario) -> None:
    """The session is there, and connected."""
    if not scenario.exists(SESSION):
        scenario.apply(scenario.manifest(SESSION, phone=PHONE))
        scan(scenario, SESSION)
    with scenario.watching(SESSION) as watch:
        watch.wait(has_condition("Connected"), "Connected")


def scan(scenario: Scenario, name: str) -> None:
    """The phone scans the QR that is shown, or is going to be."""
    with scenario.watching(name) as watch:
        scenario.pair(name, PHONE, watch)


def enter(scenario: Scenario, name: str) -> None:
    scenario.simulator.add_phone(PHONE)
    code = eventually(lambda: scenario.secret(name).get(names.SECRET_KEY_CODE), "the Secret holds a code")
    with scenario.watching(name) as watch:
        scenario.simulator.enter_code(PHONE, code)
        watch.wait(has_condition("Connected"), "Connected")


ANSWERS: dict[str, Callable[[Scenario, str], None]] = {"scan": scan, "enter": enter}
