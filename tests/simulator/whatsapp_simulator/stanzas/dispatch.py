"""Which stanza goes where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from whatsapp_simulator import device_list
from whatsapp_simulator.binary.node import Node
from whatsapp_simulator.stanzas import keys, message, receipt, usync
from whatsapp_simulator.stanzas.reaction import Reaction, Request, error, result


def unlink(request: Request) -> Reaction:
    """A logout. The device is forgotten before it is answered: some clients close without waiting for the answer."""
    asked = request.stanza.require("remove-companion-device").jid("jid")
    phone = request.store.phone_at(asked)
    if phone is None or (phone.number, asked.device) != (request.device.id.number, request.device.id.device):
        return Reaction((error(request.stanza, 405),))
    request.store.delete_device(request.device.id)
    told = device_list.changed(request.store, phone, asked.device, "remove", request.now)
    return Reaction((result(request.stanza),), told, unlinked=True)


def activate(request: Request) -> Reaction:
    return Reaction((result(request.stanza),), synchronized=True)


def confirm(request: Request) -> Reaction:
    identifier = request.stanza.get("id")
    if identifier is not None:
        request.store.confirm(request.device.id, [identifier])
    return Reaction()


Handler = Callable[[Request], Reaction]

_IQ: Final[dict[tuple[str, str, str | None], Handler]] = {
    ("encrypt", "get", "count"): keys.count,
    ("encrypt", "get", "digest"): keys.digest,
    ("encrypt", "get", "key"): keys.fetch,
    ("usync", "get", "usync"): usync.query,
    ("md", "set", "remove-companion-device"): unlink,
    ("passive", "set", "active"): activate,
}

_STANZAS: Final[dict[str, Handler]] = {"message": message.handle, "receipt": receipt.handle, "ack": confirm}


def handle(request: Request) -> Reaction:
    """React to one stanza.

    An IQ that is not known is answered by an empty result, as all clients accept; other stanzas that are not known
    (presence, information) need no answer.

    Raises:
        MalformedNodeError: the stanza lacks something that its kind must have.
    """
    stanza = request.stanza
    if stanza.tag != "iq":
        return _STANZAS.get(stanza.tag, _ignore)(request)
    if stanza.get("type") not in ("get", "set"):
        return Reaction()
    return _iq_handler(stanza)(request)


def _ignore(request: Request) -> Reaction:
    return Reaction()


def _empty(request: Request) -> Reaction:
    return Reaction((result(request.stanza),))


def _iq_handler(stanza: Node) -> Handler:
    namespace, kind = stanza.get("xmlns") or "", stanza.text("type")
    child = stanza.children[0].tag if stanza.children else None
    if (namespace, kind) == ("encrypt", "set"):
        return keys.upload
    return _IQ.get((namespace, kind, child), _empty)
