from tests.unit.controller.builders import NOW, PHONE, UID, session
from whatsapp_operator.controller.objects import lease


def test_it_names_the_holder_and_no_number() -> None:
    body = lease.build(session(), "phone-1", "system", "1", NOW)
    assert body["spec"] == {"holderIdentity": f"team/shop/{UID}", "acquireTime": "2026-11-21T10:00:00.000000Z"}
    assert (body["metadata"]["name"], body["metadata"]["namespace"]) == ("phone-1", "system")
    assert PHONE.removeprefix("+") not in str(body)


def test_a_take_over_changes_only_the_holder() -> None:
    assert lease.holder_spec(session(), NOW) == lease.build(session(), "n", "s", "1", NOW)["spec"]
