"""A light client of the protocol, in pure Python: many fit into one process, and it checks every signature strictly.

It shares the simulator's codecs and cryptography, whose correctness the unit tests establish against other
implementations; what it shows is how the server treats many clients, and clients of other habits than neonize.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Self

import aiohttp

from whatsapp_simulator.binary.codec import decode, encode
from whatsapp_simulator.binary.node import JID, LID_SERVER, SERVER, USER_SERVER, Attribute, Content, Node
from whatsapp_simulator.binary.tokens import Dictionary
from whatsapp_simulator.certificates import WHATSAPP_HOST, verify_chain
from whatsapp_simulator.frames import FrameBuffer, framed
from whatsapp_simulator.keys import KeyPair, serialized
from whatsapp_simulator.noise import PROLOGUE, Initiator
from whatsapp_simulator.pairing import adv, link_code
from whatsapp_simulator.phone import bundle_nodes, pad, unpad
from whatsapp_simulator.protobuf import ClientPayload, E2EMessage, HandshakeMessage
from whatsapp_simulator.signal.session import Ciphertext, OwnKeys, Session
from whatsapp_simulator.signal.x3dh import PreKey, PreKeyBundle, SignedPreKey
from whatsapp_simulator.stanzas.keys import read_pre_key, read_signed_pre_key

URL: Final = f"https://{WHATSAPP_HOST}/ws/chat"
ORIGIN: Final = f"https://{WHATSAPP_HOST}"
TIMEOUT: Final = 60.0


class StreamEndedError(ConnectionError):
    """The server ended the stream; `last` is the last stanza it sent."""

    def __init__(self, last: Node | None) -> None:
        super().__init__(f"the stream ended after <{last.tag if last else 'nothing'}>")
        self.last = last


@dataclass(frozen=True)
class Network:
    """How a client reaches the simulator and what it trusts."""

    session: aiohttp.ClientSession
    proxy: str
    tls: ssl.SSLContext
    root: bytes
    dictionary: Dictionary


@dataclass
class Credentials:
    """What a client keeps between its streams."""

    noise: KeyPair = field(default_factory=KeyPair.generate)
    identity: KeyPair = field(default_factory=KeyPair.generate)
    signed_pre_key: KeyPair = field(default_factory=KeyPair.generate)
    adv_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    registration_id: int = field(default_factory=lambda: secrets.randbelow(1 << 14) + 1)
    pre_keys: dict[int, KeyPair] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    jid: JID | None = None
    lid: JID | None = None

    @property
    def signed(self) -> SignedPreKey:
        public = self.signed_pre_key.public
        return SignedPreKey(1, public, self.identity.sign(serialized(public)))

    @property
    def keys(self) -> OwnKeys:
        return OwnKeys(self.identity, {1: self.signed_pre_key}.get, self.pre_keys.get)


@dataclass(frozen=True)
class Received:
    """A message that was decrypted: its stanza, and its text."""

    stanza: Node
    text: str


class ProtocolClient:
    """One stream. `async with` dials and shakes hands; afterwards `register` or `login`."""

    def __init__(self, network: Network, credentials: Credentials, *, deflate: bool = False) -> None:
        self._network = network
        self.credentials = credentials
        self._deflate = deflate
        self._ids = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Node]] = {}
        self._stanzas: asyncio.Queue[Node | None] = asyncio.Queue()
        self._last: Node | None = None
        self.messages: list[Received] = []
        self.arrived = asyncio.Condition()

    async def __aenter__(self) -> Self:
        payload = self._login_payload() if self.credentials.jid else self._registration_payload()
        await self.dial(payload)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()

    # Handshake

    async def dial(self, payload: ClientPayload) -> None:
        self._socket = await self._network.session.ws_connect(
            URL,
            proxy=self._network.proxy,
            ssl=self._network.tls,
            origin=ORIGIN,
            compress=15 if self._deflate else 0,
            max_msg_size=1 << 25,
        )
        self.compressed = self._socket.compress
        self._buffer = FrameBuffer(prologue=b"")
        self._frames: list[bytes] = []
        noise = Initiator(self.credentials.noise)
        hello = HandshakeMessage(clientHello=HandshakeMessage.ClientHello(ephemeral=noise.write_hello()))
        await self._socket.send_bytes(PROLOGUE + framed(hello.SerializeToString()))
        answer = HandshakeMessage.FromString(await self._frame()).serverHello
        static, chain = noise.read_hello(answer.ephemeral, answer.static, answer.payload)
        verify_chain(chain, self._network.root, static, time.time())
        own_static, own_payload = noise.write_finish(payload.SerializeToString())
        finish = HandshakeMessage(clientFinish=HandshakeMessage.ClientFinish(static=own_static, payload=own_payload))
        await self._socket.send_bytes(framed(finish.SerializeToString()))
        self._outgoing, self._incoming = noise.split()
        self._reader = asyncio.create_task(self._read())

    def _registration_payload(self) -> ClientPayload:
        signed = self.credentials.signed
        return ClientPayload(
            passive=False,
            devicePairingData=ClientPayload.DevicePairingRegistrationData(
                eRegid=struct.pack(">I", self.credentials.registration_id),
                eKeytype=b"\x05",
                eIdent=self.credentials.identity.public,
                eSkeyID=signed.id.to_bytes(3, "big"),
                eSkeyVal=signed.public,
                eSkeySig=signed.signature,
            ),
        )

    def _login_payload(self) -> ClientPayload:
        jid = self.credentials.jid
        if jid is None:
            raise RuntimeError("not linked")
        return ClientPayload(username=int(jid.user), device=jid.device, passive=True)

    async def _frame(self) -> bytes:
        while not self._frames:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise StreamEndedError(self._last)
            self._frames = self._buffer.feed(message.data)
        return self._frames.pop(0)

    # Stanzas

    async def _read(self) -> None:
        try:
            while True:
                stanza = decode(self._incoming.decrypt(await self._frame()), self._network.dictionary)
                self._last = stanza
                await self._handle(stanza)
        except StreamEndedError as ended:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(ended)
            self._stanzas.put_nowait(None)

    async def _handle(self, stanza: Node) -> None:
        if stanza.tag == "iq" and stanza.get("type") in ("result", "error"):
            future = self._answers.get(stanza.text("id"))
            if future and not future.done():
                future.set_result(stanza)
        elif stanza.tag == "message":
            await self._receive(stanza)
        else:
            self._stanzas.put_nowait(stanza)

    async def send(self, stanza: Node) -> None:
        await self._socket.send_bytes(framed(self._outgoing.encrypt(encode(stanza))))

    def new_id(self) -> str:
        return f"{id(self) % 10_000}-{next(self._ids)}"

    async def iq(
        self, namespace: str, kind: Literal["get", "set"], content: Content = None, **attrs: Attribute
    ) -> Node:
        """Send an IQ and return its answer, error or not."""
        identifier = self.new_id()
        future: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self._answers[identifier] = future
        await self.send(Node("iq", {"to": SERVER, "id": identifier, "type": kind, "xmlns": namespace}, content))
        async with asyncio.timeout(TIMEOUT):
            return await future

    async def expect(self, tag: str, where: Callable[[Node], bool] = lambda _: True) -> Node:
        """The next stanza of this kind; others before it are passed over.

        Raises:
            StreamEndedError: the stream ended first.
        """
        async with asyncio.timeout(TIMEOUT):
            while True:
                stanza = await self._stanzas.get()
                if stanza is None:
                    self._stanzas.put_nowait(None)
                    raise StreamEndedError(self._last)
                if stanza.tag == tag and where(stanza):
                    return stanza

    async def ended(self) -> Node | None:
        """Wait for the end of the stream; returns the last stanza before it."""
        async with asyncio.timeout(TIMEOUT):
            while await self._stanzas.get() is not None:
                continue
        self._stanzas.put_nowait(None)
        return self._last

    # Linking

    async def refs(self) -> list[str]:
        """The references in `pair-device`, confirmed."""
        offer = await self.expect("iq", lambda stanza: stanza.find("pair-device") is not None)
        await self.send(Node("iq", {"to": SERVER, "id": offer.text("id"), "type": "result"}))
        return [ref.data.decode() for ref in offer.require("pair-device").all("ref")]

    def qr(self, ref: str) -> str:
        """A QR text with four fields, as the oldest clients show it."""
        keys = (self.credentials.noise.public, self.credentials.identity.public, self.credentials.adv_secret)
        return ",".join([ref, *(base64.b64encode(key).decode() for key in keys)])

    async def finish_linking(self) -> None:
        """Answer `pair-success` after checking it, and wait for the restart."""
        success = await self.expect("iq", lambda stanza: stanza.find("pair-success") is not None)
        pair = success.require("pair-success")
        try:
            signed = adv.answer(
                pair.require("device-identity").data, self.credentials.adv_secret, self.credentials.identity
            )
        except adv.EnvelopeError as error:
            refusal = Node("error", {"code": 401, "text": str(error)})
            await self.send(Node("iq", {"to": SERVER, "id": success.text("id"), "type": "error"}, [refusal]))
            raise
        # Presence may come between pair-success and its answer.
        await self.send(Node("presence", {"type": "available"}))
        device = pair.require("device")
        answer = Node("pair-device-sign", content=[Node("device-identity", {"key-index": 1}, signed)])
        await self.send(Node("iq", {"to": SERVER, "id": success.text("id"), "type": "result"}, [answer]))
        restart = await self.expect("stream:error")
        if restart.text("code") != "515":
            raise StreamEndedError(restart)
        self.credentials.jid, self.credentials.lid = device.jid("jid"), device.jid("lid")

    async def companion_hello(self, number: str, code: str) -> tuple[KeyPair, bytes]:
        """Ask to be linked by a code; returns the ephemeral key and the server's reference."""
        ephemeral = KeyPair.generate()
        wrapped = await asyncio.to_thread(link_code.wrap, code, ephemeral.public)
        stage = Node(
            "link_code_companion_reg",
            {"jid": JID(number, USER_SERVER), "stage": "companion_hello", "should_show_push_notification": "true"},
            [
                Node("link_code_pairing_wrapped_companion_ephemeral_pub", content=wrapped),
                Node("companion_server_auth_key_pub", content=self.credentials.noise.public),
                Node("companion_platform_id", content="1"),
                Node("companion_platform_display", content="Chrome (Linux)"),
                Node("link_code_pairing_nonce", content="0"),
            ],
        )
        answer = await self.iq("md", "set", [stage])
        return ephemeral, answer.require("link_code_companion_reg", "link_code_pairing_ref").data

    async def companion_finish(self, number: str, code: str, ephemeral: KeyPair, ref: bytes) -> None:
        """Answer the phone's part of the exchange; the ADV secret is agreed on afterwards."""
        notification = await self.expect("notification")
        hello = notification.require("link_code_companion_reg")
        if hello.require("link_code_pairing_ref").data != ref:
            raise ValueError("the phone answered another request")
        wrapped = hello.require("link_code_pairing_wrapped_primary_ephemeral_pub").data
        peer = await asyncio.to_thread(link_code.unwrap, code, wrapped)
        identity = hello.require("primary_identity_pub").data
        finish, self.credentials.adv_secret = link_code.seal_bundle(
            ephemeral, peer, self.credentials.identity, identity
        )
        stage = Node(
            "link_code_companion_reg",
            {"jid": JID(number, USER_SERVER), "stage": "companion_finish"},
            [
                Node("link_code_pairing_wrapped_key_bundle", content=finish.wrapped_bundle),
                Node("companion_identity_public", content=finish.identity),
                Node("link_code_pairing_ref", content=ref),
            ],
        )
        await self.send(Node("ack", {"class": "notification", "id": notification.text("id")}))
        await self.iq("md", "set", [stage])

    # Login

    async def login(self, pre_keys: int = 30) -> Node:
        """Wait for `success`, upload prekeys if the server holds too few, and become active."""
        success = await self.expect("success")
        if await self.pre_key_count() < 5:
            await self.upload(pre_keys)
        await self.iq("passive", "set", [Node("active")])
        await self.expect("ib", lambda stanza: stanza.find("offline") is not None)
        return success

    async def pre_key_count(self) -> int:
        answer = await self.iq("encrypt", "get", [Node("count")])
        return int(answer.require("count").text("value"))

    async def upload(self, count: int) -> None:
        first = max(self.credentials.pre_keys, default=0) + 1
        fresh = {first + i: KeyPair.generate() for i in range(count)}
        self.credentials.pre_keys |= fresh
        keys = [
            Node("key", content=[Node("id", content=i.to_bytes(3, "big")), Node("value", content=key.public)])
            for i, key in fresh.items()
        ]
        signed = self.credentials.signed
        registration, kind, identity, skey = bundle_nodes(
            PreKeyBundle(self.credentials.registration_id, self.credentials.identity.public, signed)
        )
        await self.iq("encrypt", "set", [registration, kind, identity, Node("list", content=keys), skey])

    async def keepalive(self) -> Node:
        return await self.iq("w:p", "get")

    async def logout(self) -> Node:
        jid = self.credentials.jid or SERVER
        return await self.iq("md", "set", [Node("remove-companion-device", {"jid": jid, "reason": "user_initiated"})])

    # Messages

    async def lookup(self, numbers: Sequence[str]) -> list[tuple[JID, list[int]]]:
        """The LID and the devices of each number, asked for together."""
        users = [Node("user", {"jid": JID(number, USER_SERVER)}) for number in numbers]
        usync = Node(
            "usync",
            {"sid": self.new_id(), "index": "0", "last": "true", "mode": "query", "context": "message"},
            [Node("query", content=[Node("devices", {"version": "2"}), Node("lid")]), Node("list", content=users)],
        )
        answer = await self.iq("usync", "get", [usync])
        found = []
        for user in answer.require("usync", "list").all("user"):
            devices = user.require("devices", "device-list").all("device")
            found.append((user.require("lid").jid("val"), [int(device.text("id")) for device in devices]))
        return found

    async def write(self, number: str, text: str, server: str = LID_SERVER) -> str:
        """Send a text to all devices of a number, addressed by LID or by number; returns its id once acknowledged.

        Raises:
            LookupError: the server refused it.
        """
        ((lid, devices),) = await self.lookup([number])
        user = lid.user if server == LID_SERVER else number
        body = E2EMessage(conversation=text).SerializeToString()
        participants = []
        for device in devices:
            to = JID(user, server, device)
            ciphertext = await self._encrypt(to, pad(body))
            enc = Node("enc", {"v": "2", "type": ciphertext.type}, ciphertext.data)
            participants.append(Node("to", {"jid": to}, [enc]))
        identifier = secrets.token_hex(8).upper()
        await self.send(
            Node(
                "message",
                {"to": JID(user, server), "id": identifier, "type": "text"},
                [Node("participants", content=participants)],
            )
        )
        ack = await self.expect("ack", lambda stanza: stanza.get("id") == identifier)
        if ack.get("error"):
            raise LookupError(f"the server refused the message: {ack.get('error')}")
        return identifier

    async def _encrypt(self, to: JID, body: bytes) -> Ciphertext:
        session = self.credentials.sessions.setdefault(str(to), Session())
        if session.established:
            return session.encrypt(self.credentials.identity, body)
        bundle = await self.bundle(to)
        return session.initiate(self.credentials.identity, self.credentials.registration_id, bundle, body)

    async def bundle(self, of: JID) -> PreKeyBundle:
        answer = await self.iq("encrypt", "get", [Node("key", content=[Node("user", {"jid": of})])])
        user = answer.require("list", "user")
        key = user.find("key")
        return PreKeyBundle(
            int.from_bytes(user.require("registration").data, "big"),
            user.require("identity").data,
            read_signed_pre_key(user.require("skey")),
            read_pre_key(key) if key else None,
        )

    async def _receive(self, stanza: Node) -> None:
        enc = stanza.require("enc")
        kind: Literal["pkmsg", "msg"] = "pkmsg" if enc.text("type") == "pkmsg" else "msg"
        session = self.credentials.sessions.setdefault(str(stanza.jid("from")), Session())
        body = E2EMessage.FromString(unpad(session.decrypt(self.credentials.keys, Ciphertext(kind, enc.data))))
        copy = body.deviceSentMessage.message if body.HasField("deviceSentMessage") else body
        receipt: dict[str, Attribute] = {"to": stanza.jid("from"), "id": stanza.text("id")}
        await self.send(Node("receipt", receipt))
        async with self.arrived:
            self.messages.append(Received(stanza, copy.conversation))
            self.arrived.notify_all()

    async def wait_for_text(self, text: str) -> Received:
        """The message with this text."""
        async with asyncio.timeout(TIMEOUT), self.arrived:
            await self.arrived.wait_for(lambda: any(message.text == text for message in self.messages))
            return next(message for message in self.messages if message.text == text)

    async def ask_again(self, stanza: Node, count: int, bundle: PreKeyBundle | None = None) -> None:
        """A retry receipt for a message, with keys or without."""
        children = [
            Node("retry", {"count": count, "id": stanza.text("id"), "t": stanza.text("t"), "v": 1}),
            Node("registration", content=struct.pack(">I", self.credentials.registration_id)),
        ]
        if bundle:
            _, *keys = bundle_nodes(bundle)
            children.append(Node("keys", content=keys))
        attrs: dict[str, Attribute] = {"to": stanza.jid("from"), "id": stanza.text("id"), "type": "retry"}
        await self.send(Node("receipt", attrs, children))

    def own_bundle(self, identifier: int) -> PreKeyBundle:
        """An own bundle with one of the own prekeys."""
        key = PreKey(identifier, self.credentials.pre_keys[identifier].public)
        return PreKeyBundle(
            self.credentials.registration_id, self.credentials.identity.public, self.credentials.signed, key
        )
