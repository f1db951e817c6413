"""Receipts from a companion: what it has, what it has read, and what it could not read."""

from __future__ import annotations

import logging

from whatsapp_simulator.binary.node import Attribute, Node
from whatsapp_simulator.phone import Delivery, address, send_again
from whatsapp_simulator.signal.x3dh import KeyAgreementError
from whatsapp_simulator.stanzas.keys import read_bundle
from whatsapp_simulator.stanzas.reaction import Reaction, Request, acknowledgement
from whatsapp_simulator.store import PHONE_DEVICE, DeviceId, Phone

logger = logging.getLogger(__name__)


def handle(request: Request) -> Reaction:
    """Confirm the messages named, and pass the receipt on to their author or answer for a simulated phone."""
    stanza, store = request.stanza, request.store
    identifiers = [stanza.text("id"), *(item.text("id") for node in stanza.all("list") for item in node.all("item"))]
    store.confirm(request.device.id, identifiers)
    kind = stanza.get("type")
    acknowledged = (acknowledgement(stanza, request.now, **({"type": kind} if kind else {})),)
    to = stanza.jid("to")
    author = store.phone_at(to)
    if author is None:
        return Reaction(acknowledged)
    if kind == "retry":
        if to.device == PHONE_DEVICE:
            return Reaction(acknowledged, _answered(request, author))
        return Reaction(acknowledged, (_forwarded(request, DeviceId(author.number, to.device), kind),))
    if author.number == request.phone.number:
        return Reaction(acknowledged)
    readers = [device.id for device in store.devices(author.number)]
    return Reaction(acknowledged, tuple(_forwarded(request, reader, kind) for reader in readers))


def _answered(request: Request, author: Phone) -> tuple[Delivery, ...]:
    stanza, device = request.stanza, request.device
    count = int(stanza.require("retry").get("count") or 1)
    bundle = read_bundle(stanza, device.keys.registration_id, device.keys.identity)
    try:
        again = send_again(request.store, author, device, stanza.text("id"), bundle, count, request.now)
    except KeyAgreementError as error:
        logger.warning("a retry receipt cannot be answered: %s", error)
        return ()
    return (again,) if again else ()


def _forwarded(request: Request, to: DeviceId, kind: str | None) -> Delivery:
    stanza, sender = request.stanza, request.device.id
    device = sender.device if kind == "retry" else PHONE_DEVICE
    attributes: dict[str, Attribute] = {
        "from": address(request.phone, device, request.store.addressing(to, sender.number)),
        "id": stanza.text("id"),
        "t": int(request.now),
        **({"type": kind} if kind else {}),
    }
    return Delivery(to, Node("receipt", attributes, list(stanza.children) or None), kept=False)
