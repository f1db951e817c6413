"""The pairing code: a key exchange whose messages are encrypted under the eight characters the user types."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from whatsapp_simulator.keys import KEY_SIZE, KeyPair, hkdf

ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTVWXYZ"
"""Crockford's base 32 with another choice of digits."""
CODE_LENGTH: Final = 8

_ITERATIONS: Final = 131_072
_SALT_SIZE: Final = 32
_IV_SIZE: Final = 16
_NONCE_SIZE: Final = 12
_WRAPPED_KEY_SIZE: Final = _SALT_SIZE + _IV_SIZE + KEY_SIZE
_BUNDLE_INFO: Final = b"link_code_pairing_key_bundle_encryption_key"
_ADV_INFO: Final = b"adv_secret"


class CodeError(ValueError):
    """The text is not a pairing code."""


class WrongCodeError(ValueError):
    """The key bundle does not open: the code typed is not the code shown."""


def normalize(code: str) -> str:
    """A code without its dash, in capitals.

    Raises:
        CodeError: it has not eight characters of the alphabet.
    """
    text = code.replace("-", "").upper()
    if not re.fullmatch(f"[{ALPHABET}]{{{CODE_LENGTH}}}", text):
        raise CodeError("a pairing code has eight characters of 1-9 and A-Z without I, O and U")
    return text


def _cipher(code: str, salt: bytes, iv: bytes, data: bytes) -> bytes:
    key = hashlib.pbkdf2_hmac("sha256", code.encode(), salt, _ITERATIONS, KEY_SIZE)
    cipher = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return cipher.update(data) + cipher.finalize()


def wrap(code: str, public: bytes) -> bytes:
    """An ephemeral public key encrypted under the code: salt || iv || AES-256-CTR. Takes some 0.1 s."""
    salt, iv = secrets.token_bytes(_SALT_SIZE), secrets.token_bytes(_IV_SIZE)
    return salt + iv + _cipher(code, salt, iv, public)


def unwrap(code: str, wrapped: bytes) -> bytes:
    """The reverse of `wrap`. A wrong code yields another key, not an error.

    Raises:
        ValueError: the length is wrong.
    """
    if len(wrapped) != _WRAPPED_KEY_SIZE:
        raise ValueError("a wrapped ephemeral key has 80 bytes")
    salt, iv = wrapped[:_SALT_SIZE], wrapped[_SALT_SIZE : _SALT_SIZE + _IV_SIZE]
    return _cipher(code, salt, iv, wrapped[_SALT_SIZE + _IV_SIZE :])


@dataclass(frozen=True, slots=True)
class Finish:
    """The client's last message: the encrypted key bundle and its identity."""

    wrapped_bundle: bytes
    identity: bytes


def open_bundle(finish: Finish, ephemeral: KeyPair, peer_ephemeral: bytes, identity: KeyPair) -> bytes:
    """The phone's side: check the client's bundle and derive the ADV secret (32 bytes).

    Raises:
        WrongCodeError: the bundle does not open, or holds other identities than those announced.
    """
    shared = ephemeral.agree(peer_ephemeral)
    wrapped = finish.wrapped_bundle
    salt, nonce = wrapped[:_SALT_SIZE], wrapped[_SALT_SIZE : _SALT_SIZE + _NONCE_SIZE]
    key = hkdf(shared, salt=salt, info=_BUNDLE_INFO, length=KEY_SIZE)
    try:
        bundle = AESGCM(key).decrypt(nonce, wrapped[_SALT_SIZE + _NONCE_SIZE :], None)
    except (InvalidTag, ValueError) as error:
        raise WrongCodeError("the key bundle does not open with this code") from error
    companion, primary, random = bundle[:32], bundle[32:64], bundle[64:]
    if companion != finish.identity or primary != identity.public:
        raise WrongCodeError("the key bundle is for other identities")
    return hkdf(shared + identity.agree(companion) + random, salt=None, info=_ADV_INFO, length=KEY_SIZE)


def seal_bundle(
    ephemeral: KeyPair, peer_ephemeral: bytes, identity: KeyPair, peer_identity: bytes
) -> tuple[Finish, bytes]:
    """The client's side: its last message, and the ADV secret (32 bytes)."""
    shared = ephemeral.agree(peer_ephemeral)
    salt, nonce, random = (secrets.token_bytes(size) for size in (_SALT_SIZE, _NONCE_SIZE, KEY_SIZE))
    key = hkdf(shared, salt=salt, info=_BUNDLE_INFO, length=KEY_SIZE)
    sealed = AESGCM(key).encrypt(nonce, identity.public + peer_identity + random, None)
    adv_secret = hkdf(shared + identity.agree(peer_identity) + random, salt=None, info=_ADV_INFO, length=KEY_SIZE)
    return Finish(salt + nonce + sealed, identity.public), adv_secret
