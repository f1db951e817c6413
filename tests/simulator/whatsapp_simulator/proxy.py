"""The entrance: an HTTP CONNECT proxy that is the WhatsApp host itself and leads nowhere else."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from whatsapp_simulator import behaviours, faults
from whatsapp_simulator.certificates import WHATSAPP_HOST

logger = logging.getLogger(__name__)

MAX_REQUEST: Final = 16_384
REQUEST_TIMEOUT: Final = 20.0
_END: Final = b"\r\n\r\n"


class Proxy:
    """Accepts `CONNECT web.whatsapp.com:443`, terminates TLS, and hands the stream to the web server."""

    def __init__(self, active: faults.Faults, context: ssl.SSLContext, server: web.Server) -> None:
        self._faults = active
        self._context = context
        self._server = server
        self._listener: asyncio.Server | None = None
        self._dials: set[_Dial] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which matters where 0 was asked for."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: _Dial(self._answer, self._secure, self._dials), host, port, backlog=1024
        )
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Listen no more, and cut the dials that have not become streams."""
        if self._listener:
            self._listener.close()
        for dial in list(self._dials):
            dial.cut()

    def _answer(self, request: bytes) -> int:
        """The status for the head of a request."""
        words = request.partition(b"\r\n")[0].split()
        if len(words) != 3 or words[0] != b"CONNECT":
            return HTTPStatus.METHOD_NOT_ALLOWED
        if words[1] != f"{WHATSAPP_HOST}:443".encode():
            return HTTPStatus.FORBIDDEN
        refused = self._faults.take(behaviours.RefuseDial)
        return refused.status if refused else HTTPStatus.OK

    async def _secure(self, transport: asyncio.Transport) -> None:
        gate = _Gate()
        try:
            secured = await asyncio.get_running_loop().start_tls(transport, gate, self._context, server_side=True)
        except (OSError, ssl.SSLError) as error:
            logger.info("a client did not accept TLS: %s", error)
            transport.abort()
            return
        if secured is not None and not gate.lost:
            gate.open(self._server(), secured)


class _Dial(asyncio.Protocol):
    """One client until its TLS stands: reads the CONNECT request, answers it, and hands over."""

    def __init__(
        self,
        answer: Callable[[bytes], int],
        secure: Callable[[asyncio.Transport], Coroutine[Any, Any, None]],
        dials: set[_Dial],
    ) -> None:
        self._answer = answer
        self._secure = secure
        self._dials = dials
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._handover: asyncio.Task[None] | None = None
        self._timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a dial needs a stream transport")
        self._transport = transport
        self._dials.add(self)
        self._timeout = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT, self.cut)

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()

    def cut(self) -> None:
        """End the dial, wherever it stands."""
        if self._handover:
            self._handover.cancel()
        if self._transport:
            self._transport.abort()

    def _done(self) -> None:
        self._dials.discard(self)
        if self._timeout:
            self._timeout.cancel()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._handover:
            return
        self._buffer += data
        if len(self._buffer) > MAX_REQUEST:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif _END in self._buffer:
            status = self._answer(bytes(self._buffer))
            if status != HTTPStatus.OK:
                self._refuse(status)
                return
            self._transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._handover = asyncio.create_task(self._secure(self._transport))
            self._handover.add_done_callback(lambda _: self._done())

    def _refuse(self, status: int) -> None:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else ""
        head = f"HTTP/1.1 {int(status)} {phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        if self._transport:
            self._transport.write(head.encode())
            self._transport.close()


class _Gate(asyncio.Protocol):
    """Holds what arrives between the end of the TLS handshake and the handover to the web server."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self._held.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def open(self, protocol: asyncio.Protocol, transport: asyncio.Transport) -> None:
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for data in self._held:
            protocol.data_received(data)
