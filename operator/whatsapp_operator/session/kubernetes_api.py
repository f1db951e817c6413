"""The pod's two writes to the API server: an HTTPS client for merge patches, and nothing else.

The token and the certificate authority are read for every request, as the kubelet renews them. A connection serves
one request: a session writes a dozen times in its first minute, and then hardly ever.
"""

import asyncio
import json
import logging
import ssl
from pathlib import Path
from typing import Any, Final

from whatsapp_operator.api import names
from whatsapp_operator.api.masking import mask

logger = logging.getLogger(__name__)

_ERROR_BODY: Final = 16 * 1024
_CHUNK: Final = 64 * 1024


class ApiError(Exception):
    """The API server refused (`status`), or could not be reached (`status` 0)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class KubernetesAPI:
    """`host` and `port` of the API server; the service account's directory holds `token` and `ca.crt`."""

    def __init__(self, host: str, port: int, service_account_dir: Path, timeout: float = 5.0) -> None:
        self._host = host
        self._port = port
        self._directory = service_account_dir
        self._timeout = timeout

    async def merge_patch(self, path: str, body: dict[str, Any]) -> None:
        """PATCH with a JSON merge patch. Raises ApiError; what the API server says is in its text, masked."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._request(path, json.dumps(body, separators=(",", ":")).encode())
        except TimeoutError:
            raise ApiError(0, "the API server does not answer") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise ApiError(0, f"the API server cannot be reached ({type(error).__name__})") from None

    async def _request(self, path: str, body: bytes) -> None:
        token = (self._directory / "token").read_text().strip()
        context = ssl.create_default_context(cafile=str(self._directory / "ca.crt"))
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        try:
            host = f"[{self._host}]" if ":" in self._host else self._host
            writer.write(
                f"PATCH {path}?fieldManager={names.FIELD_MANAGER_SESSION} HTTP/1.1\r\n"
                f"Host: {host}:{self._port}\r\n"
                f"Authorization: Bearer {token}\r\n"
                "Accept: application/json\r\n"
                "Content-Type: application/merge-patch+json\r\n"
                f"Content-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            status_line = (await reader.readuntil(b"\r\n")).split(None, 2)
            status = int(status_line[1])
            if not 200 <= status < 300:
                head = await reader.readuntil(b"\r\n\r\n")
                raise ApiError(status, _explain(status, head, await reader.read(_ERROR_BODY)))
            # The answer to a patch of a Secret holds the Secret: it is read, or the server logs a failure, and dropped.
            while await reader.read(_CHUNK):
                pass
        finally:
            writer.transport.abort()


def _explain(status: int, head: bytes, body: bytes) -> str:
    """The message of a Status object, wherever it is in a plain or chunked body."""
    text = body.decode("utf-8", "replace")
    try:
        message = json.loads(text[text.index("{") : text.rindex("}") + 1])["message"]
    except (ValueError, KeyError, TypeError):
        message = "no explanation"
    return mask(f"{status}: {message}")
