"""One client's stream: handshake, then registration or login, then stanzas until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final

from whatsapp_simulator import faults
from whatsapp_simulator.binary.codec import decode, encode
from whatsapp_simulator.binary.node import LID_SERVER, SERVER, Attribute, MalformedNodeError, Node
from whatsapp_simulator.frames import Frames
from whatsapp_simulator.keys import serialized, verify
from whatsapp_simulator.linking import Candidate
from whatsapp_simulator.noise import NoiseError, Responder
from whatsapp_simulator.phone import address
from whatsapp_simulator.protobuf import ClientPayload, HandshakeMessage, ProtobufDecodeError
from whatsapp_simulator.signal.x3dh import SignedPreKey
from whatsapp_simulator.stanzas.dispatch import handle, is_keepalive
from whatsapp_simulator.stanzas.reaction import Request, error, result
from whatsapp_simulator.store import DeviceId, Registration

if TYPE_CHECKING:
    from whatsapp_simulator.server import Server

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT: Final = 20.0
ANSWER_TIMEOUT: Final = 20.0
LINGER: Final = 0.3
"""Seconds between a stream's last stanza and its end; with less, some clients see only a closed connection."""
LOGOUT_LINGER: Final = 2.0

_RESTART: Final = "515"


class ClientGoneError(ConnectionError):
    """The client's stream ended, or it did not answer in time."""


class Connection:
    """A client's stream. Stanzas are handled one after the other, in the order in which they came."""

    def __init__(self, server: Server, frames: Frames) -> None:
        self._server = server
        self._frames = frames
        self._ids = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Node]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._write_lock = asyncio.Lock()
        self._silent = False
        self._frames_left: int | None = None
        self._candidate: Candidate | None = None
        self.device: DeviceId | None = None

    # The stream

    async def run(self) -> None:
        """Serve the client until its stream ends.

        Raises:
            NoiseError, ValueError: the client does not speak the protocol.
        """
        stream = aiter(self._frames)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                noise, payload = await self._handshake(stream)
            if payload.HasField("devicePairingData"):
                await self._register(noise, payload)
            else:
                await self._login(noise, payload)
            async for frame in stream:
                if self._frames_left is not None:
                    if self._frames_left == 0:
                        self._frames.abort()
                        return
                    self._frames_left -= 1
                stanza = decode(self._incoming.decrypt(frame), self._server.dictionary)
                logger.debug("received <%s>", stanza.tag)
                await self._handle(stanza)
        except ConnectionError as error:
            logger.debug("the stream ended: %s", error)
        finally:
            self._server.disconnected(self)
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(ClientGoneError("the client closed its stream"))
                    future.exception()
            for task in self._tasks:
                task.cancel()

    async def _handshake(self, stream: AsyncIterator[bytes]) -> tuple[bytes, ClientPayload]:
        responder = Responder(self._server.noise.static)
        if self._server.faults.take(faults.Hang):
            async for _ in stream:
                continue
            raise ClientGoneError("the client left while it was not answered")
        hello = _message(await _next(stream))
        responder.read_hello(hello.clientHello.ephemeral)
        ephemeral, static, chain = responder.write_hello(self._server.noise.issue_chain(self._server.now()))
        answer = HandshakeMessage(
            serverHello=HandshakeMessage.ServerHello(ephemeral=ephemeral, static=static, payload=chain)
        )
        await self._frames.send(answer.SerializeToString())
        finish = _message(await _next(stream)).clientFinish
        noise, payload = responder.read_finish(finish.static, finish.payload)
        self._incoming, self._outgoing = responder.split()
        try:
            return noise, ClientPayload.FromString(payload)
        except ProtobufDecodeError as error:
            raise NoiseError("the client's payload is malformed") from error

    async def send(self, stanza: Node) -> None:
        """Send a stanza; raises ConnectionError when the stream has ended."""
        if self._silent:
            return
        logger.debug("sending <%s>", stanza.tag)
        async with self._write_lock:
            await self._frames.send(self._outgoing.encrypt(encode(stanza)))

    async def send_encoded(self, stanza: bytes) -> None:
        """Send a stanza encoded earlier."""
        if not self._silent:
            async with self._write_lock:
                await self._frames.send(self._outgoing.encrypt(stanza))

    async def request(self, namespace: str, content: Sequence[Node]) -> Node:
        """Send an IQ of type `set` and wait for the client's answer, be it a result or an error.

        Raises:
            ClientGoneError: it did not come within 20 s.
        """
        identifier = self._new_id()
        future: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self._answers[identifier] = future
        try:
            await self.send(Node("iq", {"from": SERVER, "id": identifier, "type": "set", "xmlns": namespace}, content))
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await future
        except (TimeoutError, ConnectionError) as error:
            raise ClientGoneError("the client did not answer") from error
        finally:
            del self._answers[identifier]

    async def notify(self, kind: str, content: Sequence[Node]) -> None:
        """Send a notification from the server."""
        now = int(self._server.now())
        attributes: dict[str, Attribute] = {"from": SERVER, "id": self._new_id(), "type": kind, "t": now}
        await self.send(Node("notification", attributes, content))

    async def end(self, stanza: Node) -> None:
        """Send a last stanza, and close the stream after the client had time to read it."""
        with contextlib.suppress(ConnectionError):
            await self.send(stanza)
            await asyncio.sleep(LINGER)
        await self._frames.close()

    async def restart(self) -> None:
        """Tell a client that has just been linked to come back and log in."""
        await self.end(Node("stream:error", {"code": _RESTART}))

    def abort(self) -> None:
        """Cut the stream."""
        self._frames.abort()

    def _new_id(self) -> str:
        return f"s.{next(self._ids)}"

    def _later(self, work: asyncio.Task[None]) -> None:
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)

    # Registration and login

    async def _register(self, noise: bytes, payload: ClientPayload) -> None:
        failure = self._server.faults.take(faults.Failure)
        if failure:
            await self.end(failure_node(failure))
            return
        self._impair(None)
        registration = _registration(noise, payload.devicePairingData)
        self._candidate = self._server.linking.register(self, registration)
        refs = [Node("ref", content=ref.encode()) for ref in self._candidate.refs]
        self._later(asyncio.create_task(self._offer(refs)))

    async def _offer(self, refs: list[Node]) -> None:
        try:
            await self.request("md", [Node("pair-device", content=refs)])
        except ClientGoneError as error:
            logger.info("pair-device was not confirmed: %s", error)

    async def _login(self, noise: bytes, payload: ClientPayload) -> None:
        server, id = self._server, DeviceId(str(payload.username), payload.device)
        failure = server.faults.take_for(faults.Failure, id)
        if failure:
            await self.end(failure_node(failure))
            return
        device, phone = server.store.device(id), server.store.phone(id.number)
        if device is None or phone is None or device.keys.noise != noise:
            await self.end(failure_node(faults.Failure(reason="401")))
            return
        self._impair(id)
        self.device = id
        await server.connected(self)
        await self.send(
            Node(
                "success",
                {"t": int(server.now()), "lid": address(phone, id.device, LID_SERVER), "props": 1, "location": "sim"},
            )
        )
        if not payload.passive:
            await self._synchronize(id)
        await server.strike(self)

    def _impair(self, id: DeviceId | None) -> None:
        """Apply the faults that last as long as the stream."""
        number, device = (id.number, id.device) if id else (None, None)
        if self._server.faults.take(faults.Hang, number, device):
            self._silent = True
        close = self._server.faults.take(faults.CloseAfterFrames, number, device)
        if close:
            self._frames_left = close.frames

    async def _synchronize(self, id: DeviceId) -> None:
        """Send what was kept for the device while it was away, framed by the two notices clients wait for."""
        kept = self._server.store.undelivered(id)
        counts = {"count": len(kept), "message": len(kept), "receipt": 0, "notification": 0, "appdata": 0}
        await self.send(Node("ib", {"from": SERVER}, [Node("offline_preview", counts)]))
        for stanza in kept:
            await self.send_encoded(stanza)
        await self.send(Node("ib", {"from": SERVER}, [Node("offline", {"count": len(kept)})]))

    # Stanzas

    async def _handle(self, stanza: Node) -> None:
        if self._silent:
            return
        if stanza.tag == "iq" and stanza.get("type") in ("result", "error"):
            future = self._answers.get(stanza.text("id"))
            if future and not future.done():
                future.set_result(stanza)
            return
        try:
            await (self._handle_linked(stanza, self.device) if self.device else self._handle_candidate(stanza))
        except ValueError as problem:
            logger.warning("a malformed <%s>: %s", stanza.tag, problem)
            if stanza.tag == "iq" and "id" in stanza.attrs:
                await self.send(error(stanza, 400, "bad-request"))

    async def _handle_candidate(self, stanza: Node) -> None:
        if stanza.tag != "iq" or self._candidate is None:
            return
        code = stanza.find("link_code_companion_reg")
        if code is not None:
            await self.send(self._server.linking.code_stage(self._candidate, stanza, code))
        elif not (is_keepalive(stanza) and self._server.faults.take(faults.IgnoreKeepalives)):
            await self.send(result(stanza))

    async def _handle_linked(self, stanza: Node, id: DeviceId) -> None:
        server = self._server
        if is_keepalive(stanza) and server.faults.take_for(faults.IgnoreKeepalives, id):
            return
        device, phone = server.store.device(id), server.store.phone(id.number)
        if device is None or phone is None:
            return
        reaction = handle(Request(stanza, device, phone, server.store, server.now()))
        for delivery in reaction.deliveries:
            server.keep(delivery)
        for reply in reaction.replies:
            await self.send(reply)
        if reaction.synchronized:
            await self._synchronize(id)
        for delivery in reaction.deliveries:
            await server.deliver(delivery)
        if reaction.unlinked:
            server.disconnected(self)
            self._later(asyncio.create_task(self._leave()))

    async def _leave(self) -> None:
        await asyncio.sleep(LOGOUT_LINGER)
        await self._frames.close()


async def _next(stream: AsyncIterator[bytes]) -> bytes:
    try:
        return await anext(stream)
    except StopAsyncIteration as error:
        raise ClientGoneError("the stream ended within the handshake") from error


def _message(frame: bytes) -> HandshakeMessage:
    try:
        return HandshakeMessage.FromString(frame)
    except ProtobufDecodeError as error:
        raise NoiseError("a handshake message is malformed") from error


def _registration(noise: bytes, data: ClientPayload.DevicePairingRegistrationData) -> Registration:
    signed = SignedPreKey(int.from_bytes(data.eSkeyID, "big"), data.eSkeyVal, data.eSkeySig)
    if not verify(data.eIdent, serialized(signed.public), signed.signature):
        raise MalformedNodeError("the signed prekey of a registration is not signed by its identity")
    return Registration(noise, data.eIdent, int.from_bytes(data.eRegid, "big"), signed)


def failure_node(failure: faults.Failure) -> Node:
    """`<failure>` as the server ends a login; see `faults.Failure`."""
    optional = {"code": failure.code, "expire": failure.expire, "message": failure.message}
    present = {name: value for name, value in optional.items() if value is not None}
    return Node("failure", {"reason": failure.reason, "location": "sim", **present})


def stream_error_node(stream_error: faults.StreamError) -> Node:
    """`<stream:error>` with its code, its conflict, or both."""
    conflict = [Node("conflict", {"type": stream_error.conflict})] if stream_error.conflict else None
    return Node("stream:error", {"code": stream_error.code} if stream_error.code else {}, conflict)
