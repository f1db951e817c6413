"""From apply to Connected, by QR and by code, and a fresh pairing when it is asked for."""

from collections.abc import Callable
from typing import Any

from tests.apiserver import conditions
from tests.scenario import Scenario, has_condition
from tests.waiting import eventually
from whatsapp_operator.api import names

Phones = Callable[[], str]


def test_a_session_is_paired_by_qr_and_talks(scenario: Scenario, new_phone: Phones) -> None:
    phone, friend = new_phone(), new_phone()
    scenario.simulator.add_phone(friend)
    with scenario.watching("qr") as watch:
        scenario.apply(scenario.manifest("qr", phone=phone))
        connected = scenario.pair("qr", phone, watch)
    assert conditions(connected.object)["AuthPaired"]["status"] == "True"
    ready = eventually(lambda: ready_status(scenario, "qr"), "Ready")
    assert ready["phase"] == "Connected"
    assert ready["sessionState"] == "connected"
    assert ready["authPaired"] is True
    assert ready["primary"] is True
    assert ready["phone"] == phone
    assert ready["session"]["credentials"]["valid"] is True
    assert scenario.secret("qr") == {}, "a used QR must not stay in the Secret"

    scenario.send_message("qr", friend, "from the session")
    eventually(
        lambda: "from the session" in [m.get("text") for m in scenario.simulator.inbox(friend)],
        "the friend has the message",
    )


def ready_status(scenario: Scenario, name: str) -> dict[str, Any] | None:
    found = scenario.get(name)
    ready = conditions(found).get("Ready")
    return found["status"] if ready and ready["status"] == "True" else None


def test_a_session_without_a_phone_takes_the_one_that_scans(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("any") as watch:
        scenario.apply(scenario.manifest("any"))
        scenario.pair("any", phone, watch)
        watch.wait(lambda seen: seen.status.get("phone") == phone, "the linked phone in status")
        watch.wait(has_condition("PhoneClaimed", reason="Claimed"), "the phone is claimed")


def test_a_session_is_paired_by_code(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    scenario.simulator.add_phone(phone)
    with scenario.watching("code") as watch:
        scenario.apply(scenario.manifest("code", phone=phone, pairing={"method": "PairingCode"}))
        watch.wait(has_condition("QRReady", reason="CodeAvailable"), "CodeAvailable")
        code = eventually(lambda: scenario.secret("code").get(names.SECRET_KEY_CODE), "the Secret holds a code")
        scenario.simulator.enter_code(phone, code)
        watch.wait(has_condition("Connected"), "Connected")
    assert scenario.get("code")["status"]["session"]["pairing"]["method"] == "PairingCode"


def test_force_relink_pairs_anew_once_on_the_same_pod(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("relink") as watch:
        scenario.apply(scenario.manifest("relink", phone=phone))
        first = scenario.pair("relink", phone, watch)
        [device] = scenario.simulator.devices(phone)

        scenario.force_relink("relink", "first")
        watch.wait(has_condition("QRReady"), "a fresh QR", since=first.at)
        assert scenario.simulator.devices(phone) == [], "the old device is logged out"
        scenario.pair("relink", phone, watch)
        [again] = scenario.simulator.devices(phone)
        assert again["id"] != device["id"]

        # GitOps sets the same token again and again; another change shows that the operator has looked at the object.
        scenario.force_relink("relink", "first")
        scenario.kubectl.run(
            "patch", "--namespace", scenario.namespace, names.PLURAL, "relink",
            "--type=merge", '--patch={"spec":{"pairing":{"attempts":4}}}',
        )  # fmt: skip
        generation = scenario.get("relink")["metadata"]["generation"]
        seen = watch.wait(lambda seen: seen.status.get("observedGeneration") == generation, "the change seen")
        assert conditions(seen.object)["Connected"]["status"] == "True"
    status = scenario.get("relink")["status"]
    assert status["relink"]["outcome"] == "Completed"
    assert status["pod"]["uid"] == first.status["pod"]["uid"]
    assert [d["id"] for d in scenario.simulator.devices(phone)] == [again["id"]]
    scenario.pairings("relink", 2)


def test_suspend_keeps_the_credentials_and_resume_needs_no_pairing(scenario: Scenario, new_phone: Phones) -> None:
    phone = new_phone()
    with scenario.watching("pausing") as watch:
        scenario.apply(scenario.manifest("pausing", phone=phone))
        scenario.pair("pausing", phone, watch)
        before = scenario.simulator.devices(phone)
        scenario.apply(scenario.manifest("pausing", phone=phone, suspend=True))
        suspended = watch.wait(has_condition("Ready", reason="Suspended"), "Suspended")
        eventually(lambda: scenario.running_pod("pausing") is None, "the pod is gone")
        assert scenario.get("pausing")["status"]["phase"] == "Suspended"
        scenario.apply(scenario.manifest("pausing", phone=phone, suspend=False))
        watch.wait(has_condition("Connected"), "Connected", since=suspended.at)
    assert [d["id"] for d in scenario.simulator.devices(phone)] == [d["id"] for d in before]
