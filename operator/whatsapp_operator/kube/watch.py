"""Keeps up with all objects of a kind: a list page by page, then a watch from there, and whatever breaks begins again.

Of our own for the kinds of which there are as many as sessions: a general framework spends a queue, a task and some
16 KB on each object before anything is done with it.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Hashable, Set
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from whatsapp_operator.kube.client import Client, Object, Resource
from whatsapp_operator.kube.errors import GoneError, KubeError, ThrottledError, UnreachableError

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

# In seconds. The watch is ended by the server after that time, half as long again at most, as client-go does it.
WATCH_SECONDS: Final = 240
BACKOFF_FIRST: Final = 0.25
BACKOFF_LAST: Final = 30.0
# A watch that ended sooner without an event is counted as failed.
SHORT_WATCH: Final = 1.0
# After so many refusals the version itself may be what is wrong, as after a restored backup.
RELIST_AFTER: Final = 3


@dataclass(frozen=True, slots=True)
class Feed(Generic[K]):
    """Where the objects of a kind in a namespace go, or in all namespaces for None.

    Attributes:
        put: takes an object that was listed, added or changed; returns its key, None if it is of no interest.
        remove: takes the last state of an object that was deleted.
        prune: takes the keys of a whole list and its resourceVersion: what is older and not in it is gone.
    """

    resource: Resource
    namespace: str | None
    put: Callable[[Object], K | None]
    remove: Callable[[Object], None]
    prune: Callable[[Set[K], str], None]
    label_selector: str = ""


async def read_all(client: Client, feed: Feed[K]) -> str:
    """Feed a whole list; no more than one page of it is in memory. Returns its resourceVersion.

    Raises:
        KubeError: the list could not be read to its end; what was read until then was fed, and nothing pruned.
    """
    listed: set[K] = set()
    version = ""
    pages = client.pages(feed.resource, feed.namespace, label_selector=feed.label_selector)
    async with aclosing(pages):
        async for page in pages:
            listed.update(key for body in page.items if (key := feed.put(body)) is not None)
            version = page.resource_version
    feed.prune(listed, version)
    return version


class Reflector(Generic[K]):
    """Follows one feed for as long as `run` runs.

    Args:
        on_open: called each time a watch is open; the first time, everything there was has been fed.
        jitter: returns a factor between 0.5 and 1 for each pause.
    """

    def __init__(
        self,
        client: Client,
        feed: Feed[K],
        *,
        on_open: Callable[[], object],
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311
    ) -> None:
        self._client = client
        self._feed = feed
        self._on_open = on_open
        self._jitter = jitter
        self._version: str | None = None
        self._failures = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            started, asked, before = clock(), 0.0, self._version
            error: KubeError | None = None
            try:
                await self._follow()
            except GoneError:
                _log.info("the watch of %s begins anew", self._feed.resource.plural)
                self._version = None
            except KubeError as found:
                error = found
                asked = found.retry_after if isinstance(found, ThrottledError) else 0.0
            if self._version != before or (error is None and clock() - started > SHORT_WATCH):
                # It has brought something on.
                self._failures = 0
            seconds = max(asked, min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(self._failures, 20)) * self._jitter())
            self._failures += 1
            if self._failures > RELIST_AFTER and not isinstance(error, UnreachableError):
                self._version = None
            if error is not None:
                extra = {"retry": round(seconds, 1), "code": error.code}
                _log.warning("the watch of %s is opened again: %s", self._feed.resource.plural, error, extra=extra)
            await asyncio.sleep(seconds)

    async def _follow(self) -> None:
        feed = self._feed
        if self._version is None:
            self._version = await read_all(self._client, feed)
        events = self._client.watch(
            feed.resource,
            feed.namespace,
            version=self._version,
            seconds=round(WATCH_SECONDS * (2 - self._jitter())),
            label_selector=feed.label_selector,
            on_open=self._on_open,
        )
        async with aclosing(events):
            async for event in events:
                body: Object = event["object"]
                match event["type"]:
                    case "ADDED" | "MODIFIED":
                        feed.put(body)
                    case "DELETED":
                        feed.remove(body)
                # Bookmarks too.
                self._version = body["metadata"]["resourceVersion"]
