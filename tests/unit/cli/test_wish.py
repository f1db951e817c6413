"""What `link` makes of its options."""

import pytest

from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.api.reasons import PairingMethod
from whatsapp_operator.cli.exits import CliError, Exit
from whatsapp_operator.cli.reading import Session
from whatsapp_operator.cli.wish import Wish

FULL = Wish(
    tenant="acme",
    phone="+15551230001",
    method=PairingMethod.PAIRING_CODE,
    attempts=5,
    display_name="Chrome (Linux)",
    proxy_secret="egress/url",
    ca_config_map="trust/ca.crt",
    storage_class="fast",
    size="512Mi",
)


def test_a_wish_becomes_a_session() -> None:
    body = FULL.manifest("support", "shop")
    found = WhatsAppSession.model_validate(body)
    assert (found.metadata.name, found.metadata.namespace, found.spec.tenant) == ("support", "shop", "acme")
    assert found.spec.pairing.method is PairingMethod.PAIRING_CODE
    assert found.spec.proxy is not None
    assert found.spec.proxy.secret_ref is not None
    assert found.spec.storage.size == "512Mi"
    assert Wish(tenant="acme").manifest("a", "b")["spec"] == {"tenant": "acme"}


def test_a_session_needs_a_tenant() -> None:
    with pytest.raises(CliError, match="there is no session support") as raised:
        Wish(phone="+15551230001").manifest("support", "shop")
    assert raised.value.code is Exit.USAGE


@pytest.mark.parametrize("text", ["egress", "/url", "egress/"])
def test_a_reference_is_a_name_and_a_key(text: str) -> None:
    with pytest.raises(CliError, match="NAME/KEY"):
        Wish(proxy_secret=text).spec()


def test_a_session_that_exists_is_never_changed() -> None:
    found = Session(FULL.manifest("support", "shop"))
    FULL.check(found)
    Wish().check(found)
    Wish(tenant="acme", attempts=5).check(found)
    for wish in (Wish(phone="+15551230002"), Wish(method=PairingMethod.QR_CODE), Wish(ca_config_map="trust/other")):
        with pytest.raises(CliError, match="exists with another spec"):
            wish.check(found)
