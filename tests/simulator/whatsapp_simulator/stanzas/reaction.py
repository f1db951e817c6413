"""The shape that all stanza handlers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from whatsapp_simulator.binary.node import SERVER, Attribute, Content, Node
from whatsapp_simulator.phone import Delivery
from whatsapp_simulator.store import Device, Phone, Store

_ERRORS: Final = {
    400: "bad-request",
    401: "not-authorized",
    403: "forbidden",
    404: "item-not-found",
    405: "not-allowed",
    406: "not-acceptable",
    429: "rate-overlimit",
    500: "internal-server-error",
    503: "service-unavailable",
}
"""The texts that clients compare together with the code."""


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


def error(stanza: Node, code: int, text: str | None = None) -> Node:
    """The refusal of an IQ; `text` is the code's own unless given."""
    return Node(
        "iq",
        {"from": SERVER, "id": stanza.text("id"), "type": "error"},
        [Node("error", {"code": code, "text": _ERRORS.get(code, "") if text is None else text})],
    )


def acknowledgement(stanza: Node, now: float, **attributes: Attribute) -> Node:
    """The server's `<ack>` for a message or receipt."""
    return Node(
        "ack",
        {"class": stanza.tag, "id": stanza.text("id"), "from": stanza.jid("to"), "t": int(now), **attributes},
    )
