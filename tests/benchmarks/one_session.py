"""`make benchmark`: the numbers of one session on the local cluster, as a table for people and for the docs.

Times are those of a client that watches the API server, so they include the way back to it.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from images.build import build_all
from tests.cluster.paths import cluster_paths
from tests.e2e.test_recovery import KILL_WORKER
from tests.scenario import Scenario, has_condition
from tests.target import Target, live_target
from tests.waiting import eventually
from whatsapp_operator.api import names

PHONE = "+155512399"
"""Two digits short: those of the round."""
MIB = 1024 * 1024
IDLE_SECONDS = 60
OPERATOR = "whatsapp-operator-system"
ONCE_A_NAMESPACE = ("events", "serviceaccounts", "rolebindings")


@dataclass
class Figure:
    """A measured quantity over the rounds, and the number that the design is held to."""

    name: str
    unit: str
    limit: float
    values: list[float] = field(default_factory=list)

    def row(self) -> str:
        values = sorted(self.values)
        spread = f"{values[0]:.2f} - {values[-1]:.2f}"
        verdict = "yes" if statistics.median(values) <= self.limit else "NO"
        return f"| {self.name} | {statistics.median(values):.2f} {self.unit} | {spread} | {self.limit:g} | {verdict} |"


class Figures:
    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}

    def add(self, name: str, unit: str, limit: float, value: float) -> None:
        self._figures.setdefault(name, Figure(name, unit, limit)).values.append(value)

    def table(self) -> str:
        head = "| what | median | range | limit | held |\n| --- | --- | --- | --- | --- |\n"
        return head + "\n".join(figure.row() for figure in self._figures.values())


def usage(target: Target, scenario: Scenario, name: str) -> dict[str, Any]:
    """The kubelet's figures of the session pod: memory in bytes, CPU as nanoseconds used so far."""
    node = scenario.running_pod(name)["spec"]["nodeName"]
    summary = target.api.get(f"/api/v1/nodes/{node}/proxy/stats/summary")
    [pod] = [
        pod
        for pod in summary["pods"]
        if pod["podRef"]["name"] == names.owned_name(name) and pod["podRef"]["namespace"] == scenario.namespace
    ]
    [container] = pod["containers"]
    return {
        "workingSet": container["memory"]["workingSetBytes"],
        "cpu": container["cpu"]["usageCoreNanoSeconds"],
        "time": datetime.fromisoformat(container["cpu"]["time"]),
    }


def writes(name: str, namespace: str) -> dict[str, int]:
    """API writes about a session so far, by who made them: the audit log of the local cluster.

    Events and what a namespace has once (account, role binding) do not count; neither does what was refused.
    """
    counts = {"operator": 0, "pod status": 0}
    for line in cluster_paths().audit_log.read_text().splitlines():
        entry = json.loads(line)
        if entry["verb"] in ("get", "list", "watch") or entry["responseStatus"]["code"] >= 300:
            continue
        user, about = entry["user"]["username"], entry["objectRef"]
        if about["resource"] in ONCE_A_NAMESPACE:
            continue
        if user == f"system:serviceaccount:{OPERATOR}:whatsapp-operator":
            claim = about["resource"] == "leases" and about.get("name", "").startswith("phone-")
            owned = about.get("namespace") == namespace and about.get("name") in (name, names.owned_name(name))
            counts["operator"] += claim or owned
        elif user == f"system:serviceaccount:{namespace}:{names.SESSION_SERVICE_ACCOUNT}":
            counts["pod status"] += about.get("subresource") == "status" and about["name"] == name
    return counts


def timed(action: Callable[[], Any]) -> float:
    started = time.monotonic()
    action()
    return started


def measure_round(target: Target, scenario: Scenario, figures: Figures, number: int, *, idle: bool) -> None:
    name = f"bench-{number}"
    pods = f"/api/v1/namespaces/{scenario.namespace}/pods/{names.owned_name(name)}"
    phone = f"{PHONE}{number:02}"
    scenario.simulator.add_phone(phone)
    # Claims do not name their session: those of earlier rounds are taken off.
    before = writes(name, scenario.namespace)["operator"]
    with scenario.watching(name) as watch, target.api.watch(pods) as pod_watch:
        started = timed(lambda: scenario.apply(scenario.manifest(name, phone=phone)))
        shown = watch.wait(has_condition("QRReady"), "QRReady")
        created = pod_watch.wait(lambda seen: seen.type == "ADDED", "the pod is created")
        applied = next(seen for seen in watch.events if seen.type == "ADDED")
        figures.add("apply -> QRReady, volume provisioned", "s", 8, shown.at - started)
        figures.add("seen by a watch -> pod created", "s", 1, created.at - applied.at)

        qr = scenario.qr(name)
        started = timed(lambda: scenario.simulator.scan(phone, qr))
        connected = watch.wait(has_condition("Connected"), "Connected", since=started)
        figures.add("scan -> Connected", "s", 2, connected.at - started)
        watch.wait(has_condition("Ready"), "Ready", since=started)
        eventually(
            lambda: scenario.running_pod(name)["metadata"]["labels"].get(names.LABEL_PRIMARY), "the primary is labelled"
        )
        made = writes(name, scenario.namespace)
        figures.add("API writes of the operator, apply -> Connected", "", 10, made["operator"] - before)
        figures.add("status writes of the pod, apply -> Connected", "", 6, made["pod status"])

        if idle:
            measure_idle(target, scenario, figures, name)

        started = timed(lambda: scenario.force_relink(name, "once"))
        fresh = watch.wait(has_condition("QRReady"), "a fresh QR", since=started)
        figures.add("forceRelink -> fresh QR", "s", 3, fresh.at - started)
        paired = scenario.pair(name, phone, watch)

        uid = paired.status["pod"]["uid"]
        started = time.monotonic()
        target.api.delete(pods)
        back = watch.wait(
            lambda seen: has_condition("Connected")(seen) and seen.status["pod"]["uid"] != uid,
            "Connected on another pod",
            since=started,
        )
        figures.add("pod deleted -> Connected", "s", 5, back.at - started)

        started = time.monotonic()
        scenario.kubectl.python(scenario.namespace, names.owned_name(name), KILL_WORKER)
        lost = watch.wait(has_condition("Connected", "False"), "the loss", since=started)
        again = watch.wait(has_condition("Connected"), "Connected", since=lost.at)
        figures.add("worker killed -> Connected", "s", 3, again.at - started)
    scenario.delete(name)
    scenario.gone(name)


def measure_idle(target: Target, scenario: Scenario, figures: Figures, name: str) -> None:
    """Memory and CPU of a connected session that has nothing to do, over a minute of the kubelet's own clock."""
    first = usage(target, scenario, name)

    def later() -> dict[str, Any] | None:
        now = usage(target, scenario, name)
        return now if (now["time"] - first["time"]).total_seconds() >= IDLE_SECONDS else None

    last = eventually(later, "a minute of figures", seconds=4 * IDLE_SECONDS, every=5)
    seconds = (last["time"] - first["time"]).total_seconds()
    figures.add("pod working set, connected and idle", "MiB", 64, last["workingSet"] / MIB)
    figures.add("pod CPU, connected and idle", "millicores", 2, (last["cpu"] - first["cpu"]) / 1e6 / seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.one_session", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    target = live_target()
    scenario = target.scenario("whatsapp-benchmark")
    scenario.prepare()
    figures = Figures()
    try:
        # The first round warms the node: images unpacked, page cache filled.
        measure_round(target, scenario, Figures(), 0, idle=False)
        for number in range(1, options.rounds + 1):
            measure_round(target, scenario, figures, number, idle=number <= 2)
    finally:
        scenario.remove()
    image = build_all()["session"]
    figures.add("session image, unpacked", "MB", 150, image.unpacked / 1e6)
    figures.add("session image, compressed", "MB", 55, image.compressed / 1e6)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {options.rounds} rounds\n\n{figures.table()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
