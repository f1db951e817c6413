import pytest

from tests.unit.controller.builders import NOW, PHONE, UID, session
from whatsapp_operator.controller.objects import lease


def test_it_names_the_holder_and_no_number() -> None:
    body = lease.build(session(), "phone-1", "system", "1", NOW)
    assert body["spec"] == {"holderIdentity": f"team/shop/{UID}", "acquireTime": "2026-11-21T10:00:00.000000Z"}
    assert (body["metadata"]["name"], body["metadata"]["namespace"]) == ("phone-1", "system")
    assert PHONE.removeprefix("+") not in str(body)


def test_a_take_over_changes_only_the_holder() -> None:
    assert lease.holder_spec(session(), NOW) == lease.build(session(), "n", "s", "1", NOW)["spec"]


@pytest.mark.parametrize(
    ("identity", "holder"),
    [
        (f"team/shop/{UID}", ("team", "shop", UID)),
        ("a/b/c", ("a", "b", "c")),
        (None, None),
        ("", None),
        ("a/b", None),
        ("a/b/c/d", None),
        ("a//c", None),
        ("a/b/", None),
        # These would become part of the path of a request.
        ("a/?limit=1/c", None),
        ("a/b?x/c", None),
        ("../b/c", None),
        ("a b/b/c", None),
    ],
)
def test_only_names_of_kubernetes_are_read_as_a_holder(
    identity: str | None, holder: tuple[str, str, str] | None
) -> None:
    assert lease.read_identity(identity) == holder
