"""What a simulated phone does by itself: write to companions, read from them, and answer who asks again.

Pure but for the store: functions take the time and return what is to be sent.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass
from typing import Final

from whatsapp_simulator.binary.node import JID, LID_SERVER, USER_SERVER, Attribute, Node
from whatsapp_simulator.keys import serialized
from whatsapp_simulator.protobuf import E2EMessage, ProtobufDecodeError
from whatsapp_simulator.signal.session import Ciphertext, OwnKeys, pre_key_of
from whatsapp_simulator.signal.x3dh import PreKey, PreKeyBundle, SignedPreKey
from whatsapp_simulator.store import SIGNED_PRE_KEY_ID, Device, DeviceId, InboxMessage, Phone, SentMessage, Store

MAX_RETRIES: Final = 5

_MAX_PADDING: Final = 15


@dataclass(frozen=True, slots=True)
class Delivery:
    """A stanza for a companion. A kept one is stored until the companion confirms it, the other kind only tried."""

    to: DeviceId
    stanza: Node
    kept: bool


def pad(body: bytes) -> bytes:
    """E2E messages end in 1 to 15 bytes that all hold their own count."""
    count = secrets.randbelow(_MAX_PADDING) + 1
    return body + bytes([count]) * count


def unpad(body: bytes) -> bytes:
    """The reverse of `pad`; raises ValueError where the padding is impossible."""
    if not body or not 0 < body[-1] <= len(body):
        raise ValueError("the padding is wrong")
    return body[: -body[-1]]


def address(of: Phone, device: int, server: str) -> JID:
    """A phone's or companion's address on one of the two servers."""
    user = of.pn if server == USER_SERVER else of.lid
    return JID(user.user, user.server, device)


def sender_attributes(store: Store, sender: Phone, device: int, reader: DeviceId) -> dict[str, Attribute]:
    """`from` and its companions in the style in which the reader itself addresses this sender."""
    server = store.addressing(reader, sender.number)
    if server == LID_SERVER:
        other: dict[str, Attribute] = {"sender_pn": address(sender, device, USER_SERVER), "addressing_mode": "lid"}
    else:
        other = {"sender_lid": address(sender, device, LID_SERVER), "addressing_mode": "pn"}
    return {"from": address(sender, device, server), **other}


def bundle_of_phone(store: Store, phone: Phone) -> PreKeyBundle:
    """A phone's prekey bundle with a fresh one-time prekey."""
    identifier, key = store.new_phone_pre_key(phone.number)
    signed = phone.signed_pre_key.public
    signature = phone.identity.sign(serialized(signed))
    return PreKeyBundle(
        phone.registration_id,
        phone.identity.public,
        SignedPreKey(SIGNED_PRE_KEY_ID, signed, signature),
        PreKey(identifier, key.public),
    )


def bundle_of_device(store: Store, device: Device) -> PreKeyBundle:
    """A companion's prekey bundle; one of its one-time prekeys is used up, if it has any left."""
    keys = device.keys
    return PreKeyBundle(keys.registration_id, keys.identity, keys.signed_pre_key, store.take_pre_key(device.id))


def bundle_nodes(bundle: PreKeyBundle) -> list[Node]:
    """A bundle's parts as they stand in answers and retry receipts."""
    signed = bundle.signed_pre_key
    nodes = [
        Node("registration", content=struct.pack(">I", bundle.registration_id)),
        Node("type", content=b"\x05"),
        Node("identity", content=bundle.identity),
        Node(
            "skey",
            content=[
                Node("id", content=signed.id.to_bytes(3, "big")),
                Node("value", content=signed.public),
                Node("signature", content=signed.signature),
            ],
        ),
    ]
    if bundle.pre_key:
        nodes.append(pre_key_node(bundle.pre_key))
    return nodes


def pre_key_node(key: PreKey) -> Node:
    return Node("key", content=[Node("id", content=key.id.to_bytes(3, "big")), Node("value", content=key.public)])


def _text(body: bytes) -> str | None:
    message = E2EMessage.FromString(body)
    if message.HasField("conversation"):
        return str(message.conversation)
    if message.HasField("extendedTextMessage"):
        return str(message.extendedTextMessage.text)
    return None


def send_text(store: Store, phone: Phone, recipient: Phone, text: str, now: float) -> tuple[str, list[Delivery]]:
    """Write from the phone itself: to the recipient's phone, to its companions, and to the phone's own companions.

    Returns:
        The message's id, and what is to be delivered.
    """
    identifier = secrets.token_hex(10).upper()
    body = E2EMessage(conversation=text).SerializeToString()
    with store.transaction():
        sent = SentMessage(identifier, recipient.number, body)
        store.add_sent(phone.number, sent, now)
        store.add_received(recipient.number, InboxMessage(identifier, phone.id, text, now))
        readers = store.devices(recipient.number)
        if recipient.number != phone.number:
            readers += store.devices(phone.number)
        deliveries = [_write(store, phone, recipient, device, sent, now) for device in readers]
    return identifier, deliveries


def _write(store: Store, phone: Phone, recipient: Phone, reader: Device, sent: SentMessage, now: float) -> Delivery:
    session = store.session(phone.number, reader.id)
    body = pad(_body_for(phone, recipient, reader, sent))
    if session.established:
        ciphertext = session.encrypt(phone.identity, body)
    else:
        bundle = bundle_of_device(store, reader)
        ciphertext = session.initiate(phone.identity, phone.registration_id, bundle, body)
    store.save_session(phone.number, reader.id, session)
    return Delivery(reader.id, _message(store, phone, recipient, reader.id, sent.id, ciphertext, now), kept=True)


def _body_for(phone: Phone, recipient: Phone, reader: Device, sent: SentMessage) -> bytes:
    """The message itself, or for the phone's own companion the message and whom it went to."""
    if reader.id.number != phone.number or recipient.number == phone.number:
        return sent.body
    copy = E2EMessage()
    copy.deviceSentMessage.destinationJID = str(recipient.lid)
    copy.deviceSentMessage.message.ParseFromString(sent.body)
    return bytes(copy.SerializeToString())


def _message(
    store: Store,
    phone: Phone,
    recipient: Phone,
    reader: DeviceId,
    identifier: str,
    ciphertext: Ciphertext,
    now: float,
    retry: int = 0,
) -> Node:
    attributes = sender_attributes(store, phone, phone.id.device, reader)
    if reader.number == phone.number and recipient.number != phone.number:
        attributes["recipient"] = address(recipient, 0, store.addressing(reader, recipient.number))
    attributes |= {"id": identifier, "t": int(now), "type": "text", "notify": phone.name}
    count: dict[str, Attribute] = {"count": retry} if retry else {}
    return Node("message", attributes, [Node("enc", {"v": 2, "type": ciphertext.type, **count}, ciphertext.data)])


def send_again(
    store: Store, phone: Phone, reader: Device, identifier: str, bundle: PreKeyBundle | None, count: int, now: float
) -> Delivery | None:
    """Answer a retry receipt: the same message in a new conversation; None for a message that is not known.

    Raises:
        KeyAgreementError: the bundle that came with the receipt is not signed by its identity.
    """
    sent = store.sent(phone.number, identifier)
    recipient = store.phone(sent.recipient) if sent else None
    if sent is None or recipient is None or count > MAX_RETRIES:
        return None
    with store.transaction():
        session = store.session(phone.number, reader.id)
        body = pad(_body_for(phone, recipient, reader, sent))
        bundle = bundle or bundle_of_device(store, reader)
        ciphertext = session.initiate(phone.identity, phone.registration_id, bundle, body)
        store.save_session(phone.number, reader.id, session)
        stanza = _message(store, phone, recipient, reader.id, identifier, ciphertext, now, retry=count)
    return Delivery(reader.id, stanza, kept=True)


def receive(store: Store, phone: Phone, sender: DeviceId, identifier: str, message: Ciphertext, now: float) -> None:
    """Read a message that a companion sent to this phone, into the inbox unless it is the phone's own companion.

    Raises:
        UndecryptableError: see `Session.decrypt`.
        ValueError: what was encrypted is not a message.
    """
    with store.transaction():
        session = store.session(phone.number, sender)
        keys = OwnKeys(
            phone.identity,
            lambda id: phone.signed_pre_key if id == SIGNED_PRE_KEY_ID else None,
            lambda id: store.phone_pre_key(phone.number, id),
        )
        plaintext = session.decrypt(keys, message)
        store.save_session(phone.number, sender, session)
        used = pre_key_of(message)
        if used is not None:
            store.delete_phone_pre_key(phone.number, used)
    try:
        text = _text(unpad(plaintext))
    except ProtobufDecodeError as error:
        raise ValueError("the message is malformed") from error
    if sender.number != phone.number:
        store.add_received(phone.number, InboxMessage(identifier, sender, text, now))


def ask_again(
    store: Store, phone: Phone, sender: DeviceId, address_used: JID, identifier: str, count: int, now: float
) -> Delivery | None:
    """A retry receipt for a message that could not be read, keys included; None after too many."""
    if count > MAX_RETRIES:
        return None
    registration, *keys = bundle_nodes(bundle_of_phone(store, phone))
    retry = Node("retry", {"count": count, "id": identifier, "t": int(now), "v": 1})
    stanza = Node(
        "receipt",
        {"from": address_used, "id": identifier, "type": "retry", "t": int(now)},
        [retry, registration, Node("keys", content=keys)],
    )
    return Delivery(sender, stanza, kept=False)
