"""Failures around the pod, and bad input, on a real node."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from tests.apiserver import conditions, older, sessions_path
from tests.scenario import Scenario, has_condition
from tests.waiting import eventually
from whatsapp_operator.api import names

Phones = Callable[[], str]


def supervisor_of(pod_uid: str) -> int:
    """The first process of a session pod, as this machine numbers it."""
    marks = {f"{names.ENV_POD_UID}={pod_uid}".encode(), b"whatsapp_operator.session"}
    found = []
    for process in Path("/proc").iterdir():
        try:
            told = {*(process / "environ").read_bytes().split(b"\0"), *(process / "cmdline").read_bytes().split(b"\0")}
        except OSError:
            continue  # gone, or no process
        if marks <= told:
            found.append(int(process.name))
    [pid] = found
    return pid


def test_an_evicted_pod_comes_back_without_a_new_pairing(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("drained") as watch:
        scenario.apply(scenario.manifest("drained", phone=phone))
        first = scenario.pair("drained", phone, watch)
        [device] = scenario.simulator.devices(phone)
        pod = {"name": names.owned_name("drained"), "namespace": scenario.namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": pod}
        scenario.api.create(f"/api/v1/namespaces/{scenario.namespace}/pods/{pod['name']}/eviction", eviction)
        watch.wait(
            lambda seen: has_condition("Connected")(seen) and seen.status["pod"]["uid"] != first.status["pod"]["uid"],
            "Connected on another pod",
            since=first.at,
        )
    assert [d["id"] for d in scenario.simulator.devices(phone)] == [device["id"]]


def test_a_killed_supervisor_is_restarted_in_its_pod_without_a_new_pairing(
    scenario: Scenario, new_phone: Phones
) -> None:
    phone = new_phone()
    with scenario.watching("killed") as watch:
        scenario.apply(scenario.manifest("killed", phone=phone))
        first = scenario.pair("killed", phone, watch)
        [device] = scenario.simulator.devices(phone)
        boot = first.status["session"]["bootID"]
        os.kill(supervisor_of(first.status["pod"]["uid"]), signal.SIGKILL)
        again = watch.wait(
            lambda seen: has_condition("Connected")(seen) and seen.status["session"]["bootID"] != boot,
            "Connected after the restart",
            since=first.at,
        )
        assert again.status["pod"]["uid"] == first.status["pod"]["uid"]
    eventually(lambda: scenario.get("killed")["status"]["pod"]["restarts"] == 1, "the restart is counted")
    assert [d["id"] for d in scenario.simulator.devices(phone)] == [device["id"]]


def test_a_number_that_cannot_be_one_is_named_without_being_shown(scenario: Scenario) -> None:
    with scenario.watching("short") as watch:
        scenario.apply(scenario.manifest("short", phone="+15551234"))
        stalled = watch.wait(has_condition("Stalled", reason="InvalidSpec"), "Stalled")
    message = conditions(stalled.object)["Stalled"]["message"]
    assert "spec.phone" in message
    assert "too short" in message
    assert "15551234" not in message
    assert scenario.running_pod("short") is None


def test_another_spelling_of_the_number_is_no_other_phone(scenario: Scenario, new_phone: Phones) -> None:
    digits = new_phone()[-8:]
    declared, linked = f"+55119{'9' + digits[1:]}", f"+5511{'9' + digits[1:]}"
    with scenario.watching("brazil") as watch:
        scenario.apply(scenario.manifest("brazil", phone=declared))
        scenario.pair("brazil", linked, watch)
        watch.wait(lambda seen: seen.status.get("phone") == linked, "the linked number in status")
    assert len(scenario.simulator.devices(linked)) == 1


def test_the_log_level_changes_without_a_restart(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("loud") as watch:
        scenario.apply(scenario.manifest("loud", phone=phone))
        connected = scenario.pair("loud", phone, watch)
    here, pod = f"--namespace={scenario.namespace}", names.owned_name("loud")
    assert '"level": "debug"' not in scenario.kubectl.run("logs", here, pod)
    annotation = f"{names.ANNOTATION_LOG_LEVEL}=DEBUG"
    scenario.kubectl.run("annotate", here, names.PLURAL, "loud", annotation)
    eventually(lambda: '"level": "debug"' in scenario.kubectl.run("logs", here, pod), "debug lines in the log")
    found = scenario.get("loud")["status"]
    assert found["pod"]["uid"] == connected.status["pod"]["uid"]
    assert found["pod"]["restarts"] == 0


def test_a_suspended_session_expires_where_that_was_asked_for(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    recovery = {"inactiveExpiry": "1h"}
    with scenario.watching("expiring") as watch:
        scenario.apply(scenario.manifest("expiring", phone=phone, recovery=recovery))
        scenario.pair("expiring", phone, watch)
        scenario.apply(scenario.manifest("expiring", phone=phone, recovery=recovery, suspend=True))
        watch.wait(has_condition("Ready", reason="Suspended"), "Suspended")
        eventually(lambda: scenario.running_pod("expiring") is None, "the pod is gone")
        # Nobody waits for an hour: all that is told becomes older.
        aged = older(scenario.get("expiring")["status"], timedelta(hours=2))
        scenario.api.patch(sessions_path(scenario.namespace, "expiring", "status"), {"status": aged})
        watch.wait(has_condition("AuthPaired", "False", "Expired"), "Expired")
        watch.wait(lambda seen: seen.status.get("phase") == "Expired", "the phase")
    assert scenario.simulator.devices(phone) == []
    eventually(lambda: scenario.running_pod("expiring") is None, "the pod is gone again")
