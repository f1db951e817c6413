"""The plugin in a real terminal: what a person does with it, and what a person sees."""

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.apiserver import ROOT
from tests.documentation.shell import Shell
from tests.documentation.shell_blocks import blocks
from tests.scenario import PROXY_URL, TRUST, Scenario, has_condition
from tests.target import Target
from tests.terminal import Terminal
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.cli.exits import Exit

EGRESS = ("--tenant", "acme", "--proxy", PROXY_URL, "--ca-configmap", f"{TRUST}/ca.crt")
VIEWER = "viewer"


class Person:
    """Somebody with a kubeconfig, who has the plugin installed and types `kubectl wa`."""

    def __init__(self, programs: Path, kubeconfig: Path) -> None:
        self.environment = {"KUBECONFIG": str(kubeconfig), "PATH": f"{programs}:{os.environ['PATH']}"}

    def terminal(self, *arguments: str, columns: int = 80, lines: int = 42) -> Terminal:
        command = ["kubectl", "wa", *arguments]
        return Terminal(command, columns=columns, lines=lines, environment=self.environment)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """With its output in no terminal."""
        environment = {**os.environ, **self.environment}
        command = ["kubectl", "wa", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture(scope="module")
def programs(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with kubectl and the entry points of the plugin, as pip makes them."""
    directory = tmp_path_factory.mktemp("bin")
    (directory / "kubectl").symlink_to(target.kubectl.program)
    for program, function in (("kubectl-wa", "main"), ("kubectl_complete-wa", "complete")):
        file = directory / program
        file.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT / 'operator')!r})\n"
            f"from whatsapp_operator.cli.__main__ import {function}\n{function}()\n"
        )
        file.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def admin(target: Target, scenario: Scenario, programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Person:
    directory = tmp_path_factory.mktemp("admin")
    config = json.loads(target.kubectl.run("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    config["contexts"][0]["context"]["namespace"] = scenario.namespace
    (directory / "config").write_text(json.dumps(config))
    return Person(programs, directory / "config")


@pytest.fixture(scope="module")
def viewer(target: Target, scenario: Scenario, programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """Somebody who has the aggregated role view in the namespace, and nothing else."""
    api, namespace = target.api, scenario.namespace
    about = {"name": VIEWER, "namespace": namespace}
    api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about})
    group = "rbac.authorization.k8s.io"
    api.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": about,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", **about}],
        }
    )
    directory = tmp_path_factory.mktemp("viewer")
    (directory / "ca.crt").write_bytes(api.ca)
    config = {
        "clusters": [{"name": "c", "cluster": {"server": api.url, "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"token": api.account_token(namespace, VIEWER)}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "current-context": "x",
    }
    (directory / "config").write_text(yaml.safe_dump(config))
    return Person(programs, directory / "config")


@pytest.fixture(scope="module")
def phone(scenario: Scenario, new_phone: Callable[[], str]) -> str:
    number = new_phone()
    scenario.simulator.add_phone(number)
    return number


@pytest.fixture(scope="module")
def seen() -> list[str]:
    """The credentials that were on a screen."""
    return []


def test_a_phone_is_linked_from_a_terminal(
    admin: Person, viewer: Person, target: Target, scenario: Scenario, phone: str, seen: list[str]
) -> None:
    with admin.terminal("link", "support", "--phone", phone, *EGRESS) as screen:
        screen.wait_for_qr()
        keep(screen, "link-80")
        eventually(lambda: screen.qr() == scenario.qr("support"), "the QR of the Secret is on the screen")
        assert max(map(len, screen.lines)) <= 80

        # Somebody who may only view sees everything but the QR, and is told what that takes.
        assert "WaitingForScan" in viewer.run("list").stdout
        with viewer.terminal("qr", "support", columns=250) as refused:
            assert refused.ended() == Exit.NOT_ALLOWED
            assert f"get on secrets {names.owned_name('support')} in namespace {scenario.namespace}" in refused.text
        give(target, refused.text)
        before = scenario.qr("support")
        with viewer.terminal("qr", "support") as allowed:
            assert allowed.ended() == Exit.OK
            # It may have changed in the meantime.
            assert allowed.qr() in (before, scenario.qr("support"))

        shown = screen.wait_for_qr()
        seen.append(shown)
        scenario.simulator.scan(phone, shown)
        assert screen.ended() == Exit.OK
        assert screen.text.endswith(f"Connected: support is linked to {phone}.")
        assert screen.qr() is None
    assert viewer.run("status", "support").stdout.startswith("support  Connected")


def give(target: Target, told: str) -> None:
    """Do as an administrator what the plugin says that one can do."""
    commands = [shlex.split(line) for line in told.splitlines() if line.startswith("  kubectl ")]
    assert len(commands) == 2, told
    for _, *arguments in commands:
        target.kubectl.run(*arguments)


def test_a_linked_session_is_linked_anew_beside_what_is_said_about_it(
    admin: Person, scenario: Scenario, phone: str, seen: list[str]
) -> None:
    [before] = scenario.simulator.devices(phone)
    with admin.terminal("link", "support", columns=200, lines=50) as screen:
        screen.wait_for("Relink? [y/N]")
        screen.type("y\n")
        shown = screen.wait_for_qr()
        keep(screen, "link-200")
        [title] = [line for line in screen.lines if "support  tenant acme" in line]
        assert title.index("support") > 60, "what is said stands beside the QR"
        seen.append(shown)
        scenario.simulator.scan(phone, shown)
        assert screen.ended() == Exit.OK
    [after] = scenario.simulator.devices(phone)
    assert after["id"] != before["id"]


def test_a_code_is_read_off_the_terminal(
    admin: Person, scenario: Scenario, new_phone: Callable[[], str], seen: list[str]
) -> None:
    number = new_phone()
    scenario.simulator.add_phone(number)
    with admin.terminal("link", "desk", "--phone", number, "--method", "code", *EGRESS) as screen:
        screen.wait_for("Pairing code for")
        keep(screen, "code-80")
        found = re.search(r"^    ((?:\w ){4}- (?:\w ?){4})$", screen.text, re.MULTILINE)
        assert found is not None, screen.text
        shown = found[1].replace(" ", "")
        with admin.terminal("code", "desk") as alone:
            assert alone.ended() == Exit.OK
            assert alone.lines[0] == shown
        seen.append(shown)
        scenario.simulator.enter_code(number, shown)
        assert screen.ended() == Exit.OK
        assert f"desk is linked to {number}." in screen.text


def test_doctor_names_the_broken_link(admin: Person, scenario: Scenario) -> None:
    with scenario.watching("stuck") as watch:
        scenario.apply(scenario.manifest("stuck", storage={"storageClassName": "no-such-class"}))
        watch.wait(has_condition("PodReady", "False"), "the pod is not ready")
    found = admin.run("doctor", "stuck", "-o", "json")
    told = json.loads(found.stdout)
    assert (found.returncode, told["broken"]) == (Exit.PERSON_MUST_ACT, "volume"), told
    [volume] = [check for check in told["checks"] if check["name"] == "volume"]
    assert "no-such-class" in volume["found"]
    assert "spec.storage.storageClassName" in volume["remedy"]


def test_kubectl_completes_the_names_of_sessions(admin: Person) -> None:
    environment = {**os.environ, **admin.environment}
    command = ["kubectl", "__complete", "wa", "status", "sup"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.splitlines()[:2] == ["support\tConnected", ":4"]


@pytest.fixture(scope="module")
def page(admin: Person, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the commands of the page were run, and what each block has printed."""
    folder = tmp_path_factory.mktemp("page")
    found = blocks("docs/kubectl-plugin.md", by="tests/e2e/test_cli.py")
    told = [Shell(folder, admin.environment).run(block, seconds=300) for block in found]
    if directory := os.environ.get("PICTURES"):
        parts = [f"$ {block.text}{output}" for block, output in zip(found, told, strict=True)]
        (Path(directory) / "page.txt").write_text("\n".join(parts))
    return folder, told


def test_the_commands_of_the_page_do_what_it_says(page: tuple[Path, list[str]]) -> None:
    _, told = page
    for text in ("NAME      TENANT", "support  Connected", "No link is broken.", '"session": "support"'):
        assert [output for output in told if text in output], text
    assert told[-1].splitlines() == ["support is suspended.", "support is resumed.", "support is relinked."]


def test_a_report_tells_everything_but_the_secrets(
    page: tuple[Path, list[str]], scenario: Scenario, phone: str, seen: list[str]
) -> None:
    folder, _ = page
    with tarfile.open(folder / "report.tar.gz") as tar:
        texts = {member.name.split("/", 1)[1]: read(tar, member) for member in tar.getmembers()}
    for name in ("session.yaml", "pod.yaml", "claim.yaml", "events.yaml", "session.log", "session.prom"):
        assert texts[f"sessions/support/{name}"].strip(), name
    assert "whatsapp_" in texts["sessions/support/session.prom"]
    operators = [name for name in texts if re.fullmatch(r"operator/whatsapp-operator-.*\.(log|prom)", name)]
    assert len(operators) >= 2, sorted(texts)
    whole = "\n".join(texts.values())
    assert len(seen) == 3
    numbers = [scenario.get(name)["spec"]["phone"].removeprefix("+") for name in ("support", "desk")]
    assert phone.removeprefix("+") in numbers
    for secret in (*seen, *(code.replace("-", "") for code in seen), *numbers, "@s.whatsapp.net", "@lid"):
        assert secret not in whole, secret
    assert re.search(r"eyJ[A-Za-z0-9_-]{10,}\.", whole) is None, "no token"


def read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = tar.extractfile(member)
    assert content is not None
    return content.read().decode()


def keep(screen: Terminal, name: str) -> None:
    """Where PICTURES names a directory, what is on the screen goes there, for the documentation."""
    if directory := os.environ.get("PICTURES"):
        (Path(directory) / f"{name}.txt").write_text(screen.text + "\n")
        (Path(directory) / f"{name}.raw").write_bytes(screen.raw)
