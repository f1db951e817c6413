"""Signatures and agreements, checked against implementations other than the one in use."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_simulator.keys import KeyPair, raw, serialized, verify

PRIME = 2**255 - 19

private_keys = st.binary(min_size=32, max_size=32)
messages = st.binary(max_size=200)


def edwards(montgomery: bytes, sign_bit: int) -> bytes:
    """The Ed25519 key for an X25519 key, by the formula of RFC 7748: y = (u - 1) / (u + 1)."""
    u = int.from_bytes(montgomery, "little") % PRIME
    y = (u - 1) * pow(u + 1, -1, PRIME) % PRIME
    return (y | sign_bit << 255).to_bytes(32, "little")


def ed25519_accepts(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether plain Ed25519, as `cryptography` has it, accepts an XEdDSA signature."""
    plain = signature[:-1] + bytes([signature[-1] & 0x7F])
    try:
        Ed25519PublicKey.from_public_bytes(edwards(public, signature[-1] >> 7)).verify(plain, message)
    except InvalidSignature:
        return False
    return True


def signed_as_libsignal(seed: bytes, message: bytes) -> tuple[bytes, bytes]:
    """A public key and a signature whose top bit carries the Edwards sign, made by plain Ed25519."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = KeyPair.from_private(hashlib.sha512(seed).digest()[:32]).public
    signature = bytearray(key.sign(message))
    signature[63] |= key.public_key().public_bytes_raw()[31] & 0x80
    return public, bytes(signature)


@given(private_keys, messages)
def test_our_signatures_are_valid_elsewhere(private: bytes, message: bytes) -> None:
    key = KeyPair.from_private(private)
    signature = key.sign(message)
    assert signature[63] & 0x80 == 0
    assert ed25519_accepts(key.public, message, signature)
    assert verify(key.public, message, signature)
    assert verify(serialized(key.public), message, signature)


@given(private_keys, messages)
def test_signatures_made_elsewhere_are_valid_here(seed: bytes, message: bytes) -> None:
    public, signature = signed_as_libsignal(seed, message)
    assert verify(public, message, signature)


def test_both_signs_occur() -> None:
    tops = {signed_as_libsignal(bytes([i]) * 32, b"")[1][63] & 0x80 for i in range(20)}
    assert tops == {0, 0x80}


@given(private_keys, messages, st.integers(0, 511))
def test_a_changed_bit_invalidates_a_signature(private: bytes, message: bytes, bit: int) -> None:
    key = KeyPair.from_private(private)
    signature = bytearray(key.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(key.public, message, bytes(signature))
    assert not verify(key.public, message + b"x", key.sign(message))


def test_malformed_keys_and_signatures_are_not_valid() -> None:
    key = KeyPair.generate()
    assert not verify(key.public, b"", b"short")
    assert not verify(key.public[:-1], b"", key.sign(b""))
    assert not verify(b"\x06" + key.public, b"", key.sign(b""))


def test_agreement_as_in_rfc_7748() -> None:
    """Section 6.1."""
    alice = KeyPair.from_private(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = KeyPair.from_private(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert alice.agree(bob.public).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@given(private_keys, private_keys)
def test_both_sides_agree(first: bytes, second: bytes) -> None:
    one, other = KeyPair.from_private(first), KeyPair.from_private(second)
    assert one.agree(other.public) == other.agree(serialized(one.public))
    assert raw(serialized(one.public)) == one.public
