"""The X3DH key agreement (signal.org/docs/specifications/x3dh) with Signal's constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from whatsapp_simulator.keys import KEY_SIZE, KeyPair, hkdf, serialized, verify

_INFO: Final = b"WhisperText"
_PADDING: Final = b"\xff" * KEY_SIZE


class KeyAgreementError(ValueError):
    """A prekey bundle that must not be used."""


@dataclass(frozen=True, slots=True)
class SignedPreKey:
    """A medium-term public key (32 bytes), its number, and the identity's signature over it."""

    id: int
    public: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class PreKey:
    """A one-time public key (32 bytes) and its number."""

    id: int
    public: bytes


@dataclass(frozen=True, slots=True)
class PreKeyBundle:
    """What one needs to write to a device for the first time."""

    registration_id: int
    identity: bytes
    signed_pre_key: SignedPreKey
    pre_key: PreKey | None = None


def check_bundle(bundle: PreKeyBundle) -> None:
    """Raise KeyAgreementError unless the identity signed the signed prekey."""
    signed = bundle.signed_pre_key
    if not verify(bundle.identity, serialized(signed.public), signed.signature):
        raise KeyAgreementError("the signed prekey is not signed by the identity")


def _derive(*agreements: bytes) -> bytes:
    return hkdf(_PADDING + b"".join(agreements), salt=None, info=_INFO, length=KEY_SIZE)


def initiate(identity: KeyPair, base: KeyPair, bundle: PreKeyBundle) -> bytes:
    """The initiator's shared secret (32 bytes): the ratchet's first root key.

    Raises:
        KeyAgreementError: the bundle's signature is wrong.
    """
    check_bundle(bundle)
    signed = bundle.signed_pre_key.public
    one_time = base.agree(bundle.pre_key.public) if bundle.pre_key else b""
    return _derive(identity.agree(signed), base.agree(bundle.identity), base.agree(signed), one_time)


def respond(
    identity: KeyPair, signed_pre_key: KeyPair, pre_key: KeyPair | None, peer_identity: bytes, peer_base: bytes
) -> bytes:
    """The responder's shared secret (32 bytes)."""
    one_time = pre_key.agree(peer_base) if pre_key else b""
    return _derive(
        signed_pre_key.agree(peer_identity), identity.agree(peer_base), signed_pre_key.agree(peer_base), one_time
    )
