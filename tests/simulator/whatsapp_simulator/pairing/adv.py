"""ADV: the account's signature over a companion's identity, the companion's over the account, and the HMAC around."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from whatsapp_simulator.keys import KeyPair, verify
from whatsapp_simulator.protobuf import (
    ADVDeviceIdentity,
    ADVSignedDeviceIdentity,
    ADVSignedDeviceIdentityHMAC,
    ProtobufDecodeError,
)

_ACCOUNT_PREFIX: Final = b"\x06\x00"
_DEVICE_PREFIX: Final = b"\x06\x01"


class DeviceSignatureError(ValueError):
    """The companion's answer does not prove that it holds its identity key."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the account signed for a companion, before the companion has signed too."""

    signed: ADVSignedDeviceIdentity
    companion_identity: bytes

    @classmethod
    def create(cls, account: KeyPair, companion_identity: bytes, raw_id: int, key_index: int, now: float) -> Offer:
        details = ADVDeviceIdentity(rawID=raw_id, timestamp=int(now), keyIndex=key_index).SerializeToString()
        signature = account.sign(_ACCOUNT_PREFIX + details + companion_identity)
        return cls(
            ADVSignedDeviceIdentity(details=details, accountSignatureKey=account.public, accountSignature=signature),
            companion_identity,
        )

    def envelope(self, adv_secret: bytes) -> bytes:
        """The serialised ADVSignedDeviceIdentityHMAC for `pair-success`."""
        details = self.signed.SerializeToString()
        return ADVSignedDeviceIdentityHMAC(details=details, HMAC=_hmac(adv_secret, details)).SerializeToString()

    def accept(self, answer: bytes) -> bytes:
        """Check the companion's ADVSignedDeviceIdentity and return it complete, serialised, with both signatures.

        Raises:
            DeviceSignatureError: it is malformed, or the device signature is missing or wrong.
        """
        try:
            device_signature = ADVSignedDeviceIdentity.FromString(answer).deviceSignature
        except ProtobufDecodeError as error:
            raise DeviceSignatureError("the answer is malformed") from error
        if not verify(self.companion_identity, self._covered(), device_signature):
            raise DeviceSignatureError("the device signature is wrong")
        complete = ADVSignedDeviceIdentity()
        complete.CopyFrom(self.signed)
        complete.deviceSignature = device_signature
        return complete.SerializeToString()

    def _covered(self) -> bytes:
        return _DEVICE_PREFIX + self.signed.details + self.companion_identity + self.signed.accountSignatureKey


def _hmac(secret: bytes, details: bytes) -> bytes:
    return hmac.new(secret, details, hashlib.sha256).digest()


class EnvelopeError(ValueError):
    """A `pair-success` that a client must refuse; the message is the error text a client answers."""


def answer(envelope: bytes, adv_secret: bytes, identity: KeyPair) -> bytes:
    """A client's side: check the envelope as strictly as a client should, and sign.

    Raises:
        EnvelopeError: the HMAC or the account's signature is wrong.
    """
    try:
        parsed = ADVSignedDeviceIdentityHMAC.FromString(envelope)
        signed = ADVSignedDeviceIdentity.FromString(parsed.details)
    except ProtobufDecodeError as error:
        raise EnvelopeError("malformed") from error
    if not hmac.compare_digest(parsed.HMAC, _hmac(adv_secret, parsed.details)):
        raise EnvelopeError("hmac-mismatch")
    if not verify(
        signed.accountSignatureKey, _ACCOUNT_PREFIX + signed.details + identity.public, signed.accountSignature
    ):
        raise EnvelopeError("signature-mismatch")
    signed.deviceSignature = identity.sign(
        _DEVICE_PREFIX + signed.details + identity.public + signed.accountSignatureKey
    )
    signed.ClearField("accountSignatureKey")
    return signed.SerializeToString()
