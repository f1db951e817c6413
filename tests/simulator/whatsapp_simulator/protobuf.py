"""Protobuf messages: those that the client library ships, and Signal's two, which it does not.

The generated modules import each other by absolute names from their own directory, so that directory is put on the
import path. Importing them through the `neonize` package would load its Go library (40 MB) into the process.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.protobuf.message import Message

from whatsapp_simulator.binary.tokens import library_path

if TYPE_CHECKING:
    from neonize.proto.waAdv.WAAdv_pb2 import (
        ADVDeviceIdentity,
        ADVSignedDeviceIdentity,
        ADVSignedDeviceIdentityHMAC,
    )
    from neonize.proto.waCert.WACert_pb2 import CertChain
    from neonize.proto.waE2E.WAWebProtobufsE2E_pb2 import Message as E2EMessage
    from neonize.proto.waWa6.WAWebProtobufsWa6_pb2 import ClientPayload, HandshakeMessage
else:
    sys.path.append(str(library_path().parent / "proto"))
    from waAdv.WAAdv_pb2 import ADVDeviceIdentity, ADVSignedDeviceIdentity, ADVSignedDeviceIdentityHMAC
    from waCert.WACert_pb2 import CertChain
    from waE2E.WAWebProtobufsE2E_pb2 import Message as E2EMessage
    from waWa6.WAWebProtobufsWa6_pb2 import ClientPayload, HandshakeMessage

__all__ = [
    "ADVDeviceIdentity",
    "ADVSignedDeviceIdentity",
    "ADVSignedDeviceIdentityHMAC",
    "CertChain",
    "ClientPayload",
    "E2EMessage",
    "HandshakeMessage",
    "PreKeySignalMessage",
    "ProtobufDecodeError",
    "SignalMessage",
]

_BYTES: Final = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
_UINT32: Final = descriptor_pb2.FieldDescriptorProto.TYPE_UINT32

# Field names and numbers of libsignal's WhisperTextProtocol.
_SIGNAL_MESSAGES: Final = {
    "SignalMessage": {
        "ratchet_key": (1, _BYTES),
        "counter": (2, _UINT32),
        "previous_counter": (3, _UINT32),
        "ciphertext": (4, _BYTES),
    },
    "PreKeySignalMessage": {
        "pre_key_id": (1, _UINT32),
        "base_key": (2, _BYTES),
        "identity_key": (3, _BYTES),
        "message": (4, _BYTES),
        "registration_id": (5, _UINT32),
        "signed_pre_key_id": (6, _UINT32),
    },
}


def _signal_classes() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="signal.proto", package="signal", syntax="proto2")
    for name, fields in _SIGNAL_MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            message.field.add(
                name=field, number=number, type=kind, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"signal.{name}")) for name in _SIGNAL_MESSAGES
    }


if TYPE_CHECKING:

    class SignalMessage(Message):
        def __init__(
            self,
            *,
            ratchet_key: bytes = ...,
            counter: int = ...,
            previous_counter: int = ...,
            ciphertext: bytes = ...,
        ) -> None: ...

        ratchet_key: bytes
        counter: int
        previous_counter: int
        ciphertext: bytes

    class PreKeySignalMessage(Message):
        def __init__(
            self,
            *,
            pre_key_id: int | None = ...,
            base_key: bytes = ...,
            identity_key: bytes = ...,
            message: bytes = ...,
            registration_id: int = ...,
            signed_pre_key_id: int = ...,
        ) -> None: ...

        pre_key_id: int
        base_key: bytes
        identity_key: bytes
        message: bytes
        registration_id: int
        signed_pre_key_id: int
else:
    _classes = _signal_classes()
    SignalMessage = _classes["SignalMessage"]
    PreKeySignalMessage = _classes["PreKeySignalMessage"]
