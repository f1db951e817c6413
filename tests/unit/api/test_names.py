import pytest

from whatsapp_operator.api import names


def test_claims_of_one_phone_differ_by_scope_and_key() -> None:
    claims = {
        names.claim_name(key, scope, phone)
        for key in (b"k1", b"k2")
        for scope in ("n/acme", "n/other")
        for phone in ("+15551230001", "+15551230002")
    }
    assert len(claims) == 8


def test_a_claim_name_is_a_valid_object_name_and_hides_the_number() -> None:
    name = names.claim_name(b"key", "n/acme", "+15551230001")
    assert name.startswith("phone-")
    assert len(name) == len("phone-") + 32
    assert "5551230001" not in name


@pytest.mark.parametrize(("scope", "phone"), [("n/a\0+1", "555"), ("n/a", "+1555")])
def test_a_claim_name_is_stable(scope: str, phone: str) -> None:
    assert names.claim_name(b"k", scope, phone) == names.claim_name(b"k", scope, phone)


def test_scope_and_phone_cannot_be_shifted_into_each_other() -> None:
    assert names.claim_name(b"k", "n/a+1", "555") != names.claim_name(b"k", "n/a", "+1555")
