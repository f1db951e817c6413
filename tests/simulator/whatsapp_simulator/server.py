"""The server as a whole: its keys, its phones, and the clients that are connected now."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, Literal

from aiohttp import web

from whatsapp_simulator import behaviours, device_list, faults
from whatsapp_simulator.binary.codec import encode
from whatsapp_simulator.binary.tokens import Dictionary
from whatsapp_simulator.certificates import NoiseAuthority, TLSAuthority
from whatsapp_simulator.connection import Connection
from whatsapp_simulator.fault_stanzas import damaged, is_first_copy, stream_error_node
from whatsapp_simulator.frames import MAX_MESSAGE, Frames, WebSocketFrames
from whatsapp_simulator.keys import KeyPair
from whatsapp_simulator.linking import Linking
from whatsapp_simulator.noise import NoiseError
from whatsapp_simulator.phone import Delivery, send_text
from whatsapp_simulator.problems import ProblemError, unknown_device, unknown_phone
from whatsapp_simulator.store import DeviceId, Phone, Store, replace
from whatsapp_simulator.stream import accept
from whatsapp_simulator.trust import TRUST_LINE

logger = logging.getLogger(__name__)

CHAT_PATH: Final = "/ws/chat"
DEFAULT_REFS: Final = 6
HANDSHAKE_TIMEOUT: Final = 20.0
CLOSE_TIMEOUT: Final = 2.0


class Server:
    """A WhatsApp server with its phones."""

    def __init__(
        self,
        store: Store,
        dictionary: Dictionary,
        *,
        refs: int = DEFAULT_REFS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.dictionary = dictionary
        self.now = now
        self.noise = noise_authority(store)
        self.tls = tls_authority(store)
        self.faults = faults.Faults()
        self.linking = Linking(store, self.faults, now, refs)
        self._frames: set[Frames] = set()
        self._by_device: dict[DeviceId, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.logins: Counter[DeviceId] = Counter()
        self.take_overs: Counter[DeviceId] = Counter()

    def write_trust(self, directory: Path) -> None:
        """Leave what a client must trust: `ca.crt`, `root.pub` (hexadecimal), and both in one file, `trust.pem`."""
        root = self.noise.root.public.hex()
        certificate = self.tls.certificate.decode()
        replace(directory / "ca.crt", certificate)
        replace(directory / "root.pub", root + "\n")
        replace(directory / "trust.pem", f"{certificate}{TRUST_LINE}{root}\n")

    def application(self) -> web.Application:
        """The web application behind the WhatsApp host name."""
        application = web.Application()
        application.router.add_get(CHAT_PATH, self._chat)
        return application

    async def _chat(self, request: web.Request) -> web.WebSocketResponse:
        # A client may offer compression; declining it spares its memory, some 300 KB a client.
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, compress=False, timeout=CLOSE_TIMEOUT)
        await socket.prepare(request)
        frames = WebSocketFrames(socket, request)
        self._frames.add(frames)
        try:
            await self._serve(frames)
        except TimeoutError:
            logger.info("a client did not finish its handshake")
        except ConnectionError as error:
            logger.debug("a stream ended: %s", error)
        except (NoiseError, ValueError) as error:
            logger.warning("a client does not speak the protocol: %s", error)
        finally:
            self._frames.discard(frames)
            await socket.close()
        return socket

    async def _serve(self, frames: Frames) -> None:
        if self.faults.take(behaviours.Hang):
            async for _ in frames:
                logger.debug("a frame is left unanswered")
            return
        slow = self.faults.take(behaviours.Slow)
        if slow:
            frames.delay = slow.seconds
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            stream, introduction = await accept(frames, self.noise, self.now())
        await Connection(self, stream).run(introduction)

    async def shutdown(self) -> None:
        """Cut all clients; they find the server again when it is back."""
        for frames in list(self._frames):
            frames.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Clients

    def connected(self, connection: Connection, id: DeviceId) -> None:
        """A device has logged in; an older stream of the same device is told that it was replaced."""
        older = self._by_device.get(id)
        self._by_device[id] = connection
        self.logins[id] += 1
        if older is not None:
            self.take_overs[id] += 1
            self.start(older.end(stream_error_node(behaviours.StreamError(conflict="replaced"))))

    def disconnected(self, connection: Connection) -> None:
        """A client's stream has ended, or its device has been unlinked."""
        self.linking.forget(connection)
        if connection.device and self._by_device.get(connection.device) is connection:
            del self._by_device[connection.device]

    def is_connected(self, id: DeviceId) -> bool:
        return id in self._by_device

    @property
    def connection_count(self) -> int:
        return len(self._frames)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background until it ends or the server does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def keep(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Store the stanzas that must survive until their readers confirm them; returns all as they are to be sent."""
        impaired = [self._impair(delivery) for delivery in deliveries]
        for delivery in impaired:
            if delivery.kept:
                self.store.add_undelivered(delivery.to, delivery.stanza.text("id"), encode(delivery.stanza))
        return impaired

    def _impair(self, delivery: Delivery) -> Delivery:
        if is_first_copy(delivery.stanza) and self.faults.take_for(behaviours.Undecryptable, delivery.to):
            return dataclasses.replace(delivery, stanza=damaged(delivery.stanza))
        return delivery

    async def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Send stanzas to the devices that are connected. A kept one that is lost here is sent at the next login."""
        for delivery in deliveries:
            connection = self._by_device.get(delivery.to)
            try:
                if connection:
                    await connection.send(delivery.stanza)
            except ConnectionError as error:
                logger.debug("a device's stream ended before a delivery: %s", error)

    def strike(self, connection: Connection) -> None:
        """Let the faults loose that hit a client which is logged in."""
        id = connection.device
        if id is None:
            return
        stream_error = self.faults.take_for(behaviours.StreamError, id)
        if stream_error:
            self.start(connection.end(stream_error_node(stream_error)))
        elif self.faults.take_for(behaviours.Drop, id):
            connection.abort()

    def strike_all(self) -> None:
        """As `strike`, for everyone who is logged in now."""
        for connection in list(self._by_device.values()):
            self.strike(connection)

    # Phones

    def add_phone(self, number: str, name: str, scan_after: float | None = None) -> Phone:
        """Create a phone; `scan_after` as in `Phone`.

        Raises:
            ProblemError: phone-exists.
        """
        try:
            return self.store.add_phone(number, name, self.now(), scan_after)
        except ValueError as cause:
            raise ProblemError(409, "phone-exists", str(cause)) from cause

    def phone(self, number: str) -> Phone:
        """The phone with this number; raises the ProblemError unknown-phone."""
        phone = self.store.phone(number)
        if phone is None:
            raise unknown_phone()
        return phone

    async def announce(self, phone: Phone, device: int, change: Literal["add", "remove"]) -> None:
        """Tell those concerned that a phone's device list has changed."""
        with self.store.transaction():
            deliveries = self.keep(device_list.changed(self.store, phone, device, change, self.now()))
        await self.deliver(deliveries)

    async def scan(self, phone: Phone, text: str) -> DeviceId:
        """Scan a QR; see `Linking.scan`."""
        id = await self.linking.scan(phone, text)
        await self.announce(phone, id.device, "add")
        return id

    async def enter_code(self, phone: Phone, text: str) -> DeviceId:
        """Type a pairing code; see `Linking.enter_code`."""
        id = await self.linking.enter_code(phone, text)
        await self.announce(phone, id.device, "add")
        return id

    async def unlink(self, phone: Phone, device: int) -> None:
        """Remove a companion from the phone's list, and end its stream.

        Raises:
            ProblemError: unknown-device.
        """
        id = DeviceId(phone.number, device)
        if not self.store.delete_device(id):
            raise unknown_device()
        connection = self._by_device.pop(id, None)
        await self.announce(phone, device, "remove")
        if connection:
            await connection.end(stream_error_node(behaviours.StreamError(code="401", conflict="device_removed")))

    async def send_text(self, phone: Phone, recipient: Phone, text: str) -> str:
        """Write from a phone; returns the message's id."""
        with self.store.transaction():
            identifier, deliveries = send_text(self.store, phone, recipient, text, self.now())
            deliveries = self.keep(deliveries)
        await self.deliver(deliveries)
        return identifier


def noise_authority(store: Store) -> NoiseAuthority:
    """The server's Noise keys, made at the first start."""
    saved = store.secret("noise")
    if saved is None:
        authority = NoiseAuthority.generate()
        keys = (authority.root, authority.intermediate, authority.static)
        store.save_secret("noise", json.dumps([key.private.hex() for key in keys]).encode())
        return authority
    return NoiseAuthority(*(KeyPair.from_private(bytes.fromhex(key)) for key in json.loads(saved)))


def tls_authority(store: Store) -> TLSAuthority:
    """The server's certificate authority, made at the first start."""
    certificate, key = store.secret("ca.crt"), store.secret("ca.key")
    if certificate is None or key is None:
        authority = TLSAuthority.generate()
        with store.transaction():
            store.save_secret("ca.crt", authority.certificate)
            store.save_secret("ca.key", authority.private_key)
        return authority
    return TLSAuthority(certificate, key)
