"""A session with one device: its current conversation and a few that a newer one has replaced.

Both sides may start a conversation at once, and a peer that lost its state starts another, so a message may belong to
an older conversation than the current one. As in libsignal, the one that a message belongs to becomes current.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from whatsapp_simulator.keys import KeyPair, raw, serialized
from whatsapp_simulator.protobuf import PreKeySignalMessage, ProtobufDecodeError
from whatsapp_simulator.signal import x3dh
from whatsapp_simulator.signal.ratchet import VERSION, DoubleRatchet, UndecryptableError

MAX_CONVERSATIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """An encrypted message; `pkmsg` can be read without an earlier one, `msg` cannot."""

    type: Literal["pkmsg", "msg"]
    data: bytes


@dataclass(frozen=True, slots=True)
class _Opening:
    """What each message repeats until the peer has answered one."""

    registration_id: int
    pre_key_id: int | None
    signed_pre_key_id: int


@dataclass(slots=True)
class _Conversation:
    peer_identity: bytes
    base_key: bytes
    ratchet: DoubleRatchet
    opening: _Opening | None


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """The private keys that a first message may refer to; a lookup returns None for a key that is not there."""

    identity: KeyPair
    signed_pre_key: Callable[[int], KeyPair | None]
    pre_key: Callable[[int], KeyPair | None]


@dataclass(slots=True)
class Session:
    """Conversations with one device, the current one first."""

    _conversations: list[_Conversation] = field(default_factory=list)

    @property
    def established(self) -> bool:
        return bool(self._conversations)

    def initiate(
        self, identity: KeyPair, registration_id: int, bundle: x3dh.PreKeyBundle, plaintext: bytes
    ) -> Ciphertext:
        """Start a new conversation with its first message.

        Raises:
            KeyAgreementError: the bundle's signature is wrong.
        """
        base = KeyPair.generate()
        secret = x3dh.initiate(identity, base, bundle)
        peer = raw(bundle.identity)
        ratchet, message = DoubleRatchet.initiate(
            secret, bundle.signed_pre_key.public, plaintext, serialized(identity.public) + serialized(peer)
        )
        opening = _Opening(registration_id, bundle.pre_key.id if bundle.pre_key else None, bundle.signed_pre_key.id)
        conversation = _Conversation(peer, base.public, ratchet, opening)
        self._promote(conversation)
        return _envelope(identity, conversation, message)

    def encrypt(self, identity: KeyPair, plaintext: bytes) -> Ciphertext:
        """Encrypt within the current conversation.

        Raises:
            LookupError: there is none; see `initiate`.
        """
        if not self._conversations:
            raise LookupError("no conversation with this device")
        current = self._conversations[0]
        identities = serialized(identity.public) + serialized(current.peer_identity)
        return _envelope(identity, current, current.ratchet.encrypt(plaintext, identities))

    def decrypt(self, keys: OwnKeys, message: Ciphertext) -> bytes:
        """Decrypt a message of either type.

        A one-time prekey that a `pkmsg` used is the caller's to delete, see `pre_key_of`.

        Raises:
            UndecryptableError: it is malformed, not authentic, a repetition, or names a key that is not there.
        """
        if message.type == "pkmsg":
            return self._decrypt_first(keys, _parse(message.data))
        return self._decrypt_known(keys.identity, message.data, self._conversations)

    def _decrypt_first(self, keys: OwnKeys, first: PreKeySignalMessage) -> bytes:
        peer, base = _raw(first.identity_key), _raw(first.base_key)
        known = [c for c in self._conversations if c.base_key == base]
        if known:
            return self._decrypt_known(keys.identity, first.message, known)
        signed = keys.signed_pre_key(first.signed_pre_key_id)
        if signed is None:
            raise UndecryptableError("the signed prekey is not there")
        one_time = None
        if first.HasField("pre_key_id"):
            one_time = keys.pre_key(first.pre_key_id)
            if one_time is None:
                raise UndecryptableError("the one-time prekey is not there")
        secret = x3dh.respond(keys.identity, signed, one_time, peer, base)
        identities = serialized(peer) + serialized(keys.identity.public)
        ratchet, plaintext = DoubleRatchet.accept(secret, signed.private, first.message, identities)
        self._promote(_Conversation(peer, base, ratchet, None))
        return plaintext

    def _decrypt_known(self, identity: KeyPair, message: bytes, conversations: list[_Conversation]) -> bytes:
        cause: UndecryptableError | None = None
        for conversation in conversations:
            identities = serialized(conversation.peer_identity) + serialized(identity.public)
            try:
                plaintext = conversation.ratchet.decrypt(message, identities)
            except UndecryptableError as error:
                cause = cause or error
                continue
            conversation.opening = None
            self._promote(conversation)
            return plaintext
        raise cause or UndecryptableError("no conversation with this device")

    def _promote(self, conversation: _Conversation) -> None:
        others = [c for c in self._conversations if c is not conversation]
        self._conversations = [conversation, *others][:MAX_CONVERSATIONS]

    def dump(self) -> str:
        """The session as JSON text."""
        return json.dumps(
            [
                {
                    "peer_identity": c.peer_identity.hex(),
                    "base_key": c.base_key.hex(),
                    "opening": c.opening
                    and [c.opening.registration_id, c.opening.pre_key_id, c.opening.signed_pre_key_id],
                    "ratchet": c.ratchet.json,
                }
                for c in self._conversations
            ]
        )

    @classmethod
    def load(cls, text: str) -> Session:
        """Restore a session from `dump`."""
        return cls([_load_conversation(entry) for entry in json.loads(text)])


def _load_conversation(entry: dict[str, Any]) -> _Conversation:
    return _Conversation(
        peer_identity=bytes.fromhex(entry["peer_identity"]),
        base_key=bytes.fromhex(entry["base_key"]),
        ratchet=DoubleRatchet.load(entry["ratchet"]),
        opening=_Opening(*entry["opening"]) if entry["opening"] else None,
    )


def _envelope(identity: KeyPair, conversation: _Conversation, message: bytes) -> Ciphertext:
    opening = conversation.opening
    if opening is None:
        return Ciphertext("msg", message)
    envelope = PreKeySignalMessage(
        pre_key_id=opening.pre_key_id,
        base_key=serialized(conversation.base_key),
        identity_key=serialized(identity.public),
        message=message,
        registration_id=opening.registration_id,
        signed_pre_key_id=opening.signed_pre_key_id,
    )
    return Ciphertext("pkmsg", bytes([VERSION]) + envelope.SerializeToString())


def _parse(data: bytes) -> PreKeySignalMessage:
    if not data or data[0] != VERSION:
        raise UndecryptableError("not a Signal message of version 3")
    try:
        message = PreKeySignalMessage()
        message.ParseFromString(data[1:])
    except ProtobufDecodeError as error:
        raise UndecryptableError("the message is malformed") from error
    return message


def _raw(public: bytes) -> bytes:
    try:
        return raw(public)
    except ValueError as error:
        raise UndecryptableError(str(error)) from error


def pre_key_of(message: Ciphertext) -> int | None:
    """The number of the one-time prekey that a `pkmsg` used, if any."""
    if message.type != "pkmsg":
        return None
    parsed = _parse(message.data)
    return parsed.pre_key_id if parsed.HasField("pre_key_id") else None
