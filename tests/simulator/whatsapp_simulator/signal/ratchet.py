"""The double ratchet of the `DoubleRatchet` package with Signal's constants and message format.

Signal authenticates the whole serialised message, ciphertext included, and truncates the tag to 8 bytes. A message is
    version byte 0x33 || SignalMessage || tag,  tag = HMAC(sender's identity || receiver's identity || all before it)
so `associated_data` given to the package is the two identities when encrypting, and the exact bytes that the tag
covers when decrypting: a peer's protobuf encoding is never reproduced, only read.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypedDict, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from doubleratchet import (
    AEAD,
    KDF,
    AuthenticationFailedException,
    DecryptionFailedException,
    DiffieHellmanRatchet,
    DoSProtectionException,
    DuplicateMessageException,
    EncryptedMessage,
    Header,
)
from doubleratchet import DoubleRatchet as AbstractDoubleRatchet
from doubleratchet.recommended import (
    HashFunction,
    diffie_hellman_ratchet_curve25519,
    kdf_hkdf,
    kdf_separate_hmacs,
)
from doubleratchet.types import JSONObject

from whatsapp_simulator.keys import hkdf, raw, serialized
from whatsapp_simulator.protobuf import ProtobufDecodeError, SignalMessage

VERSION: Final = 0x33
TAG_SIZE: Final = 8
MAX_SKIPPED: Final = 2000
"""How many messages may be missing at once, and how many of their keys are kept (libsignal's own limit)."""

_MESSAGE_KEYS_INFO: Final = b"WhisperMessageKeys"
_BLOCK: Final = 16
_UINT32_MAX: Final = (1 << 32) - 1

T = TypeVar("T")


class UndecryptableError(ValueError):
    """A message that cannot be decrypted; the text names the cause."""


def completed(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits. The package's interface is asynchronous, its arithmetic is not."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("the double ratchet waited for something")


class RootChain(kdf_hkdf.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"WhisperRatchet"


class MessageChain(kdf_separate_hmacs.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


class MessageCipher(AEAD):
    """AES-256-CBC and a truncated HMAC, keyed from the message key; the tag is kept apart by the caller."""

    @staticmethod
    async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
        cipher_key, mac_key, iv = _message_keys(key)
        padder = PKCS7(_BLOCK * 8).padder()
        encryptor = Cipher(algorithms.AES(cipher_key), modes.CBC(iv)).encryptor()
        ciphertext = encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()
        identities, header = associated_data[:-_HEADER_SIZE], associated_data[-_HEADER_SIZE:]
        body = _serialize(_unpack_header(header), ciphertext)
        return body + _tag(mac_key, identities + body)

    @staticmethod
    async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
        cipher_key, mac_key, iv = _message_keys(key)
        covered = associated_data[:-_HEADER_SIZE]
        body, tag = ciphertext[:-TAG_SIZE], ciphertext[-TAG_SIZE:]
        if not hmac.compare_digest(tag, _tag(mac_key, covered)):
            raise AuthenticationFailedException("the tag does not match")
        decryptor = Cipher(algorithms.AES(cipher_key), modes.CBC(iv)).decryptor()
        unpadder = PKCS7(_BLOCK * 8).unpadder()
        try:
            padded = decryptor.update(body) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError as error:
            raise DecryptionFailedException("the padding is wrong") from error


def _message_keys(key: bytes) -> tuple[bytes, bytes, bytes]:
    output = hkdf(key, salt=None, info=_MESSAGE_KEYS_INFO, length=80)
    return output[:32], output[32:64], output[64:]


def _tag(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()[:TAG_SIZE]


_HEADER_SIZE: Final = 32 + 4 + 4


def _pack_header(header: Header) -> bytes:
    return (
        header.ratchet_pub
        + header.previous_sending_chain_length.to_bytes(4, "big")
        + header.sending_chain_length.to_bytes(4, "big")
    )


def _unpack_header(packed: bytes) -> Header:
    return Header(packed[:32], int.from_bytes(packed[32:36], "big"), int.from_bytes(packed[36:], "big"))


def _serialize(header: Header, ciphertext: bytes) -> bytes:
    message = SignalMessage(
        ratchet_key=serialized(header.ratchet_pub),
        counter=header.sending_chain_length,
        # libsignal sends the index of the previous chain's last message, not that chain's length
        previous_counter=max(header.previous_sending_chain_length - 1, 0),
        ciphertext=ciphertext,
    )
    return bytes([VERSION]) + message.SerializeToString()


class _Parameters(TypedDict):
    diffie_hellman_ratchet_class: type[DiffieHellmanRatchet]
    root_chain_kdf: type[KDF]
    message_chain_kdf: type[KDF]
    message_chain_constant: bytes
    dos_protection_threshold: int
    max_num_skipped_message_keys: int
    aead: type[AEAD]


_PARAMETERS: Final = _Parameters(
    diffie_hellman_ratchet_class=diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
    root_chain_kdf=RootChain,
    message_chain_kdf=MessageChain,
    message_chain_constant=b"\x02\x01",
    dos_protection_threshold=MAX_SKIPPED,
    max_num_skipped_message_keys=MAX_SKIPPED,
    aead=MessageCipher,
)


class DoubleRatchet(AbstractDoubleRatchet):
    """Signal's double ratchet, without the package's coroutines."""

    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Header) -> bytes:
        return associated_data + _pack_header(header)

    @classmethod
    def initiate(
        cls, secret: bytes, peer_ratchet: bytes, plaintext: bytes, identities: bytes
    ) -> tuple[DoubleRatchet, bytes]:
        """Start a conversation with the peer's signed prekey as its first ratchet key."""
        ratchet, message = completed(
            cls.encrypt_initial_message(
                **_PARAMETERS,
                shared_secret=secret,
                recipient_ratchet_pub=peer_ratchet,
                message=plaintext,
                associated_data=identities,
            )
        )
        return ratchet, message.ciphertext

    @classmethod
    def accept(
        cls, secret: bytes, own_ratchet: bytes, message: bytes, identities: bytes
    ) -> tuple[DoubleRatchet, bytes]:
        """Join a conversation that a peer started; `own_ratchet` is the private signed prekey it used.

        Raises:
            UndecryptableError: the message is malformed or not authentic.
        """
        with _undecryptable():
            return completed(
                cls.decrypt_initial_message(
                    **_PARAMETERS,
                    shared_secret=secret,
                    own_ratchet_priv=own_ratchet,
                    message=_parse(message),
                    associated_data=identities + message[:-TAG_SIZE],
                )
            )

    @classmethod
    def load(cls, state: JSONObject) -> DoubleRatchet:
        """Restore a conversation from its `json`."""
        return cls.from_json(state, **_PARAMETERS)

    def encrypt(self, plaintext: bytes, identities: bytes) -> bytes:
        return completed(self.encrypt_message(plaintext, identities)).ciphertext

    def decrypt(self, message: bytes, identities: bytes) -> bytes:
        """Decrypt a serialised message; a failure leaves the conversation as it was.

        Raises:
            UndecryptableError: the message is malformed, not authentic, a repetition, or too far ahead.
        """
        with _undecryptable():
            return completed(self.decrypt_message(_parse(message), identities + message[:-TAG_SIZE]))


@contextmanager
def _undecryptable() -> Iterator[None]:
    try:
        yield
    except (
        AuthenticationFailedException,
        DecryptionFailedException,
        DoSProtectionException,
        DuplicateMessageException,
        ProtobufDecodeError,
        ValueError,
    ) as error:
        raise UndecryptableError(f"{type(error).__name__}: {error}") from error


def _parse(message: bytes) -> EncryptedMessage:
    if len(message) <= TAG_SIZE or message[0] != VERSION:
        raise ValueError("not a Signal message of version 3")
    parsed = SignalMessage.FromString(message[1:-TAG_SIZE])
    # The index of the previous chain's last message; of an empty chain, some send -1 as an unsigned number.
    previous_length = (parsed.previous_counter + 1) & _UINT32_MAX
    header = Header(raw(parsed.ratchet_key), previous_length, parsed.counter)
    return EncryptedMessage(header, parsed.ciphertext + message[-TAG_SIZE:])
