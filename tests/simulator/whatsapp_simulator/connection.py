"""What the server does on one client's stream: registration or login, then its stanzas one after the other."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from whatsapp_simulator import behaviours, fault_stanzas
from whatsapp_simulator.binary.node import LID_SERVER, SERVER, Attribute, MalformedNodeError, Node
from whatsapp_simulator.fault_stanzas import failure_node
from whatsapp_simulator.keys import serialized, verify
from whatsapp_simulator.linking import Candidate
from whatsapp_simulator.phone import address
from whatsapp_simulator.signal.x3dh import SignedPreKey
from whatsapp_simulator.stanzas.dispatch import handle
from whatsapp_simulator.stanzas.reaction import Request, error, result
from whatsapp_simulator.store import DeviceId, Registration
from whatsapp_simulator.stream import ClientGoneError, Introduction, Stream

if TYPE_CHECKING:
    from whatsapp_simulator.server import Server

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT: Final = 20.0
LOGOUT_LINGER: Final = 2.0

_RESTART: Final = "515"


class Connection:
    """A client that has shaken hands. `device` is who it is, once it has logged in."""

    def __init__(self, server: Server, stream: Stream) -> None:
        self._server = server
        self._stream = stream
        self._ids = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Node]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stanzas_left: int | None = None
        self._candidate: Candidate | None = None
        self.device: DeviceId | None = None

    async def run(self, introduction: Introduction) -> None:
        """Serve the client until its stream ends.

        Raises:
            ConnectionError: the stream ended while something was sent.
            NoiseError, ValueError: the client does not speak the protocol.
        """
        try:
            if introduction.payload.HasField("devicePairingData"):
                await self._register(introduction)
            else:
                await self._login(introduction)
            async for stanza in self._stream.stanzas(self._server.dictionary):
                if self._stanzas_left == 0:
                    self._stream.abort()
                    return
                if self._stanzas_left is not None:
                    self._stanzas_left -= 1
                await self._handle(stanza)
        finally:
            self._server.disconnected(self)
            for future in self._answers.values():
                future.cancel()
            for task in self._tasks:
                task.cancel()

    async def request(self, namespace: str, content: Sequence[Node]) -> Node:
        """Send an IQ of type `set` and wait for the client's answer, be it a result or an error.

        Raises:
            ClientGoneError: it did not come within 20 s, or the stream ended.
        """
        identifier = self._new_id()
        future: asyncio.Future[Node] = asyncio.get_running_loop().create_future()
        self._answers[identifier] = future
        stanza = Node("iq", {"from": SERVER, "id": identifier, "type": "set", "xmlns": namespace}, content)
        try:
            await self._stream.send(stanza)
            done, _ = await asyncio.wait([future], timeout=ANSWER_TIMEOUT)
        except ConnectionError as cause:
            raise ClientGoneError("the stream has ended") from cause
        finally:
            del self._answers[identifier]
        if not done or future.cancelled():
            raise ClientGoneError("the client did not answer")
        return future.result()

    async def notify(self, kind: str, content: Sequence[Node]) -> None:
        """Send a notification from the server; raises ConnectionError when the stream has ended."""
        now = int(self._server.now())
        attributes: dict[str, Attribute] = {"from": SERVER, "id": self._new_id(), "type": kind, "t": now}
        await self._stream.send(Node("notification", attributes, content))

    async def send(self, stanza: Node) -> None:
        """Send a stanza; raises ConnectionError when the stream has ended."""
        await self._stream.send(stanza)

    async def end(self, stanza: Node) -> None:
        """Send a last stanza, and close the stream after the client had time to read it."""
        await self._stream.end(stanza)

    async def restart(self) -> None:
        """Tell a client that has just been linked to come back and log in."""
        await self._stream.end(Node("stream:error", {"code": _RESTART}))

    def abort(self) -> None:
        """Cut the stream."""
        self._stream.abort()

    def _new_id(self) -> str:
        return f"s.{next(self._ids)}"

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Registration and login

    async def _register(self, introduction: Introduction) -> None:
        failure = self._server.faults.take(behaviours.Failure)
        if failure:
            await self._stream.end(failure_node(failure))
            return
        self._impair(None)
        registration = _registration(introduction)
        self._candidate = self._server.linking.register(self, registration)
        self._start(self._offer(self._candidate.refs))

    async def _offer(self, refs: list[str]) -> None:
        content = [Node("ref", content=ref.encode()) for ref in refs]
        try:
            await self.request("md", [Node("pair-device", content=content)])
        except ClientGoneError as cause:
            logger.info("pair-device was not confirmed: %s", cause)

    async def _login(self, introduction: Introduction) -> None:
        server, payload = self._server, introduction.payload
        id = DeviceId(str(payload.username), payload.device)
        failure = server.faults.take_for(behaviours.Failure, id)
        device, phone = server.store.device(id), server.store.phone(id.number)
        if not failure and (device is None or device.keys.noise != introduction.noise):
            failure = behaviours.Failure(reason="401")
        if failure or phone is None:
            await self._stream.end(failure_node(failure or behaviours.Failure(reason="401")))
            return
        self._impair(id)
        self.device = id
        server.connected(self, id)
        lid = address(phone, id.device, LID_SERVER)
        skew = server.faults.take_for(behaviours.ClockSkew, id)
        now = int(server.now()) + (skew.seconds if skew else 0)
        await self.send(Node("success", {"t": now, "lid": lid, "props": 1, "location": "sim"}))
        if not payload.passive:
            await self._synchronize(id)
        server.strike(self)

    def _impair(self, id: DeviceId | None) -> None:
        """Apply the faults that last as long as the stream."""
        if self._server.faults.take_for(behaviours.Hang, id):
            self._stream.silent = True
        slow = None if self._stream.delay else self._server.faults.take_for(behaviours.Slow, id)
        if slow:
            self._stream.delay = slow.seconds
        close = self._server.faults.take_for(behaviours.CloseAfterFrames, id)
        if close:
            self._stanzas_left = close.frames

    async def _synchronize(self, id: DeviceId) -> None:
        """Send what was kept for the device while it was away, framed by the two notices clients wait for."""
        kept = self._server.store.undelivered(id)
        counts = {"count": len(kept), "message": len(kept), "receipt": 0, "notification": 0, "appdata": 0}
        await self.send(Node("ib", {"from": SERVER}, [Node("offline_preview", counts)]))
        for stanza in kept:
            await self._stream.send_encoded(stanza)
        await self.send(Node("ib", {"from": SERVER}, [Node("offline", {"count": len(kept)})]))

    # Stanzas

    async def _handle(self, stanza: Node) -> None:
        if self._stream.silent:
            return
        if stanza.tag == "iq" and stanza.get("type") in ("result", "error"):
            future = self._answers.get(stanza.text("id"))
            if future and not future.done():
                future.set_result(stanza)
            return
        silencer = fault_stanzas.silencer(stanza)
        if silencer and self._server.faults.take_for(silencer, self.device):
            return
        try:
            await (self._handle_linked(stanza, self.device) if self.device else self._handle_candidate(stanza))
        except ValueError as problem:
            logger.warning("a malformed <%s>: %s", stanza.tag, problem)
            if stanza.tag == "iq" and "id" in stanza.attrs:
                await self.send(error(stanza, 400))

    async def _handle_candidate(self, stanza: Node) -> None:
        if stanza.tag != "iq" or self._candidate is None:
            return
        code = stanza.find("link_code_companion_reg")
        if code is not None:
            answer = self._server.linking.code_stage(self._candidate, stanza, code)
            if answer:
                await self.send(answer)
        else:
            await self.send(result(stanza))

    async def _handle_linked(self, stanza: Node, id: DeviceId) -> None:
        server = self._server
        device, phone = server.store.device(id), server.store.phone(id.number)
        if device is None or phone is None:
            return
        with server.store.transaction():
            reaction = handle(Request(stanza, device, phone, server.store, server.now()))
            deliveries = server.keep(reaction.deliveries)
        for reply in reaction.replies:
            await self.send(reply)
        if reaction.synchronized:
            await self._synchronize(id)
        await server.deliver(deliveries)
        if reaction.unlinked:
            server.disconnected(self)
            self._start(self._leave())

    async def _leave(self) -> None:
        await asyncio.sleep(LOGOUT_LINGER)
        await self._stream.close()


def _registration(introduction: Introduction) -> Registration:
    data = introduction.payload.devicePairingData
    signed = SignedPreKey(int.from_bytes(data.eSkeyID, "big"), data.eSkeyVal, data.eSkeySig)
    if not verify(data.eIdent, serialized(signed.public), signed.signature):
        raise MalformedNodeError("the signed prekey of a registration is not signed by its identity")
    return Registration(introduction.noise, data.eIdent, int.from_bytes(data.eRegid, "big"), signed)
