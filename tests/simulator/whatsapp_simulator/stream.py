"""One client's encrypted stream of stanzas, from its handshake to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from whatsapp_simulator.binary.codec import decode, encode
from whatsapp_simulator.binary.node import Node
from whatsapp_simulator.binary.tokens import Dictionary
from whatsapp_simulator.certificates import NoiseAuthority
from whatsapp_simulator.frames import Frames
from whatsapp_simulator.noise import CipherState, NoiseError, Responder
from whatsapp_simulator.protobuf import ClientPayload, HandshakeMessage, ProtobufDecodeError

logger = logging.getLogger(__name__)

LINGER: Final = 0.3
"""Seconds between a stream's last stanza and its end; with less, some clients see only a closed connection."""


class ClientGoneError(ConnectionError):
    """The client's stream ended, or it did not answer in time."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who the client says it is: its Noise public key, which it has proved, and its payload, which it has not."""

    noise: bytes
    payload: ClientPayload


class Stream:
    """Stanzas in both directions."""

    def __init__(
        self, frames: Frames, received: AsyncIterator[bytes], ciphers: tuple[CipherState, CipherState]
    ) -> None:
        self._frames = frames
        self._received = received
        self._incoming, self._outgoing = ciphers
        self._write_lock = asyncio.Lock()
        self.silent = False
        """Whether nothing more is sent; see the fault `hang`."""

    @property
    def delay(self) -> float:
        """Seconds by which what is sent is late; see the fault `slow`."""
        return self._frames.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._frames.delay = seconds

    async def stanzas(self, dictionary: Dictionary) -> AsyncIterator[Node]:
        """The client's stanzas until it closes the stream.

        Raises:
            NoiseError, ValueError: the client does not speak the protocol.
        """
        async for frame in self._received:
            stanza = decode(self._incoming.decrypt(frame), dictionary)
            logger.debug("received <%s>", stanza.tag)
            yield stanza

    async def send(self, stanza: Node) -> None:
        """Send a stanza; raises ConnectionError when the stream has ended."""
        logger.debug("sending <%s>", stanza.tag)
        await self.send_encoded(encode(stanza))

    async def send_encoded(self, stanza: bytes) -> None:
        """Send a stanza encoded earlier."""
        if not self.silent:
            async with self._write_lock:
                await self._frames.send(self._outgoing.encrypt(stanza))

    async def end(self, stanza: Node) -> None:
        """Send a last stanza, and close the stream after the client had time to read it."""
        with contextlib.suppress(ConnectionError):
            await self.send(stanza)
            await asyncio.sleep(LINGER)
        await self.close()

    async def close(self) -> None:
        await self._frames.close()

    def abort(self) -> None:
        """Cut the stream without a word."""
        self._frames.abort()


async def accept(frames: Frames, noise: NoiseAuthority, now: float) -> tuple[Stream, Introduction]:
    """Shake hands with a client.

    Raises:
        ClientGoneError: it closed the stream.
        NoiseError, FrameError: it does not speak the protocol.
    """
    received = aiter(frames)
    responder = Responder(noise.static)
    responder.read_hello((await _next(received)).clientHello.ephemeral)
    ephemeral, static, chain = responder.write_hello(noise.issue_chain(now))
    hello = HandshakeMessage.ServerHello(ephemeral=ephemeral, static=static, payload=chain)
    await frames.send(HandshakeMessage(serverHello=hello).SerializeToString())
    finish = (await _next(received)).clientFinish
    client, payload = responder.read_finish(finish.static, finish.payload)
    try:
        introduction = Introduction(client, ClientPayload.FromString(payload))
    except ProtobufDecodeError as error:
        raise NoiseError("the client's payload is malformed") from error
    return Stream(frames, received, responder.split()), introduction


async def _next(received: AsyncIterator[bytes]) -> HandshakeMessage:
    try:
        return HandshakeMessage.FromString(await anext(received))
    except StopAsyncIteration as error:
        raise ClientGoneError("the stream ended within the handshake") from error
    except ProtobufDecodeError as error:
        raise NoiseError("a handshake message is malformed") from error
