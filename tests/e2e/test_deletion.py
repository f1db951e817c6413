"""Deleting a session removes its device from the phone, whichever way it is deleted, and leaves nothing behind."""

from collections.abc import Callable

import pytest

from tests.apiserver import conditions
from tests.scenario import Scenario, has_condition
from tests.waiting import eventually
from whatsapp_operator.api import names

Phones = Callable[[], str]


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
def test_deletion_unlinks_the_device(scenario: Scenario, new_phone: Phones, propagation: str) -> None:
    phone, name = new_phone(), propagation.lower()
    with scenario.watching(name) as watch:
        scenario.apply(scenario.manifest(name, phone=phone))
        scenario.pair(name, phone, watch)
    assert len(scenario.simulator.devices(phone)) == 1
    scenario.delete(name, propagation=propagation)
    scenario.gone(name)
    assert scenario.simulator.devices(phone) == []


def test_deletion_of_a_suspended_session_starts_a_pod_to_unlink(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("asleep") as watch:
        scenario.apply(scenario.manifest("asleep", phone=phone))
        scenario.pair("asleep", phone, watch)
        scenario.apply(scenario.manifest("asleep", phone=phone, suspend=True))
        watch.wait(has_condition("Ready", reason="Suspended"), "Suspended")
        eventually(lambda: scenario.running_pod("asleep") is None, "the pod is gone")
    scenario.delete("asleep")
    scenario.gone("asleep")
    assert scenario.simulator.devices(phone) == []


def test_keep_and_retain_leave_the_device_and_the_volume(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    kept = scenario.manifest("kept", phone=phone, deletionPolicy="Keep", storage={"retentionPolicy": "Retain"})
    with scenario.watching("kept") as watch:
        scenario.apply(kept)
        scenario.pair("kept", phone, watch)
    scenario.delete("kept")
    eventually(lambda: scenario.exists("kept") is None, "the session is gone")
    eventually(lambda: scenario.running_pod("kept") is None, "the pod is gone")
    assert len(scenario.simulator.devices(phone)) == 1
    volumes = f"/api/v1/namespaces/{scenario.namespace}/persistentvolumeclaims"
    assert scenario.api.get(f"{volumes}/{names.owned_name('kept')}")["status"]["phase"] == "Bound"

    # The same session created again adopts the volume and is connected without a new pairing.
    with scenario.watching("kept") as watch:
        scenario.apply(kept)
        again = watch.wait(has_condition("Connected"), "Connected")
    assert conditions(again.object)["QRReady"]["reason"] == "NotNeeded"
    assert len(scenario.simulator.devices(phone)) == 1


def test_a_session_that_was_never_paired_goes_at_once(scenario: Scenario, new_phone: Phones) -> None:
    with scenario.watching("unpaired") as watch:
        scenario.apply(scenario.manifest("unpaired", phone=new_phone()))
        watch.wait(has_condition("QRReady"), "QRReady")
    scenario.delete("unpaired")
    scenario.gone("unpaired")


def test_a_namespace_with_a_session_can_be_deleted(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    doomed = scenario.beside(f"{scenario.namespace}-doomed")
    doomed.prepare()
    with doomed.watching("inside") as watch:
        doomed.apply(doomed.manifest("inside", phone=phone))
        doomed.pair("inside", phone, watch)
    doomed.remove()
