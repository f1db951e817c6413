"""The root key in a trust bundle, and in the library's memory."""

import pytest

from whatsapp_simulator.trust import TRUST_LINE, TrustError, root_in, trust_root

KEY = bytes(range(32))
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def test_the_root_key_of_a_bundle() -> None:
    assert root_in(f"{CERTIFICATE}{TRUST_LINE}{KEY.hex()}\n") == KEY


@pytest.mark.parametrize("line", ["", TRUST_LINE, TRUST_LINE + "zz", TRUST_LINE + KEY.hex()[:-2]])
def test_a_bundle_without_a_usable_root_key(line: str) -> None:
    with pytest.raises(TrustError):
        root_in(CERTIFICATE + line)


def test_a_key_that_the_library_does_not_hold() -> None:
    with pytest.raises(TrustError):
        trust_root(KEY, current=bytes(reversed(KEY)))


@pytest.mark.parametrize("key", [b"", KEY[:-1], KEY + b"x"])
def test_a_key_of_another_size(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        trust_root(key)
