"""The plugin on a real API server, with the real operator; the test plays the kubelet and the session pods."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.apiserver import ROOT, ApiServer
from tests.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.documentation.shell_blocks import files
from tests.integration.controller_stand_ins import Replica, Stage, make_namespace, operators, paired
from tests.terminal import Terminal
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import EXPLANATIONS, Reason
from whatsapp_operator.cli.app import app
from whatsapp_operator.cli.completion import for_kubectl
from whatsapp_operator.cli.exits import Exit

NAMESPACE = "plugin"
LINKED, WAITING, IDLE = "linked", "waiting", "idle"
PHONE, OTHER, THIRD = "+15551230701", "+15551230702", "+15551230703"
QR = "https://wa.me/settings/linked_devices#2@" + ",".join([base64.b64encode(os.urandom(32)).decode()] * 4)
# What an account may be called.
NAME_OF_ACCOUNT = "Ann\x1b[2J\x1b]0;x\x07"


@pytest.fixture(scope="module")
def stage(api: ApiServer) -> Stage:
    return make_namespace(api, NAMESPACE)


@pytest.fixture(scope="module")
def operator(api: ApiServer, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with operators(api, tmp_path_factory.mktemp("operator"), stage.namespace) as found:
        yield found.start_leader()


@pytest.fixture(scope="module")
def sessions(operator: Replica, stage: Stage) -> Stage:
    """One session that is connected, one that waits for a scan, and one that is suspended."""
    stage.create(LINKED, phone=PHONE)
    stage.create(WAITING, phone=OTHER)
    stage.create(IDLE, phone=THIRD, suspend=True)
    stage.start_pod(LINKED)
    report = paired(PHONE)
    report["device"]["pushName"] = NAME_OF_ACCOUNT
    stage.report_connected(LINKED, PHONE, **report)
    stage.start_pod(WAITING)
    stage.report(WAITING, "ShowingQR", "QRAvailable")
    stage.condition(LINKED, "Ready", status="True", reason="Connected")
    stage.condition(WAITING, "QRReady", status="True")
    stage.condition(IDLE, "Ready", status="True", reason="Suspended")
    return stage


Plugin = Callable[..., Result]


def plugin(kubeconfig: Path) -> Plugin:
    """`kubectl wa ARGUMENTS` with its output in no terminal."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, env={"KUBECONFIG": str(kubeconfig)})

    return run


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> Plugin:
    return plugin(control_plane.kubeconfig)


def as_account(api: ApiServer, namespace: str, account: str, path: Path) -> Path:
    """A kubeconfig of the account, whose context names the namespace."""
    api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}})
    (path / "ca.crt").write_bytes(api.ca)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": api.url, "certificate-authority": "ca.crt"}}],
        "users": [{"name": account, "user": {"token": api.account_token(namespace, account)}}],
        "contexts": [{"name": account, "context": {"cluster": "c", "user": account, "namespace": namespace}}],
        "current-context": account,
    }
    file = path / "config"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="module")
def viewer(api: ApiServer, sessions: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kubeconfig of somebody who has the aggregated role view in the namespace."""
    kubeconfig = as_account(api, NAMESPACE, "viewer", tmp_path_factory.mktemp("viewer"))
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "viewer", "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "viewer", "namespace": NAMESPACE}],
    }
    api.apply(binding)
    eventually(lambda: plugin(kubeconfig)("list").exit_code == Exit.OK, "the role is aggregated")
    return kubeconfig


def put(stage: Stage, name: str, seconds: float, **texts: str) -> None:
    """Show this in the session's Secret, for so many seconds from now on."""
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    data: dict[str, str | None] = {"qr": None, "code": None}
    data |= {key: base64.b64encode(text.encode()).decode() for key, text in {**texts, "expiresAt": expires}.items()}
    stage.api.patch(stage.secret_path(name), {"data": data})


def terminal(control_plane: ControlPlane, *arguments: str, columns: int = 80, lines: int = 40) -> Terminal:
    command = [sys.executable, "-m", "whatsapp_operator.cli", *arguments, "-n", NAMESPACE]
    environment = {"KUBECONFIG": str(control_plane.kubeconfig), "PYTHONPATH": str(ROOT / "operator")}
    return Terminal(command, columns=columns, lines=lines, environment=environment)


def test_list_tells_every_session_in_aligned_columns(admin: Plugin, sessions: Stage) -> None:
    found = admin("list", "-n", NAMESPACE)
    assert found.exit_code == Exit.OK, found.output
    header, *rows = found.stdout.splitlines()
    assert header.split() == ["NAME", "TENANT", "PHONE", "PHASE", "REASON", "AGE"]
    assert len(set(admin("list", "-n", NAMESPACE, "-o", "wide").stdout.splitlines()[0].split())) == 15
    assert [row.split()[0] for row in rows] == sorted([LINKED, WAITING, IDLE])
    assert {row[header.index("PHASE") :].split()[0] for row in rows} == {"Connected", "WaitingForScan", "Suspended"}
    assert "\x1b" not in found.stdout
    everywhere = admin("list", "-A").stdout
    assert everywhere.startswith("NAMESPACE")
    assert {LINKED, WAITING, IDLE} <= set(everywhere.split())


def test_list_goes_on_with_a_row_for_each_change(control_plane: ControlPlane, sessions: Stage) -> None:
    with terminal(control_plane, "list", "--watch", columns=120) as screen:
        screen.wait_for(WAITING)
        # What does not show makes no row.
        sessions.annotate(WAITING, "x", "example.com/note")
        sessions.create("passing", phone="+15551230704", suspend=True)
        eventually(lambda: re.search(r"^passing .* Suspended ", screen.text, re.MULTILINE), "a row of its own")
        sessions.delete("passing")
        eventually(lambda: re.search(r"^passing .* Deleted ", screen.text, re.MULTILINE), "a row at its end")
        screen.type("\x03")
        assert screen.ended() == Exit.INTERRUPTED
        assert len(re.findall(rf"^{WAITING} ", screen.text, re.MULTILINE)) == 1
        assert all(line.index("+1555") == screen.lines[0].index("PHONE") for line in screen.lines if "+1555" in line)


def test_machine_output_is_that_of_kubectl(admin: Plugin, sessions: Stage, control_plane: ControlPlane) -> None:
    kubectl = binaries.ensure("kubernetes") / "kubectl"
    command = [str(kubectl), f"--kubeconfig={control_plane.kubeconfig}", "get", "was", "-n", NAMESPACE]
    for form, parse in (("json", json.loads), ("yaml", yaml.safe_load)):
        ours = parse(admin("list", "-n", NAMESPACE, "-o", form).stdout)
        theirs = parse(subprocess.run([*command, f"-o={form}"], capture_output=True, check=True, text=True).stdout)
        assert ours["items"] == theirs["items"]
    ours_by_name = admin("list", "-n", NAMESPACE, "-o", "name").stdout
    assert ours_by_name == subprocess.run([*command, "-oname"], capture_output=True, check=True, text=True).stdout


def test_status_tells_a_session_with_what_to_do(admin: Plugin, sessions: Stage) -> None:
    found = admin("status", WAITING, "-n", NAMESPACE)
    assert found.exit_code == Exit.OK, found.output
    assert EXPLANATIONS[Reason.QR_AVAILABLE].remedy in found.stdout
    assert f"kubectl wa link {WAITING} -n {NAMESPACE}" in found.stdout
    told = json.loads(admin("status", LINKED, "-n", NAMESPACE, "-o", "json").stdout)
    assert (told["phase"], told["ready"], told["linkedPhone"], told["credentials"]["valid"]) == (
        *("Connected", True, PHONE),
        True,
    )
    assert {c["type"] for c in told["conditions"]} >= {"Ready", "Connected", "AuthPaired"}


def test_status_of_all_counts_and_names_what_waits(admin: Plugin, sessions: Stage) -> None:
    found = admin("status", "-n", NAMESPACE).stdout
    assert found.startswith(f"3 sessions in namespace {NAMESPACE}: ")
    assert f"\n{WAITING} " in found
    assert f"\n{LINKED} " not in found


def test_what_is_not_there_is_said(admin: Plugin, sessions: Stage, tmp_path: Path) -> None:
    missing = admin("status", "nobody", "-n", NAMESPACE)
    assert (missing.exit_code, missing.stdout) == (Exit.NOT_FOUND, "")
    assert "nobody" in missing.stderr
    for arguments in (("--kubeconfig", str(tmp_path / "none")), ("--context", "none")):
        wrong = admin("list", *arguments)
        assert wrong.exit_code in (Exit.ERROR, Exit.USAGE)
        assert "none" in wrong.stderr
    unreachable = tmp_path / "unreachable"
    cluster = {"server": "https://127.0.0.1:1"}
    contexts = [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
    config = {"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {"token": "t"}}]}
    unreachable.write_text(yaml.safe_dump({**config, "contexts": contexts, "current-context": "c"}))
    found = plugin(unreachable)("list")
    assert found.exit_code == Exit.ERROR
    assert "cannot be reached" in found.stderr


def test_a_list_of_kubeconfigs_is_merged_and_the_context_names_the_namespace(
    viewer: Path, control_plane: ControlPlane, tmp_path: Path
) -> None:
    listed = f"{tmp_path / 'missing'}:{control_plane.kubeconfig}:{viewer}"
    found = CliRunner().invoke(app, ["list", "--context", "viewer"], env={"KUBECONFIG": listed})
    assert found.exit_code == Exit.OK, found.output
    assert LINKED in found.stdout
    # Options before the command, too.
    assert LINKED in CliRunner().invoke(app, ["--context", "viewer", "list"], env={"KUBECONFIG": listed}).stdout


def test_who_may_only_view_is_told_which_right_is_missing_and_how_to_give_it(
    viewer: Path, control_plane: ControlPlane, sessions: Stage
) -> None:
    run = plugin(viewer)
    refused = run("relink", WAITING)
    assert refused.exit_code == Exit.NOT_ALLOWED
    assert f"patch on {names.PLURAL}.{names.GROUP} {WAITING} in namespace {NAMESPACE}" in refused.stderr
    kubectl = binaries.ensure("kubernetes") / "kubectl"
    for line in refused.stderr.splitlines():
        if line.startswith("  kubectl "):
            _, *arguments = shlex.split(line)
            subprocess.run([kubectl, f"--kubeconfig={control_plane.kubeconfig}", *arguments], check=True, timeout=60)

    eventually(lambda: run("relink", WAITING).exit_code == Exit.OK, "the right is given")
    assert sessions.session(WAITING)["metadata"]["annotations"][names.ANNOTATION_FORCE_RELINK]
    request = eventually(lambda: sessions.desired(WAITING)["relinkRequestID"], "the pod is told to relink")
    sessions.report(WAITING, "ShowingQR", "QRAvailable", relinkRequestID=request, relinkOutcome="Absorbed")
    eventually(lambda: sessions.status(WAITING)["relink"].get("outcome") == "Absorbed", "the relink is done")
    fields = sessions.session(WAITING)["metadata"]["managedFields"]
    assert "kubectl-wa" in {entry["manager"] for entry in fields}


def test_the_role_of_the_page_is_enough(api: ApiServer, sessions: Stage, tmp_path: Path) -> None:
    run = plugin(as_account(api, NAMESPACE, "pairer", tmp_path))
    text = files("docs/kubectl-plugin.md")["role.yaml"].replace("shop", NAMESPACE).replace("support", LINKED)
    about = {"name": "pairer", "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "whatsapp-pairing"}
    subject = {"kind": "ServiceAccount", **about}
    api.apply(yaml.safe_load(text))
    api.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": about,
            "roleRef": role,
            "subjects": [subject],
        }
    )

    def rights() -> dict[str, str]:
        checks = json.loads(run("doctor", LINKED, "-o", "json").stdout)["checks"]
        return {check["name"]: check["result"] for check in checks}

    eventually(lambda: rights()["your rights"] == "ok", "the role is in force")
    # Nobody binds a volume here.
    assert "unknown" not in {rights()[link] for link in ("volume", "secret", "pod", "report")}
    for arguments in (("list",), ("status",), ("status", LINKED), ("report", LINKED, "--file", str(tmp_path / "r"))):
        assert run(*arguments).exit_code == Exit.OK, arguments


def test_a_qr_never_goes_anywhere_but_to_a_terminal(admin: Plugin, sessions: Stage) -> None:
    put(sessions, WAITING, 600, qr=QR)
    for arguments in (("qr", WAITING), ("code", WAITING)):
        found = admin(*arguments, "-n", NAMESPACE)
        assert found.exit_code == Exit.USAGE
        assert QR not in found.output
        assert "▀" not in found.output


def test_link_draws_what_the_secret_holds_and_nothing_that_has_expired(
    control_plane: ControlPlane, sessions: Stage
) -> None:
    put(sessions, WAITING, 600, qr=QR)
    with terminal(control_plane, "link", WAITING) as screen:
        assert screen.wait_for_qr() == QR
        put(sessions, WAITING, 600, qr=QR[::-1])
        assert screen.wait_for_qr(other_than=QR) == QR[::-1]
        put(sessions, WAITING, -1, qr=QR)
        eventually(lambda: screen.qr() is None, "the expired QR is gone")
        put(sessions, WAITING, 600, code="K7QF2MZX")
        screen.wait_for("K 7 Q F - 2 M Z X")
        put(sessions, WAITING, 600, qr=QR)
        screen.wait_for_qr()
        screen.resize(60, 24)
        screen.wait_for("too small")
        screen.type("\x03")
        assert screen.ended() == Exit.INTERRUPTED
        assert "The session goes on" in screen.text
        assert screen.qr() is None, "nothing of it stays on the terminal"
    assert QR.encode() not in screen.raw


def test_link_of_a_session_that_is_linked_asks_first(control_plane: ControlPlane, sessions: Stage) -> None:
    before = sessions.session(LINKED)["metadata"].get("annotations")
    with terminal(control_plane, "link", LINKED) as screen:
        screen.wait_for("Relink?")
        screen.type("n\n")
        assert screen.ended() == Exit.ERROR
        assert "nothing was changed" in screen.text
    with terminal(control_plane, "link", LINKED) as screen:
        screen.wait_for("Relink?")
        screen.type("\x03")
        assert screen.ended() == Exit.INTERRUPTED
    assert sessions.session(LINKED)["metadata"].get("annotations") == before


def test_link_refuses_what_it_cannot_do(admin: Plugin, sessions: Stage) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        found = admin("link", *arguments, "-n", NAMESPACE)
        return found.exit_code, found.stderr

    for arguments, code, text in (
        ((LINKED,), Exit.USAGE, "--yes"),
        (("fresh",), Exit.USAGE, "--tenant"),
        (("fresh", "--tenant", "acme", "--phone", "5551"), Exit.USAGE, "spec.phone"),
        ((WAITING, "--phone", PHONE), Exit.USAGE, "spec.phone"),
        ((WAITING, "--method", "fax"), Exit.USAGE, "--method"),
        ((IDLE,), Exit.PERSON_MUST_ACT, f"kubectl wa resume {IDLE}"),
        ((WAITING, "--timeout", "1s"), Exit.TIMED_OUT, "not connected within 1 s"),
    ):
        assert said(*arguments)[0] == code, said(*arguments)
        assert text in said(*arguments)[1]


def test_where_there_is_no_pod_logs_say_why(admin: Plugin, sessions: Stage) -> None:
    found = admin("logs", IDLE, "-n", NAMESPACE)
    assert found.exit_code == Exit.ERROR
    assert "suspended and has no pod" in found.stderr


def test_suspend_and_resume(admin: Plugin, sessions: Stage) -> None:
    assert admin("resume", IDLE, "-n", NAMESPACE).stdout == f"{IDLE} is resumed.\n"
    sessions.pod(IDLE)
    assert admin("suspend", IDLE, "-n", NAMESPACE).stdout == f"{IDLE} is suspended.\n"
    assert admin("suspend", IDLE, "-n", NAMESPACE).stdout == f"{IDLE} is suspended already.\n"
    sessions.condition(IDLE, "Ready", status="True", reason="Suspended")


def test_doctor_walks_the_chain_and_names_the_broken_link(admin: Plugin, sessions: Stage) -> None:
    def checked(name: str) -> dict[str, dict[str, str]]:
        found = json.loads(admin("doctor", name, "-n", NAMESPACE, "-o", "json").stdout)
        return {check["name"]: check for check in found["checks"]}

    links = checked(LINKED)
    for link in ("API server", "definition", "your rights", "admission policies", "leader", "session", "secret"):
        assert links[link]["result"] == "ok", links[link]
    assert links["pod"]["result"] == "ok"
    assert links["report"]["result"] == "ok"
    assert links["conditions"]["result"] == "ok"
    # The control plane has no Deployment of the operator, which runs as a process of the test.
    assert links["operator"]["result"] == "broken"
    none = checked("nobody")
    assert none["session"]["result"] == "broken"


def test_the_names_of_sessions_complete_a_line(viewer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(viewer))
    lines = for_kubectl(app, ["status", "li"]).splitlines()
    assert lines == [f"{LINKED}\tConnected", ":4"]
    assert "relink\t" in for_kubectl(app, ["re"])
    assert for_kubectl(app, ["-n", "nowhere", "status", ""]).splitlines() == [":4"]


def test_a_report_holds_no_secret(admin: Plugin, sessions: Stage, tmp_path: Path, control_plane: ControlPlane) -> None:
    put(sessions, WAITING, 600, qr=QR, code="K7QF2MZX")
    file = tmp_path / "report.tar.gz"
    found = admin("report", "-n", NAMESPACE, "--file", str(file))
    assert found.exit_code == Exit.OK, found.output
    assert file.stat().st_mode & 0o077 == 0
    texts: dict[str, str] = {}
    with tarfile.open(file) as tar:
        for member in tar.getmembers():
            content = tar.extractfile(member)
            assert content is not None
            texts[member.name.split("/", 1)[1]] = content.read().decode()
    assert {f"sessions/{LINKED}/session.yaml", f"sessions/{WAITING}/pod.yaml", "versions.yaml"} <= set(texts)
    whole = "\n".join(texts.values())
    for secret in (PHONE, OTHER, THIRD, PHONE[1:], QR, "K7QF", "Ann", "@s.whatsapp.net"):
        assert secret not in whole, secret
    shown: Any = yaml.safe_load(texts[f"sessions/{LINKED}/session.yaml"])
    assert shown["status"]["phone"] == "<phone>"
    assert shown["status"]["phase"] == "Connected"


def test_a_session_that_has_given_up_is_relinked_by_link_and_followed(
    admin: Plugin, control_plane: ControlPlane, sessions: Stage
) -> None:
    sessions.report(WAITING, "Held", "AttemptsExhausted")
    sessions.condition(WAITING, "Stalled", status="True", reason="AttemptsExhausted")
    assert f"kubectl wa relink {WAITING} -n {NAMESPACE}" in admin("status", WAITING, "-n", NAMESPACE).stdout
    put(sessions, WAITING, -1, qr=QR)
    with terminal(control_plane, "qr", WAITING) as screen:
        assert screen.ended() == Exit.PERSON_MUST_ACT
        assert "AttemptsExhausted" in screen.text
    # Nothing is lost by a relink of what was never linked: link does it without asking, and then waits.
    before = sessions.desired(WAITING)["relinkRequestID"]

    def asked() -> str | None:
        found: str | None = sessions.desired(WAITING)["relinkRequestID"]
        return found if found != before else None

    with terminal(control_plane, "link", WAITING) as screen:
        request = eventually(asked, "the pod is told to relink")
        done = {"relinkRequestID": request, "relinkOutcome": "Completed"}
        put(sessions, WAITING, 600, qr=QR)
        sessions.report(WAITING, "ShowingQR", "QRAvailable", **done)
        assert screen.wait_for_qr() == QR
        sessions.report_connected(WAITING, OTHER, **done)
        assert screen.ended() == Exit.OK
        assert screen.text.endswith(f"Connected: {WAITING} is linked to {OTHER}.")
