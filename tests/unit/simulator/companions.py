"""Companions without a network: their keys, and what they would have registered."""

from dataclasses import dataclass, field
from functools import cached_property

from whatsapp_simulator.keys import KeyPair, serialized
from whatsapp_simulator.phone import pad
from whatsapp_simulator.protobuf import E2EMessage
from whatsapp_simulator.signal.session import Ciphertext, OwnKeys, Session
from whatsapp_simulator.signal.x3dh import PreKey, PreKeyBundle, SignedPreKey
from whatsapp_simulator.store import Device, DeviceId, Phone, Registration, Store

NOW = 1_790_000_000.0


@dataclass
class Companion:
    """A linked device with its private keys."""

    id: DeviceId
    identity: KeyPair = field(default_factory=KeyPair.generate)
    signed_pre_key: KeyPair = field(default_factory=KeyPair.generate)
    noise: KeyPair = field(default_factory=KeyPair.generate)
    pre_keys: dict[int, KeyPair] = field(default_factory=dict)

    @cached_property
    def registration(self) -> Registration:
        public = self.signed_pre_key.public
        signed = SignedPreKey(1, public, self.identity.sign(serialized(public)))
        return Registration(self.noise.public, self.identity.public, 77, signed)

    @property
    def device(self) -> Device:
        return Device(self.id, self.registration, b"signed identity", NOW)

    @property
    def keys(self) -> OwnKeys:
        return OwnKeys(self.identity, {1: self.signed_pre_key}.get, self.pre_keys.get)

    def first_message(self, bundle: PreKeyBundle, text: str) -> tuple[Session, Ciphertext]:
        session = Session()
        body = pad(E2EMessage(conversation=text).SerializeToString())
        return session, session.initiate(self.identity, 77, bundle, body)


def link(store: Store, phone: Phone, pre_keys: int = 10) -> Companion:
    """A new companion of the phone, with uploaded prekeys."""
    companion = Companion(DeviceId(phone.number, store.new_device_number(phone.number)))
    companion.pre_keys = {number: KeyPair.generate() for number in range(1, pre_keys + 1)}
    store.add_device(companion.device)
    store.add_pre_keys(companion.id, [PreKey(number, key.public) for number, key in companion.pre_keys.items()])
    return companion
