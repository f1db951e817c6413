"""/healthz, /readyz and /metrics: GET only, one request a connection."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

logger = logging.getLogger(__name__)

TIMEOUT: Final = 5.0
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

Page = Callable[[], tuple[int, str]]
"""Status and body of a path."""

_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Unavailable"}


async def serve(host: str, port: int, pages: Mapping[str, Page]) -> asyncio.Server:
    """`host` empty: every interface. Raises OSError when the port is taken."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                status, body = _answer((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0], pages)
                content = body.encode()
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {TEXT}\r\n"
                    f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
                    + content
                )
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            logger.debug("an HTTP client went away or sent no request")
        finally:
            writer.close()

    return await asyncio.start_server(handle, host or None, port, limit=8192)


def _answer(request_line: bytes, pages: Mapping[str, Page]) -> tuple[int, str]:
    parts = request_line.decode("latin-1").split(" ")
    if len(parts) != 3:
        return 400, "bad request\n"
    method, target, _ = parts
    page = pages.get(target.partition("?")[0])
    if page is None:
        return 404, "not found\n"
    if method != "GET":
        return 405, "GET only\n"
    return page()
