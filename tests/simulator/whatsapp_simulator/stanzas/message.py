"""One-to-one messages from a companion: each recipient device gets its own ciphertext."""

from __future__ import annotations

import logging

from whatsapp_simulator.binary.node import JID, LID_SERVER, USER_SERVER, Attribute, MalformedNodeError, Node
from whatsapp_simulator.phone import Delivery, address, ask_again, receive, sender_attributes
from whatsapp_simulator.signal.session import Ciphertext
from whatsapp_simulator.stanzas.reaction import Reaction, Request, acknowledgement
from whatsapp_simulator.store import PHONE_DEVICE, DeviceId, Phone

logger = logging.getLogger(__name__)


def handle(request: Request) -> Reaction:
    """Acknowledge a message and pass it on.

    A message to anything but a person (a group, a status list) is acknowledged and goes nowhere; one to a number that
    is not on WhatsApp is refused with error 404.
    """
    stanza, store = request.stanza, request.store
    to = stanza.jid("to")
    if to.server not in (USER_SERVER, LID_SERVER):
        return Reaction((acknowledgement(stanza, request.now),))
    chat = store.phone_at(to)
    if chat is None:
        return Reaction((acknowledgement(stanza, request.now, error=404),))
    store.save_addressing(request.device.id, chat.number, to.server)
    deliveries: list[Delivery] = []
    for jid, encrypted in _recipients(stanza, to):
        owner = store.phone_at(jid)
        if owner is None:
            continue
        target = DeviceId(owner.number, jid.device)
        if target.device == PHONE_DEVICE:
            deliveries += _read(request, owner, jid, encrypted)
        elif store.device(target):
            deliveries.append(Delivery(target, _forwarded(request, chat, target, encrypted), kept=True))
    return Reaction((acknowledgement(stanza, request.now),), tuple(deliveries))


def _recipients(stanza: Node, to: JID) -> list[tuple[JID, Node]]:
    participants = stanza.find("participants")
    if participants is None:
        return [(to, stanza.require("enc"))]
    return [(node.jid("jid"), node.require("enc")) for node in participants.all("to")]


def _read(request: Request, phone: Phone, jid: JID, encrypted: Node) -> list[Delivery]:
    """Let a simulated phone read its copy; it answers with a receipt, or asks for the message again."""
    identifier, sender = request.stanza.text("id"), request.device.id
    own = sender.number == phone.number
    used = address(phone, PHONE_DEVICE, jid.server if own else request.stanza.jid("to").server)
    try:
        receive(request.store, phone, sender, identifier, ciphertext_of(encrypted), request.now)
    except ValueError as error:
        logger.warning("a phone cannot read a message: %s", error)
        count = int(encrypted.get("count") or 0) + 1
        retry = ask_again(request.store, phone, sender, used, identifier, count, request.now)
        return [retry] if retry else []
    if own:
        return []
    receipt = Node("receipt", {"from": used, "id": identifier, "t": int(request.now)})
    return [Delivery(sender, receipt, kept=False)]


def ciphertext_of(encrypted: Node) -> Ciphertext:
    """`<enc>` as a ciphertext; raises MalformedNodeError for a type that one-to-one messages do not have."""
    kind = encrypted.text("type")
    if kind == "pkmsg":
        return Ciphertext("pkmsg", encrypted.data)
    if kind == "msg":
        return Ciphertext("msg", encrypted.data)
    raise MalformedNodeError("an encryption type that one-to-one messages do not have")


def _forwarded(request: Request, chat: Phone, target: DeviceId, encrypted: Node) -> Node:
    stanza = request.stanza
    sender = request.device.id
    attributes: dict[str, Attribute] = sender_attributes(request.store, request.phone, sender.device, target)
    if target.number == sender.number and chat.number != sender.number:
        attributes["recipient"] = address(chat, PHONE_DEVICE, request.store.addressing(target, chat.number))
    attributes |= {
        "id": stanza.text("id"),
        "t": int(request.now),
        "type": stanza.get("type") or "text",
        "notify": request.phone.name,
    }
    identity = stanza.find("device-identity")
    return Node("message", attributes, [encrypted, *([identity] if identity else [])])
