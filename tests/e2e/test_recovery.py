"""What dies comes back, without a new pairing where none is needed."""

import json
from collections.abc import Callable

from tests.apiserver import Seen
from tests.scenario import Kubectl, Scenario, has_condition
from tests.target import Target
from tests.waiting import eventually
from whatsapp_operator.api import names

Phones = Callable[[], str]

# The supervisor is process 1; its only child that runs Python is the worker.
KILL_WORKER = """
import os, signal
from pathlib import Path
for process in Path("/proc").iterdir():
    if process.name.isdigit() and b"session.worker" in (process / "cmdline").read_bytes():
        os.kill(int(process.name), signal.SIGKILL)
        print("killed")
"""


def connected_by(podless: str) -> Callable[[Seen], bool]:
    """Connected, reported by another pod than this one."""
    return lambda seen: has_condition("Connected")(seen) and seen.status["pod"]["uid"] != podless


def test_a_deleted_pod_comes_back_connected_without_a_new_pairing(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("pod") as watch:
        scenario.apply(scenario.manifest("pod", phone=phone))
        first = scenario.pair("pod", phone, watch).status["pod"]["uid"]
        [device] = scenario.simulator.devices(phone)
        scenario.kubectl.run("delete", "pod", "--namespace", scenario.namespace, "wa-pod", "--wait=false")
        watch.wait(connected_by(first), "Connected on another pod")
        phantom = [
            seen
            for seen in watch.events
            if has_condition("Connected")(seen) and seen.status["session"]["podUID"] != seen.status["pod"]["uid"]
        ]
        assert phantom == [], "Connected=True must be the word of the pod that is there"
    assert [d["id"] for d in scenario.simulator.devices(phone)] == [device["id"]]


def test_a_killed_worker_is_started_again_inside_the_pod(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("worker") as watch:
        scenario.apply(scenario.manifest("worker", phone=phone))
        since = scenario.pair("worker", phone, watch).at
        [device] = scenario.simulator.devices(phone)
        assert "killed" in scenario.kubectl.python(scenario.namespace, "wa-worker", KILL_WORKER)
        lost = watch.wait(has_condition("Connected", "False"), "the loss is seen", since=since)
        watch.wait(has_condition("Connected"), "Connected", since=lost.at)
    assert scenario.get("worker")["status"]["pod"]["restarts"] == 0
    assert [d["id"] for d in scenario.simulator.devices(phone)] == [device["id"]]


def test_a_device_removed_on_the_phone_is_offered_anew(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("removed") as watch:
        scenario.apply(scenario.manifest("removed", phone=phone))
        connected = scenario.pair("removed", phone, watch)
        [device] = scenario.simulator.devices(phone)
        scenario.simulator.unlink(phone, device["id"])
        lost = watch.wait(has_condition("AuthPaired", "False"), "the loss is seen", since=connected.at)
        watch.wait(has_condition("QRReady"), "a new QR", since=lost.at)
        scenario.pair("removed", phone, watch)


def test_a_killed_leader_is_replaced_and_the_next_one_writes(
    scenario: Scenario, target: Target, new_phone: Phones
) -> None:
    phone = new_phone()
    lease = "/apis/coordination.k8s.io/v1/namespaces/whatsapp-operator-system/leases/whatsapp-operator-leader"
    before = target.api.get(lease)["spec"]["holderIdentity"]
    kill_leader(scenario.kubectl, before)
    eventually(lambda: target.api.get(lease)["spec"]["holderIdentity"] not in ("", before), "another leads")
    with scenario.watching("led") as watch:
        scenario.apply(scenario.manifest("led", phone=phone))
        scenario.pair("led", phone, watch)


def kill_leader(kubectl: Kubectl, holder: str) -> None:
    pods = json.loads(kubectl.run("get", "pods", "--namespace=whatsapp-operator-system", "--output=json"))["items"]
    [leader] = [pod["metadata"]["name"] for pod in pods if holder.startswith(pod["metadata"]["name"])]
    kubectl.run(
        "delete", "pod", "--namespace=whatsapp-operator-system", leader, "--grace-period=0", "--force", "--wait=false"
    )


def test_a_second_session_of_a_held_phone_waits_until_the_holder_goes(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("holder") as holder, scenario.watching("waiting") as waiting:
        scenario.apply(scenario.manifest("holder", phone=phone))
        scenario.pair("holder", phone, holder)
        scenario.apply(scenario.manifest("waiting", phone=phone))
        refused = waiting.wait(has_condition("PhoneClaimed", "False", "HeldByOther"), "HeldByOther")
        message = next(c for c in refused.status["conditions"] if c["type"] == "PhoneClaimed")["message"]
        assert "holder" in message
        assert scenario.running_pod("waiting") is None
        scenario.delete("holder")
        waiting.wait(has_condition("PhoneClaimed"), "the claim is taken over")
        waiting.wait(has_condition("QRReady"), "QRReady")
    assert names.owned_name("waiting") == scenario.running_pod("waiting")["metadata"]["name"]
