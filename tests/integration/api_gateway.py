"""An entrance to the API server at which a test can stop, hold up or lose the requests of one client."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import aiohttp
from aiohttp import web

from tests.apiserver import ApiServer
from tests.integration.recording_api import make_certificate

_HOP_BY_HOP: Final = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Call:
    """A request: its HTTP method, its path without the query, whether it is a watch or a dry run, query and body."""

    method: str
    path: str
    watches: bool
    dry_run: bool = False
    query: str = ""
    body: bytes = field(default=b"", repr=False)

    @property
    def writes(self) -> bool:
        return not self.dry_run and self.method in ("POST", "PUT", "PATCH", "DELETE")


class Severed(Exception):  # noqa: N818
    """The connection is closed without an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes to the client; the chunks of a watch come as they come."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


Forward = Callable[[], Awaitable[Answer]]
"""Passes the call on to the API server."""
Hook = Callable[[Call, Forward], Awaitable[Answer]]
"""Raises Severed where the connection is to be closed without an answer."""


async def passing(_: Call, forward: Forward) -> Answer:
    """The hook that disturbs nothing."""
    return await forward()


class Gateway:
    """HTTPS on a free port of loopback, until the `with` block ends; `hook` sees each call. Watches are streamed.

    `last_write` is the monotonic time of the last request that changes something, the leader election aside.
    """

    def __init__(self, api: ApiServer, directory: Path) -> None:
        self._upstream = api
        self._directory = directory
        self.hook: Hook = passing
        self.last_write = 0.0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="gateway")

    def __enter__(self) -> Self:
        chain = make_certificate(self._directory)
        self.ca = self._directory / "ca.crt"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def call(self, function: Callable[[], None]) -> None:
        """Run it where the hook runs."""
        self._loop.call_soon_threadsafe(function)

    async def _run(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application(client_max_size=16 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        trust = ssl.create_default_context(cadata=self._upstream.ca.decode())
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._client:
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._context)
            await site.start()
            self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
            self._ready.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        watches, dry_run = ("watch" in request.query, "dryRun" in request.query)
        call = Call(request.method, request.path, watches, dry_run, request.query_string, body)
        if call.writes and not call.path.endswith("/leases/whatsapp-operator-leader"):
            self.last_write = time.monotonic()
        upstream: list[aiohttp.ClientResponse] = []

        async def forward() -> Answer:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
            url = self._upstream.url + request.raw_path
            found = await self._client.request(request.method, url, headers=headers, data=body or None)
            upstream.append(found)
            kept = {k: v for k, v in found.headers.items() if k.lower() not in _HOP_BY_HOP}
            return Answer(found.status, kept, found.content.iter_any())

        try:
            answer = await self.hook(call, forward)
            response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
            await response.prepare(request)
            async for chunk in answer.chunks:
                await response.write(chunk)
            await response.write_eof()
            return response
        except (Severed, ConnectionError, aiohttp.ClientError):
            # Also where one of both ends is gone in the middle of a stream.
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        finally:
            for found in upstream:
                found.close()
