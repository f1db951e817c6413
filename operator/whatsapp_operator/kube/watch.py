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
from whatsapp_operator.kube.errors import (
    ForbiddenError,
    GoneError,
    InvalidError,
    KubeError,
    ServerError,
    ThrottledError,
)

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

# In seconds. The watch is ended by the server after that time, half as long again at most, as client-go does it.
WATCH_SECONDS: Final = 240
BACKOFF_FIRST: Final = 0.25
BACKOFF_LAST: Final = 30.0
# A watch that ended sooner without an event is counted as failed, however it ended.
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


async def read_all(client: Client, feed: Feed[K], *, on_page: Callable[[], object] = lambda: None) -> str:
    """Feed a whole list; no more than one page of it is in memory, and `on_page` is called after each.

    Returns its resourceVersion. Where an object could not be taken, nothing is pruned: it would be taken for gone.

    Raises:
        KubeError: the list could not be read to its end; what was read until then was fed, and nothing pruned.
    """
    listed: set[K] = set()
    version, is_whole = "", True

    def put(body: Object) -> None:
        if (key := feed.put(body)) is not None:
            listed.add(key)

    pages = client.pages(feed.resource, feed.namespace, label_selector=feed.label_selector)
    async with aclosing(pages):
        async for page in pages:
            for body in page.items:
                is_whole &= _told(feed, put, body)
            version = page.resource_version
            on_page()
    if is_whole:
        feed.prune(listed, version)
    return version


def _told(feed: Feed[K], tell: Callable[[Object], object], body: Object) -> bool:
    """Whether the feed could take it; one strange object must not end the watch of all the others."""
    try:
        tell(body)
    except Exception as error:  # noqa: BLE001
        metadata = body.get("metadata") or {}
        name = f"{feed.resource.plural} {metadata.get('namespace')}/{metadata.get('name')}"
        # Without the error's text, which may quote the object.
        _log.error("what cannot be read is left out: %s: %s", name, type(error).__name__)
        return False
    return True


class Reflector(Generic[K]):
    """Follows one feed for as long as `run` runs.

    Args:
        on_open: called each time a watch is open; the first time, everything there was has been fed.
        on_page: called after each page of a list.
        on_refused: called each time that the list or the watch is forbidden.
        jitter: returns a factor between 0.5 and 1 for each pause.
    """

    def __init__(
        self,
        client: Client,
        feed: Feed[K],
        *,
        on_open: Callable[[], object],
        on_page: Callable[[], object] = lambda: None,
        on_refused: Callable[[], object] = lambda: None,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311
    ) -> None:
        self._client = client
        self._feed = feed
        self._on_open = on_open
        self._on_page = on_page
        self._on_refused = on_refused
        self._jitter = jitter
        self._version: str | None = None
        self._failures = 0
        self._opened = float("inf")

    async def run(self) -> None:
        """Follow until cancelled."""
        clock = asyncio.get_running_loop().time
        error: KubeError | None = None
        while True:
            self._opened, asked, before, error = float("inf"), 0.0, error, None
            try:
                await self._follow(clock)
            except GoneError:
                _log.info("the watch of %s begins anew", self._feed.resource.plural)
                self._version = None
            except KubeError as found:
                error = found
                asked = found.retry_after if isinstance(found, ThrottledError) else 0.0
            if clock() - self._opened > SHORT_WATCH:
                self._failures = 0
            seconds = max(asked, min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(self._failures, 20)) * self._jitter())
            self._failures += 1
            if self._failures > RELIST_AFTER and isinstance(error, (InvalidError, ServerError)):
                self._version = None
            if error is not None:
                extra = {"retry": round(seconds, 1), "code": error.code}
                # What is forbidden may stay so for months.
                repeats = isinstance(error, ForbiddenError) and isinstance(before, ForbiddenError)
                level = logging.DEBUG if repeats else logging.WARNING
                _log.log(level, "the watch of %s is opened again: %s", self._feed.resource.plural, error, extra=extra)
            if isinstance(error, ForbiddenError):
                self._on_refused()
            await asyncio.sleep(seconds)

    async def _follow(self, clock: Callable[[], float]) -> None:
        feed = self._feed

        def opened() -> None:
            self._opened = clock()
            self._on_open()

        if self._version is None:
            self._version = await read_all(self._client, feed, on_page=self._on_page)
        events = self._client.watch(
            feed.resource,
            feed.namespace,
            version=self._version,
            seconds=round(WATCH_SECONDS * (2 - self._jitter())),
            label_selector=feed.label_selector,
            on_open=opened,
        )
        async with aclosing(events):
            async for event in events:
                body: Object = event["object"]
                match event["type"]:
                    case "ADDED" | "MODIFIED":
                        _told(feed, feed.put, body)
                    case "DELETED":
                        _told(feed, feed.remove, body)
                # Bookmarks too.
                self._version = body["metadata"]["resourceVersion"]
                self._failures = 0
