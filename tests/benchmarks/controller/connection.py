"""As little HTTP as an API server needs: the harness shares its CPU with what it measures."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from tests.apiserver import APPLY_PATCH, MERGE_PATCH, ApiServer

LIMIT = 2**24
RETRY_SECONDS = 0.5
_HEAD_END = b"\r\n\r\n"
_NO_HEADERS: Mapping[str, str] = {}


class RefusedError(Exception):
    """The API server answered with a status of 400 or above."""

    def __init__(self, status: int, what: str, text: str) -> None:
        super().__init__(f"{what}: {status} {text[:600]}")
        self.status = status


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(
        self, host: str, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bool]:
        """Status of the answer, and whether its body comes in chunks; `_length` holds its length if not."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {host}",
            "Accept: application/json",
            f"Content-Length: {len(body)}",
        ]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + _HEAD_END + body)
        head = (await self.reader.readuntil(_HEAD_END)).lower()
        self._length = 0
        if (at := head.find(b"\r\ncontent-length:")) >= 0:
            self._length = int(head[at + 17 : head.index(b"\r\n", at + 2)])
        return int(head[9:12]), b"\r\ntransfer-encoding: chunked" in head

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        rest = b""
        async for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)

    async def body(self, *, chunked: bool) -> bytes:
        if chunked:
            return b"".join([chunk async for chunk in self.chunks()])
        return await self.reader.readexactly(self._length)


class Client:
    """Requests over at most so many connections; an async context manager."""

    def __init__(self, api: ApiServer, connections: int) -> None:
        self._api = api
        self._host = urlsplit(api.url).netloc
        self._idle: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        for _ in range(connections):
            self._idle.put_nowait(None)
        self._open: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._open:
            connection.writer.transport.abort()

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = _NO_HEADERS
    ) -> bytes:
        """The body of the answer.

        Raises:
            RefusedError: a status of 400 or above.
        """
        connection = await self._idle.get()
        try:
            # The server closes what has been idle for long.
            if connection is None or connection.reader.at_eof():
                connection = await self._connect()
            status, chunked = await connection.send(self._host, method, path, headers, body)
            answer = await connection.body(chunked=chunked)
        except BaseException:
            if connection is not None:
                connection.writer.transport.abort()
            connection = None
            raise
        finally:
            self._idle.put_nowait(connection)
        if status >= 400:
            raise RefusedError(status, f"{method} {path}", answer.decode(errors="replace"))
        return answer

    async def create(self, path: str, body: Any, headers: Mapping[str, str] = _NO_HEADERS) -> Any:
        return json.loads(await self.request("POST", path, json.dumps(body).encode(), {**headers, **JSON}))

    async def patch(self, path: str, body: Any, headers: Mapping[str, str] = _NO_HEADERS) -> bytes:
        return await self.request("PATCH", path, json.dumps(body).encode(), {**headers, **MERGE})

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Every event of a collection, first those that tell what is there, over a connection of its own.

        A watch that the server ends begins anew, and tells again what is there.
        """
        separator = "&" if "?" in path else "?"
        while True:
            connection = await self._connect()
            query = f"{path}{separator}watch=true&timeoutSeconds=7200"
            status, chunked = await connection.send(self._host, "GET", query, {}, b"")
            if status == 200:
                async for event in connection.events():
                    # Such as a server that is not yet as far as it was asked for; another try will do.
                    if event["type"] == "ERROR":
                        break
                    yield event
            else:
                print(f"watch {path}: {status} {(await connection.body(chunked=chunked))[:300]!r}", file=sys.stderr)
            connection.writer.transport.abort()
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect(self) -> _Connection:
        host, _, port = self._host.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=self._api.context, limit=LIMIT)
        connection = _Connection(reader, writer)
        self._open.append(connection)
        return connection


JSON = {"Content-Type": "application/json"}
MERGE = {"Content-Type": MERGE_PATCH}
APPLY = {"Content-Type": APPLY_PATCH}


def impersonate(user: str, pod: str | None = None) -> dict[str, str]:
    """Headers that make an administrator's request that of a ServiceAccount, or of a pod with its bound token."""
    headers = {"Impersonate-User": user}
    if pod is not None:
        headers["Impersonate-Extra-authentication.kubernetes.io%2Fpod-name"] = pod
    return headers
