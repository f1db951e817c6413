"""`make demo`: the main job on a real cluster, as a timeline. Exits with 0 only if all of it happened."""

import io
import sys
import time
from pathlib import Path
from typing import Any

import segno
import yaml
from rich.console import Console

from tests.apiserver import Seen, Watch, conditions
from tests.cluster.errors import ClusterError
from tests.scenario import Scenario, has_condition
from tests.target import live_target
from tests.waiting import eventually
from whatsapp_operator.api import names

MANIFEST = Path(__file__).with_name("session.yaml")
PHONE = "+15551230001"
FRIEND = "+15551230002"


class Timeline:
    """Prints what happened, with seconds since the session was applied and since the step before."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = self._last = time.monotonic()

    def restart(self) -> None:
        self._start = self._last = time.monotonic()

    def happened(self, what: str, detail: str = "", *, at: float | None = None) -> None:
        at = time.monotonic() if at is None else at
        step = at - self._last
        self._last = at
        self._console.print(
            f"[bold cyan]{at - self._start:7.2f} s[/] [dim](+{step:5.2f})[/]  [bold]{what:<15}[/] {detail}",
            highlight=False,
        )


def draw(console: Console, qr: str) -> None:
    picture = io.StringIO()
    segno.make(qr, error="l").terminal(out=picture, border=2, compact=True)
    console.print(picture.getvalue(), highlight=False, markup=False)


def reason(seen: Seen, kind: str) -> str:
    found = conditions(seen.object)[kind]
    return f"{kind}={found['status']} ({found['reason']})"


def pair(scenario: Scenario, watch: Watch, timeline: Timeline, name: str) -> None:
    """From QRReady to Connected, with a scan in between."""
    qr = scenario.qr(name)
    timeline.happened("scanned", f"by the simulated phone {PHONE}")
    since = time.monotonic()
    scenario.simulator.scan(PHONE, qr)
    paired = watch.wait(has_condition("AuthPaired"), "AuthPaired", since=since)
    timeline.happened("authenticated", reason(paired, "AuthPaired"), at=paired.at)
    connected = watch.wait(has_condition("Connected"), "Connected", since=since)
    timeline.happened("connected", reason(connected, "Connected"), at=connected.at)
    ready = watch.wait(has_condition("Ready"), "Ready", since=since)
    phase = ready.status["phase"]
    if phase != "Connected" or not ready.status.get("primary"):
        raise AssertionError(f"Ready, but phase is {phase} and primary {ready.object['status'].get('primary')}")


def messages(scenario: Scenario, timeline: Timeline, name: str) -> None:
    sent = f"hello at {time.time_ns()}"
    scenario.send_message(name, FRIEND, sent)

    def arrived() -> bool:
        return any(message.get("text") == sent for message in scenario.simulator.inbox(FRIEND))

    eventually(arrived, "the friend's phone has the message")
    timeline.happened("message sent", f"and read on the friend's phone: {sent!r}")

    before = inbound(scenario, name)
    scenario.simulator.send(FRIEND, PHONE, "and hello to you")
    eventually(lambda: inbound(scenario, name) > before, "the session has received the answer")
    timeline.happened("message received", "the session has decrypted the answer")


def inbound(scenario: Scenario, name: str) -> float:
    """How many messages the session has received, by its own metrics."""
    pod = (
        f"/api/v1/namespaces/{scenario.namespace}/pods/{names.owned_name(name)}:{names.SESSION_HTTP_PORT}/proxy/metrics"
    )
    text = str(scenario.api.get(pod))
    counter = 'whatsapp_session_messages_total{direction="in"}'
    # A counter is told from its first increment on.
    line = next((line for line in text.splitlines() if line.startswith(counter)), "0")
    return float(line.split()[-1])


def run(console: Console, scenario: Scenario) -> None:
    manifest: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    name = manifest["metadata"]["name"]
    simulator = scenario.simulator
    scenario.prepare()
    for number in (PHONE, FRIEND):
        simulator.add_phone(number)
    scenario.delete_if_there(name)

    console.rule("One WhatsAppSession, from apply to a linked device")
    console.print(MANIFEST.read_text(), highlight=False, markup=False)
    timeline = Timeline(console)
    with scenario.watching(name) as watch:
        timeline.restart()
        scenario.apply(manifest)
        timeline.happened("applied", f"whatsappsession/{name} in namespace {scenario.namespace}")
        claimed = watch.wait(has_condition("PhoneClaimed"), "PhoneClaimed")
        timeline.happened("claimed", reason(claimed, "PhoneClaimed"), at=claimed.at)
        pod = eventually(lambda: scenario.running_pod(name), "the pod runs", seconds=90)
        timeline.happened("pod running", f"{pod['metadata']['name']} on {pod['spec']['nodeName']}")
        shown = watch.wait(has_condition("QRReady"), "QRReady")
        timeline.happened("QR issued", f"{reason(shown, 'QRReady')}, in Secret {names.owned_name(name)}", at=shown.at)
        draw(console, scenario.qr(name))
        pair(scenario, watch, timeline, name)
        messages(scenario, timeline, name)

        console.rule("forceRelink: a fresh pairing on the running pod")
        first_pod = scenario.running_pod(name)["metadata"]["uid"]
        since = time.monotonic()
        scenario.force_relink(name, f"demo-{time.time_ns()}")
        timeline.happened("forceRelink", "annotation set")
        fresh = watch.wait(has_condition("QRReady"), "a fresh QR", since=since)
        timeline.happened("fresh QR", reason(fresh, "QRReady"), at=fresh.at)
        pair(scenario, watch, timeline, name)
        if (same := scenario.running_pod(name)["metadata"]["uid"]) != first_pod:
            raise AssertionError(f"the relink replaced pod {first_pod} by {same}")
        done = scenario.get(name)["status"]["relink"]
        timeline.happened("relink done", f"outcome {done.get('outcome')}, same pod, one device on the phone")
        linked = one_device(scenario)

        console.rule("The pod is killed: back without a new pairing")
        since = time.monotonic()
        scenario.kubectl.run(
            "delete", "pod", f"--namespace={scenario.namespace}", names.owned_name(name), "--wait=false"
        )
        timeline.happened("pod deleted", "kubectl delete pod")
        back = watch.wait(
            lambda seen: has_condition("Connected")(seen) and seen.status["pod"]["uid"] != first_pod,
            "Connected on another pod", since=since,
        )  # fmt: skip
        if (now_linked := one_device(scenario)) != linked:
            raise AssertionError(f"the phone lists device {now_linked}, not {linked}: there was a new pairing")
        timeline.happened("connected again", "same credentials, no new pairing", at=back.at)

        console.rule("The session is deleted: the device leaves the phone's list")
        scenario.kubectl.run("delete", names.PLURAL, f"--namespace={scenario.namespace}", name, "--wait=false")
        timeline.happened("delete asked", f"kubectl delete whatsappsession {name}")
        eventually(lambda: simulator.devices(PHONE) == [], "the phone lists no device")
        timeline.happened("unlinked", "the phone's list of linked devices is empty")
        scenario.gone(name)
        timeline.happened("deleted", "session, pod, volume and Secret are gone")


def one_device(scenario: Scenario) -> int:
    """The number of the only device that the phone lists."""
    devices = scenario.simulator.devices(PHONE)
    if len(devices) != 1:
        raise AssertionError(f"the phone lists {len(devices)} devices, not one")
    return int(devices[0]["id"])


def main() -> int:
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        target = live_target()
    except ClusterError as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False)
        return 1
    scenario = target.scenario("whatsapp-demo")
    try:
        run(console, scenario)
    except AssertionError as error:
        console.print(f"\n[bold red]The demo failed:[/] {error}", highlight=False)
        console.print(
            "Look with: make kubeconfig; kubectl -n whatsapp-operator-system logs deployment/whatsapp-operator"
        )
        return 1
    kubectl = f"{target.kubectl.program} --kubeconfig {target.kubectl.kubeconfig}"
    console.rule("All of it happened")
    console.print(
        f"""The cluster stays up. To look around:
  alias kubectl='{kubectl}'
  kubectl --namespace {scenario.namespace} apply --filename {MANIFEST.relative_to(Path.cwd())}
  kubectl --namespace {scenario.namespace} get whatsappsessions --watch
  kubectl --namespace {scenario.namespace} describe whatsappsession demo
To remove it and everything it made: make cluster-down""",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
