"""The shape that all stanza handlers share."""

from __future__ import annotations

from dataclasses import dataclass

from whatsapp_simulator.binary.node import SERVER, Attribute, Content, Node
from whatsapp_simulator.phone import Delivery
from whatsapp_simulator.store import Device, Phone, Store


@dataclass(frozen=True, slots=True)
class Request:
    """A stanza, and the companion that sent it."""

    stanza: Node
    device: Device
    phone: Phone
    store: Store
    now: float


@dataclass(frozen=True, slots=True)
class Reaction:
    """Answers to the sender, stanzas for others, and whether the sender has just unlinked itself."""

    replies: tuple[Node, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    unlinked: bool = False
    synchronized: bool = False
    """Whether the sender now wants what was kept for it."""


def result(stanza: Node, content: Content = None) -> Node:
    """The answer to an IQ."""
    return Node("iq", {"from": SERVER, "id": stanza.text("id"), "type": "result"}, content)


def error(stanza: Node, code: int, text: str) -> Node:
    """The refusal of an IQ."""
    return Node(
        "iq",
        {"from": SERVER, "id": stanza.text("id"), "type": "error"},
        [Node("error", {"code": code, "text": text})],
    )


def acknowledgement(stanza: Node, now: float, **attributes: Attribute) -> Node:
    """The server's `<ack>` for a message or receipt."""
    return Node(
        "ack",
        {"class": stanza.tag, "id": stanza.text("id"), "from": stanza.jid("to"), "t": int(now), **attributes},
    )
