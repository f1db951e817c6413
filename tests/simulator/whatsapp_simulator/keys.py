"""Curve25519 key pairs that agree on secrets (X25519) and sign (XEdDSA)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

import xeddsa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

_CURVE25519_TYPE: Final = b"\x05"


def serialized(public: bytes) -> bytes:
    """A public key as Signal messages and signatures carry it: with its type byte, 33 bytes."""
    return _CURVE25519_TYPE + public


def raw(public: bytes) -> bytes:
    """A public key without its type byte, if it has one.

    Raises:
        ValueError: it has neither 32 bytes nor 33 with the type of Curve25519.
    """
    if len(public) == KEY_SIZE + 1 and public.startswith(_CURVE25519_TYPE):
        return public[1:]
    if len(public) != KEY_SIZE:
        raise ValueError(f"a public key of {len(public)} bytes")
    return public


def hkdf(secret: bytes, *, salt: bytes | None, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869); a missing salt is 32 zero bytes."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An X25519 private key (32 bytes, clamped) and its public key (32 bytes)."""

    private: bytes
    public: bytes

    @classmethod
    def generate(cls) -> KeyPair:
        return cls.from_private(secrets.token_bytes(KEY_SIZE))

    @classmethod
    def from_private(cls, private: bytes) -> KeyPair:
        """Complete a private key, clamping it as RFC 7748 says; raises ValueError unless it has 32 bytes."""
        if len(private) != KEY_SIZE:
            raise ValueError(f"a private key of {len(private)} bytes")
        clamped = bytes([private[0] & 248]) + private[1:31] + bytes([private[31] & 127 | 64])
        public = X25519PrivateKey.from_private_bytes(clamped).public_key().public_bytes_raw()
        return cls(clamped, public)

    def agree(self, public: bytes) -> bytes:
        """The X25519 shared secret with a public key, with or without type byte.

        Raises:
            ValueError: the public key is malformed or of small order.
        """
        peer = X25519PublicKey.from_public_bytes(raw(public))
        return X25519PrivateKey.from_private_bytes(self.private).exchange(peer)

    def sign(self, message: bytes) -> bytes:
        """An XEdDSA signature (64 bytes); its sign bit is always 0."""
        return xeddsa.ed25519_priv_sign(xeddsa.priv_force_sign(self.private, False), message)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Check a client's signature against its X25519 public key, with or without type byte.

    The Edwards sign bit that XEdDSA fixes to 0 travels in the top bit of the signature here, as in libsignal.
    """
    if len(signature) != SIGNATURE_SIZE:
        return False
    sign_bit = bool(signature[-1] & 0x80)
    try:
        edwards = xeddsa.curve25519_pub_to_ed25519_pub(raw(public), sign_bit)
    except (ValueError, xeddsa.XEdDSAException):
        return False
    return xeddsa.ed25519_verify(signature[:-1] + bytes([signature[-1] & 0x7F]), edwards, message)
