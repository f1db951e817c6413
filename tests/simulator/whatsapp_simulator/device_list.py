"""Telling who may have a phone's device list in memory that it has changed."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Literal

from whatsapp_simulator.binary.node import JID, LID_SERVER, USER_SERVER, Attribute, Node
from whatsapp_simulator.phone import Delivery, address
from whatsapp_simulator.store import PHONE_DEVICE, DeviceId, Phone, Store


def changed(
    store: Store, phone: Phone, device: int, change: Literal["add", "remove"], now: float
) -> tuple[Delivery, ...]:
    """Notifications for the phone's other companions, and for all that have ever written to the phone.

    A client keeps the list under the address it asked by, so each is told twice: by LID and by number.
    """
    numbers = [PHONE_DEVICE, *(companion.id.device for companion in store.devices(phone.number))]
    own = [DeviceId(phone.number, number) for number in numbers if number not in (PHONE_DEVICE, device)]
    return tuple(
        Delivery(reader, _notification(phone, server, numbers, device, change, now), kept=True)
        for reader in dict.fromkeys([*own, *store.correspondents(phone.number)])
        if reader != DeviceId(phone.number, device)
        for server in (LID_SERVER, USER_SERVER)
    )


def _notification(phone: Phone, server: str, numbers: list[int], device: int, change: str, now: float) -> Node:
    devices = [address(phone, number, server) for number in numbers]
    subject = Node("device", {"jid": address(phone, device, server), "key-index": device})
    content = Node(change, {"device_hash": _hash(devices)}, [subject, Node("key-index-list", {"ts": int(now)})])
    attributes: dict[str, Attribute] = {
        "from": address(phone, PHONE_DEVICE, server),
        "id": secrets.token_hex(8),
        "type": "devices",
        "t": int(now),
    }
    return Node("notification", attributes, [content])


def _hash(devices: list[JID]) -> str:
    """The hash of a device list, version 2: of the sorted addresses, agent 0 and device always written out."""
    texts = sorted(f"{jid.user}.0:{jid.device}@{jid.server}" for jid in devices)
    return "2:" + base64.b64encode(hashlib.sha256("".join(texts).encode()).digest()[:6]).decode().rstrip("=")
