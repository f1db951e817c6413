"""Namespace `encrypt`: prekeys uploaded, counted, compared, and handed to those who want to write."""

from __future__ import annotations

import hashlib

from whatsapp_simulator.binary.node import JID, MalformedNodeError, Node
from whatsapp_simulator.phone import bundle_nodes, bundle_of_device, bundle_of_phone
from whatsapp_simulator.signal.x3dh import PreKey, PreKeyBundle, SignedPreKey
from whatsapp_simulator.stanzas.reaction import Reaction, Request, error, result
from whatsapp_simulator.store import PHONE_DEVICE, DeviceId, Store


def _sized(data: bytes, size: int, what: str) -> bytes:
    if len(data) != size:
        raise MalformedNodeError(f"{what} has {len(data)} bytes instead of {size}")
    return data


def read_pre_key(node: Node) -> PreKey:
    """`<key>`: an id of 3 bytes and a value of 32."""
    identifier = int.from_bytes(_sized(node.require("id").data, 3, "a prekey's id"), "big")
    return PreKey(identifier, _sized(node.require("value").data, 32, "a prekey"))


def read_signed_pre_key(node: Node) -> SignedPreKey:
    """`<skey>`: as `<key>`, and a signature of 64 bytes."""
    key = read_pre_key(node)
    return SignedPreKey(key.id, key.public, _sized(node.require("signature").data, 64, "a signature"))


def read_bundle(receipt: Node, registration_id: int, identity: bytes) -> PreKeyBundle | None:
    """The bundle that a retry receipt may carry, or None; what it leaves out is as registered."""
    keys = receipt.find("keys")
    if keys is None:
        return None
    registration = receipt.find("registration")
    identity_node, key = keys.find("identity"), keys.find("key")
    return PreKeyBundle(
        int.from_bytes(registration.data, "big") if registration else registration_id,
        _sized(identity_node.data, 32, "an identity") if identity_node else identity,
        read_signed_pre_key(keys.require("skey")),
        read_pre_key(key) if key else None,
    )


def count(request: Request) -> Reaction:
    left = request.store.count_pre_keys(request.device.id)
    return Reaction((result(request.stanza, [Node("count", {"value": left})]),))


def digest(request: Request) -> Reaction:
    """All public keys as the server knows them, for the client to compare."""
    keys = request.device.keys
    pre_keys = request.store.pre_keys(request.device.id)
    signed = keys.signed_pre_key
    hashed = hashlib.sha1(keys.identity + signed.public + signed.signature, usedforsecurity=False)
    for key in pre_keys:
        hashed.update(key.public)
    bundle = PreKeyBundle(keys.registration_id, keys.identity, signed)
    children = [
        *bundle_nodes(bundle),
        Node("list", content=[Node("id", content=key.id.to_bytes(3, "big")) for key in pre_keys]),
        Node("hash", content=hashed.digest()),
    ]
    return Reaction((result(request.stanza, [Node("digest", content=children)]),))


def upload(request: Request) -> Reaction:
    """New one-time prekeys in any number, with or without a new signed prekey; or a signed prekey alone."""
    stanza, store, device = request.stanza, request.store, request.device
    rotation = stanza.find("rotate", "skey") or stanza.find("skey")
    uploaded = stanza.find("list")
    with store.transaction():
        if rotation is not None:
            store.save_signed_pre_key(device.id, read_signed_pre_key(rotation))
        if uploaded is not None:
            store.add_pre_keys(device.id, [read_pre_key(node) for node in uploaded.children])
    return Reaction((result(stanza),))


def fetch(request: Request) -> Reaction:
    """Bundles for the devices asked for; an unknown one is answered by an error of its own."""
    users = [_user(request.store, node.jid("jid")) for node in request.stanza.require("key").all("user")]
    if not users:
        return Reaction((error(request.stanza, 400),))
    return Reaction((result(request.stanza, [Node("list", content=users)]),))


def _user(store: Store, jid: JID) -> Node:
    phone = store.phone_at(jid)
    if phone and jid.device == PHONE_DEVICE:
        return Node("user", {"jid": jid}, bundle_nodes(bundle_of_phone(store, phone)))
    device = store.device(DeviceId(phone.number, jid.device)) if phone else None
    if device is None:
        return Node("user", {"jid": jid}, [Node("error", {"code": 404, "text": "item-not-found"})])
    nodes = [
        *bundle_nodes(bundle_of_device(store, device)),
        Node("device-identity", content=device.signed_identity),
    ]
    return Node("user", {"jid": jid}, nodes)
