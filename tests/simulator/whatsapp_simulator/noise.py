"""Noise_XX_25519_AESGCM_SHA256 (noiseprotocol.org, revision 34), both roles, and the transport ciphers after it.

WhatsApp wraps the three messages in protobufs of its own, so the parts of each message are handled separately here:
`write_*` and `read_*` take and return (ephemeral, encrypted static, encrypted payload). One deviation is WhatsApp's:
message 1 has no payload at all, where Noise would hash an empty one.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from whatsapp_simulator.keys import KEY_SIZE, KeyPair, hkdf

PROTOCOL_NAME: Final = b"Noise_XX_25519_AESGCM_SHA256".ljust(32, b"\0")
PROLOGUE: Final = b"WA\x06\x03"
"""What a client sends ahead of its first frame: protocol version 6, dictionary version 3."""


class NoiseError(Exception):
    """The peer's handshake or transport message is not authentic or not well-formed."""


def _nonce(counter: int) -> bytes:
    return struct.pack(">IQ", 0, counter)


class CipherState:
    """One direction of the transport: AES-256-GCM with a counter as nonce and no associated data."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._counter = 0

    def encrypt(self, plaintext: bytes) -> bytes:
        ciphertext = self._aead.encrypt(_nonce(self._counter), plaintext, None)
        self._counter += 1
        return ciphertext

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Decrypt the next message; raises NoiseError if it is not authentic."""
        try:
            plaintext = self._aead.decrypt(_nonce(self._counter), ciphertext, None)
        except InvalidTag as error:
            raise NoiseError("a transport message is not authentic") from error
        self._counter += 1
        return plaintext


class _SymmetricState:
    def __init__(self, prologue: bytes) -> None:
        self._hash = self._chaining_key = PROTOCOL_NAME
        self._aead: AESGCM | None = None
        self._counter = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chaining_key, key = self._derive(secret)
        self._aead = AESGCM(key)
        self._counter = 0

    def _derive(self, secret: bytes) -> tuple[bytes, bytes]:
        output = hkdf(secret, salt=self._chaining_key, info=b"", length=2 * KEY_SIZE)
        return output[:KEY_SIZE], output[KEY_SIZE:]

    def _cipher(self) -> AESGCM:
        if self._aead is None:
            raise NoiseError("handshake messages are out of order")
        return self._aead

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = self._cipher().encrypt(_nonce(self._counter), plaintext, self._hash)
        self._counter += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        try:
            plaintext = self._cipher().decrypt(_nonce(self._counter), ciphertext, self._hash)
        except InvalidTag as error:
            raise NoiseError("a handshake message is not authentic") from error
        self._counter += 1
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers (initiator to responder, responder to initiator)."""
        first, second = self._derive(b"")
        return CipherState(first), CipherState(second)


def _agree(own: KeyPair, peer: bytes) -> bytes:
    try:
        return own.agree(peer)
    except ValueError as error:
        raise NoiseError("the peer's public key is malformed") from error


class Responder:
    """The server's side of one handshake."""

    def __init__(self, static: KeyPair, prologue: bytes = PROLOGUE, ephemeral: KeyPair | None = None) -> None:
        self._static = static
        self._ephemeral = ephemeral or KeyPair.generate()
        self._symmetric = _SymmetricState(prologue)

    def read_hello(self, ephemeral: bytes) -> None:
        """Message 1: e."""
        self._peer_ephemeral = ephemeral
        self._symmetric.mix_hash(ephemeral)

    def write_hello(self, payload: bytes) -> tuple[bytes, bytes, bytes]:
        """Message 2: e, ee, s, es, payload."""
        symmetric = self._symmetric
        symmetric.mix_hash(self._ephemeral.public)
        symmetric.mix_key(_agree(self._ephemeral, self._peer_ephemeral))
        static = symmetric.encrypt_and_hash(self._static.public)
        symmetric.mix_key(_agree(self._static, self._peer_ephemeral))
        return self._ephemeral.public, static, symmetric.encrypt_and_hash(payload)

    def read_finish(self, static: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """Message 3: s, se, payload. Returns the client's static public key and the payload.

        Raises:
            NoiseError: the message is not authentic.
        """
        symmetric = self._symmetric
        peer_static = symmetric.decrypt_and_hash(static)
        symmetric.mix_key(_agree(self._ephemeral, peer_static))
        return peer_static, symmetric.decrypt_and_hash(payload)

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers (client to server, server to client)."""
        return self._symmetric.split()


class Initiator:
    """The client's side of one handshake."""

    def __init__(self, static: KeyPair, prologue: bytes = PROLOGUE, ephemeral: KeyPair | None = None) -> None:
        self._static = static
        self._ephemeral = ephemeral or KeyPair.generate()
        self._symmetric = _SymmetricState(prologue)

    def write_hello(self) -> bytes:
        """Message 1: e."""
        self._symmetric.mix_hash(self._ephemeral.public)
        return self._ephemeral.public

    def read_hello(self, ephemeral: bytes, static: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """Message 2: e, ee, s, es, payload. Returns the server's static public key and the payload.

        Raises:
            NoiseError: the message is not authentic.
        """
        symmetric = self._symmetric
        symmetric.mix_hash(ephemeral)
        symmetric.mix_key(_agree(self._ephemeral, ephemeral))
        self._peer_ephemeral = ephemeral
        peer_static = symmetric.decrypt_and_hash(static)
        symmetric.mix_key(_agree(self._ephemeral, peer_static))
        return peer_static, symmetric.decrypt_and_hash(payload)

    def write_finish(self, payload: bytes) -> tuple[bytes, bytes]:
        """Message 3: s, se, payload."""
        symmetric = self._symmetric
        static = symmetric.encrypt_and_hash(self._static.public)
        symmetric.mix_key(_agree(self._static, self._peer_ephemeral))
        return static, symmetric.encrypt_and_hash(payload)

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers (client to server, server to client)."""
        return self._symmetric.split()
