"""The Secret of the session: the QR or code that is shown now, or nothing."""

import asyncio
import base64
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from whatsapp_operator.api import names
from whatsapp_operator.session.commands import Publish
from whatsapp_operator.session.kubernetes_api import ApiError
from whatsapp_operator.session.report import timestamp

logger = logging.getLogger(__name__)

RETRY_FIRST: Final = 0.5
RETRY_CAP: Final = 10.0

NOTHING: Final[dict[str, Any]] = {"data": dict.fromkeys(names.SECRET_KEYS)}


def patch_of(publish: Publish | None) -> dict[str, Any]:
    """The merge patch that shows this and nothing else; None clears."""
    if publish is None:
        return NOTHING
    return {
        "data": {
            names.SECRET_KEY_QR: _encoded(publish.qr),
            names.SECRET_KEY_QR_PNG: publish.png or None,
            names.SECRET_KEY_CODE: _encoded(publish.code),
            names.SECRET_KEY_EXPIRES_AT: _encoded(timestamp(publish.expires_at)),
        }
    }


def _encoded(text: str | None) -> str | None:
    return None if text is None else base64.b64encode(text.encode()).decode()


class Publisher:
    """Writes what is to be shown until the API server has it; what comes meanwhile replaces it.

    `write` sends one patch and raises ApiError. `published` and `refused` (with the HTTP status) are told of what is
    shown, `cleared` of what is cleared.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], Awaitable[None]],
        published: Callable[[], None],
        cleared: Callable[[], None],
        refused: Callable[[int], None],
    ) -> None:
        self._write = write
        self._published = published
        self._cleared = cleared
        self._refused = refused
        self._wanted: Publish | None = None
        self._dirty = False
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self.written = 0
        self.failed = 0

    def show(self, publish: Publish | None) -> None:
        """None clears."""
        self._wanted = publish
        self._dirty = True
        self._changed.set()

    async def run(self) -> None:
        failures = 0
        while True:
            if not self._dirty:
                self._changed.clear()
                await self._changed.wait()
            self._changed.clear()
            if await self._send():
                failures = 0
                continue
            failures += 1
            backoff = min(RETRY_FIRST * 2.0 ** min(failures - 1, 16), RETRY_CAP)
            try:
                async with asyncio.timeout(backoff * random.uniform(0.8, 1.0)):  # noqa: S311
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def flush(self) -> None:
        """One more try for what is not written yet, at once."""
        if self._dirty:
            await self._send()

    async def _send(self) -> bool:
        async with self._sending:
            if not self._dirty:
                return True
            wanted = self._wanted
            try:
                await self._write(patch_of(wanted))
            except ApiError as error:
                self.failed += 1
                if wanted is None and error.status == 404:
                    self._done(wanted)
                    return True  # nothing there to be cleared
                # What the API server says may quote the patch, and no pattern knows a code in base64.
                logger.warning("the Secret was not written: %s", f"status {error.status}" if error.status else error)
                if wanted is not None:
                    self._refused(error.status)
                return False
            self.written += 1
            self._done(wanted)
            return True

    def _done(self, wanted: Publish | None) -> None:
        self._dirty = self._wanted is not wanted
        if wanted is not None:
            self._published()
        elif not self._dirty:
            self._cleared()
