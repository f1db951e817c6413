"""What faults send, leave unanswered, and damage."""

from __future__ import annotations

import dataclasses
from typing import Final

from whatsapp_simulator import behaviours
from whatsapp_simulator.binary.node import Node

_UNANSWERED: Final[dict[str | None, type[behaviours.Behaviour]]] = {
    "w:p": behaviours.IgnoreKeepalives,
    "encrypt": behaviours.IgnorePreKeys,
}


def failure_node(failure: behaviours.Failure) -> Node:
    """`<failure>` as the server ends a login; see `behaviours.Failure`."""
    optional = {"code": failure.code, "expire": failure.expire, "message": failure.message}
    present = {name: value for name, value in optional.items() if value is not None}
    return Node("failure", {"reason": failure.reason, "location": "sim", **present})


def stream_error_node(stream_error: behaviours.StreamError) -> Node:
    """`<stream:error>` with its code, its conflict, or both."""
    conflict = [Node("conflict", {"type": stream_error.conflict})] if stream_error.conflict else None
    return Node("stream:error", {"code": stream_error.code} if stream_error.code else {}, conflict)


def silencer(stanza: Node) -> type[behaviours.Behaviour] | None:
    """The kind of fault that leaves a client's stanza unanswered, by the namespace of the IQ."""
    return _UNANSWERED.get(stanza.get("xmlns")) if stanza.tag == "iq" else None


def is_first_copy(stanza: Node) -> bool:
    """Whether this is a message that its reader did not ask for again."""
    encrypted = stanza.find("enc") if stanza.tag == "message" else None
    return encrypted is not None and "count" not in encrypted.attrs


def damaged(message: Node) -> Node:
    """The message with a ciphertext that is not authentic."""
    return dataclasses.replace(message, content=[_damaged(child) for child in message.children])


def _damaged(child: Node) -> Node:
    if child.tag != "enc":
        return child
    # A byte that the authentication code covers or is part of; up to eight after it may be the key ids of a `pkmsg`.
    changed = bytes(byte ^ 1 for byte in child.data[-10:-9])
    return dataclasses.replace(child, content=child.data[:-10] + changed + child.data[-9:])
