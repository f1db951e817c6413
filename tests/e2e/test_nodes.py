"""A node that nobody hears of: its pods may run on, so there is no other pod until it is known that they do not."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver import conditions
from tests.cluster import context, processes
from tests.cluster.node import NODE_NAME
from tests.cluster.paths import cluster_paths
from tests.scenario import SIMULATOR_NAMESPACE, Scenario, has_condition
from tests.waiting import eventually
from whatsapp_operator.api import names

pytestmark = pytest.mark.alone

Phones = Callable[[], str]


def kubelet() -> int:
    """The process id of this checkout's kubelet, as this machine numbers it."""
    if not context.target().own:
        pytest.skip("the node is not of this machine: its kubelet cannot be stopped")
    marked = processes.marked(cluster_paths().mark)
    [pid] = [pid for pid in marked if Path(f"/proc/{pid}/comm").read_text() == "kubelet\n"]
    return pid


@contextmanager
def silent_node(scenario: Scenario) -> Iterator[None]:
    """Stops the kubelet, so that pods run on and nobody is told; waits at the end until everything is as before."""
    pid = kubelet()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        for path in (f"/api/v1/nodes/{NODE_NAME}", *pods_of_the_system(scenario)):
            eventually(lambda path=path: is_ready(scenario.api.find(path)), f"{path} is ready", seconds=120)  # type: ignore[misc]


def pods_of_the_system(scenario: Scenario) -> list[str]:
    """Those that other tests need."""
    namespaces = ("kube-system", "whatsapp-operator-system", SIMULATOR_NAMESPACE)
    roots = [f"/api/v1/namespaces/{namespace}/pods" for namespace in namespaces]
    return [f"{root}/{pod['metadata']['name']}" for root in roots for pod in scenario.api.get(root)["items"]]


def is_ready(found: dict[str, Any] | None) -> bool:
    return found is None or conditions(found).get("Ready", {}).get("status") == "True"


def devices(scenario: Scenario, phone: str) -> list[dict[str, Any]]:
    """As the simulator sees them; without its Service, which has no endpoint while the node is silent."""
    root = f"/api/v1/namespaces/{SIMULATOR_NAMESPACE}/pods"
    [pod] = [item["metadata"]["name"] for item in scenario.api.get(root)["items"]]
    return list(scenario.api.get(f"{root}/{pod}:9481/proxy/phones/{phone}/devices")["devices"])


def test_a_silent_node_never_leads_to_a_second_pod(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    pod_path = f"/api/v1/namespaces/{scenario.namespace}/pods/{names.owned_name('silent')}"
    with scenario.watching("silent") as watch:
        scenario.apply(scenario.manifest("silent", phone=phone))
        first = scenario.pair("silent", phone, watch)
        pod = first.status["pod"]["uid"]
        [device] = devices(scenario, phone)
        with scenario.api.watch(pod_path) as pods:
            with silent_node(scenario):
                lost = watch.wait(has_condition("Connected", "Unknown", "NodeLost"), "NodeLost", seconds=120)
                assert conditions(lost.object)["PodReady"]["status"] == "Unknown"
                # The operator wants another pod, and so does a person; nobody is there to end the one that runs.
                wanted = {"resources": {"limits": {"memory": "192Mi"}}}
                scenario.apply(scenario.manifest("silent", phone=phone, template=wanted))
                pods.wait(lambda seen: "deletionTimestamp" in seen.object["metadata"], "the operator deletes the pod")
                scenario.kubectl.run("delete", "pod", f"--namespace={scenario.namespace}", "wa-silent", "--wait=false")
                generation = scenario.get("silent")["metadata"]["generation"]
                watch.wait(lambda seen: seen.status.get("observedGeneration") == generation, "the change is seen")
                assert scenario.api.get(pod_path)["metadata"]["uid"] == pod
                assert devices(scenario, phone) == [device], "it runs on, and is connected"
            again = watch.wait(has_condition("Connected"), "Connected", since=lost.at, seconds=120)
        made_and_gone = [(e.type, e.object["metadata"]["uid"] == pod) for e in pods.events if e.type != "MODIFIED"]
    assert made_and_gone == [("ADDED", True), ("DELETED", True), ("ADDED", False)]
    assert again.status["pod"]["uid"] == again.status["session"]["podUID"] != pod
    [now] = devices(scenario, phone)
    assert (now["id"], now["linkedAt"], now["takenOver"]) == (device["id"], device["linkedAt"], 0)
    told = {item["reason"] for seen in watch.events for item in seen.status.get("conditions", [])}
    assert "StreamReplaced" not in told
