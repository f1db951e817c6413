"""What links a companion to an account: the QR text, the signatures, the pairing code."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.simulator.test_keys import ed25519_accepts
from whatsapp_simulator.keys import KeyPair
from whatsapp_simulator.pairing import adv, link_code
from whatsapp_simulator.pairing.qr import QRError, QRText
from whatsapp_simulator.protobuf import ADVDeviceIdentity, ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC

SECRET = bytes(range(32))
KEYS = [base64.b64encode(bytes([i]) * 32).decode() for i in range(3)]

# QR texts


@pytest.mark.parametrize(
    "text",
    [
        ",".join(["2@ref", *KEYS]),
        ",".join(["2@ref", *KEYS, "1"]),
        "https://wa.me/settings/linked_devices#" + ",".join(["2@ref", *KEYS, "1"]),
        " " + ",".join(["2@ref", *KEYS]) + "\n",
    ],
)
def test_qr_texts_of_all_clients(text: str) -> None:
    assert QRText.parse(text) == QRText("2@ref", bytes([0]) * 32, bytes([1]) * 32, bytes([2]) * 32)


@pytest.mark.parametrize(
    "text",
    ["", "2@ref", ",".join(["", *KEYS]), ",".join(["2@ref", *KEYS[:2]]), f"2@ref,{KEYS[0]},{KEYS[1]},AAAA", "a,b,c,!"],
)
def test_other_texts_are_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(QRError) as caught:
        QRText.parse(text)
    assert KEYS[0] not in str(caught.value)
    assert "adv_secret" not in repr(QRText("r", b"", b"", SECRET))


# ADV


@pytest.fixture
def account() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture
def companion() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture
def offer(account: KeyPair, companion: KeyPair) -> adv.Offer:
    return adv.Offer.create(account, companion.public, raw_id=7, key_index=3, now=1_790_000_000.5)


def test_the_account_signs_the_companion(offer: adv.Offer, account: KeyPair, companion: KeyPair) -> None:
    envelope = ADVSignedDeviceIdentityHMAC.FromString(offer.envelope(SECRET))
    assert hmac.new(SECRET, envelope.details, hashlib.sha256).digest() == envelope.HMAC
    signed = ADVSignedDeviceIdentity.FromString(envelope.details)
    assert signed.accountSignatureKey == account.public
    assert ed25519_accepts(account.public, b"\x06\x00" + signed.details + companion.public, signed.accountSignature)
    details = ADVDeviceIdentity.FromString(signed.details)
    assert (details.rawID, details.timestamp, details.keyIndex) == (7, 1_790_000_000, 3)


def test_the_companion_signs_the_account(offer: adv.Offer, account: KeyPair, companion: KeyPair) -> None:
    complete = ADVSignedDeviceIdentity.FromString(offer.accept(adv.answer(offer.envelope(SECRET), SECRET, companion)))
    covered = b"\x06\x01" + complete.details + companion.public + account.public
    assert ed25519_accepts(companion.public, covered, complete.deviceSignature)
    assert complete.accountSignatureKey == account.public


def test_a_wrong_hmac_is_refused(offer: adv.Offer, companion: KeyPair) -> None:
    with pytest.raises(adv.EnvelopeError, match="hmac-mismatch"):
        adv.answer(offer.envelope(bytes(32)), SECRET, companion)


def test_a_wrong_account_signature_is_refused(offer: adv.Offer) -> None:
    with pytest.raises(adv.EnvelopeError, match="signature-mismatch"):
        adv.answer(offer.envelope(SECRET), SECRET, KeyPair.generate())


def test_a_wrong_device_signature_is_refused(offer: adv.Offer) -> None:
    answer = ADVSignedDeviceIdentity(deviceSignature=KeyPair.generate().sign(b"")).SerializeToString()
    with pytest.raises(adv.DeviceSignatureError, match="wrong"):
        offer.accept(answer)
    with pytest.raises(adv.DeviceSignatureError, match="malformed"):
        offer.accept(b"\xff")


# Pairing code

codes = st.text(link_code.ALPHABET, min_size=8, max_size=8)


@given(codes)
def test_codes_with_and_without_dash(code: str) -> None:
    assert link_code.normalize(code) == link_code.normalize(f"{code[:4]}-{code[4:]}".lower()) == code


@pytest.mark.parametrize("text", ["", "ABCD", "ABCD-EFGHJ", "ABCD-EFG0", "ABCD-EFGO", "ABCD-EFGI"])
def test_other_codes_are_refused(text: str) -> None:
    with pytest.raises(link_code.CodeError):
        link_code.normalize(text)


def exchange(shown: str, typed: str, phone: KeyPair, client: KeyPair) -> tuple[bytes, bytes]:
    """Both sides' ADV secrets after an exchange in which one code is shown and another is typed."""
    client_ephemeral, phone_ephemeral = KeyPair.generate(), KeyPair.generate()
    at_phone = link_code.unwrap(typed, link_code.wrap(shown, client_ephemeral.public))
    at_client = link_code.unwrap(shown, link_code.wrap(typed, phone_ephemeral.public))
    finish, secret = link_code.seal_bundle(client_ephemeral, at_client, client, phone.public)
    return link_code.open_bundle(finish, phone_ephemeral, at_phone, phone), secret


def test_the_right_code_gives_both_sides_the_same_secret(account: KeyPair, companion: KeyPair) -> None:
    ours, theirs = exchange("ABCDEFGH", "ABCDEFGH", account, companion)
    assert ours == theirs
    assert len(ours) == 32


def test_a_wrong_code_opens_nothing(account: KeyPair, companion: KeyPair) -> None:
    with pytest.raises(link_code.WrongCodeError):
        exchange("ABCDEFGH", "ABCDEFGJ", account, companion)


def test_a_bundle_for_another_account_is_refused(companion: KeyPair) -> None:
    first, second = KeyPair.generate(), KeyPair.generate()
    finish, _ = link_code.seal_bundle(first, second.public, companion, KeyPair.generate().public)
    with pytest.raises(link_code.WrongCodeError, match="other identities"):
        link_code.open_bundle(finish, second, first.public, KeyPair.generate())


def test_a_wrapped_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="80 bytes"):
        link_code.unwrap("ABCDEFGH", b"short")
