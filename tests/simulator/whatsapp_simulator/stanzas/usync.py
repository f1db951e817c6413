"""Namespace `usync`: which numbers are on WhatsApp, which LID belongs to them, and which devices they have."""

from __future__ import annotations

from whatsapp_simulator.binary.node import JID, USER_SERVER, Attribute, Node
from whatsapp_simulator.stanzas.reaction import Reaction, Request, result
from whatsapp_simulator.store import PHONE_DEVICE, Phone, Store


def query(request: Request) -> Reaction:
    """Answer each user asked for with what the query names: `contact`, `devices`, `lid`; the rest is left out."""
    usync = request.stanza.require("usync")
    wanted = {node.tag for node in usync.require("query").children}
    users = [_user(request.store, node, wanted) for node in usync.require("list").all("user")]
    echoed: dict[str, Attribute] = {
        name: usync.attrs[name] for name in ("sid", "index", "last", "mode", "context") if name in usync.attrs
    }
    return Reaction((result(request.stanza, [Node("usync", echoed, [Node("list", content=users)])]),))


def _user(store: Store, asked: Node, wanted: set[str]) -> Node:
    contact = asked.find("contact")
    if "jid" in asked.attrs:
        jid = asked.jid("jid").bare
        phone = store.phone_at(jid)
        attributes: dict[str, Attribute] = {"jid": jid}
    else:
        number = contact.data.decode(errors="replace").partition("@")[0].removeprefix("+") if contact else ""
        phone = store.phone(number)
        attributes = {"jid": phone.lid, "pn_jid": phone.pn} if phone else {"jid": JID(number, USER_SERVER)}
    children: list[Node] = []
    if contact is not None or "contact" in wanted:
        children.append(
            Node("contact", {"type": "in" if phone else "out"}, contact.data if contact and contact.data else None)
        )
    if phone:
        children += _details(store, phone, wanted)
    return Node("user", attributes, children)


def _details(store: Store, phone: Phone, wanted: set[str]) -> list[Node]:
    details = []
    if "devices" in wanted:
        numbers = [PHONE_DEVICE, *(device.id.device for device in store.devices(phone.number))]
        devices = [Node("device", {"id": n, **({"key-index": n} if n != PHONE_DEVICE else {})}) for n in numbers]
        details.append(Node("devices", content=[Node("device-list", content=devices)]))
    if "lid" in wanted:
        details.append(Node("lid", {"val": phone.lid}))
    return details
