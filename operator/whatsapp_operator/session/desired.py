"""Watches the desired-state document that the kubelet keeps in the pod."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from whatsapp_operator.session.model import Desired, DocumentError, parse_desired

logger = logging.getLogger(__name__)

INTERVAL: Final = 0.4
"""Seconds between two looks. A stat costs some microseconds; inotify would cost ctypes its memory."""


async def watch(path: Path, interval: float = INTERVAL) -> AsyncIterator[Desired]:
    """Every document that differs from the one before it, the first as soon as there is one.

    The kubelet swaps a symbolic link, so the file is never half-written. A document that cannot be read is logged and
    left alone, and the one before it stays in force.
    """
    seen: tuple[int, int, int] | None = None
    last: Desired | None = None
    missing = False
    while True:
        try:
            signature = _signature(path)
            if signature != seen:
                seen, missing = signature, False
                desired = _read(path)
                if desired != last:
                    last = desired
                    yield desired
        except OSError as error:
            if not missing:
                logger.warning("the desired state is not there: %s", error.strerror)
            missing = True
        except DocumentError as error:
            logger.warning("%s", error)
        await asyncio.sleep(interval)


def _signature(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)


def _read(path: Path) -> Desired:
    return parse_desired(path.read_text())
