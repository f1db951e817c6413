"""Where what is known comes from: sessions from kopf; pods, volumes and claims, of which there are as many, from
watches of our own. All that is done here is to keep the cache and to queue the keys of the sessions concerned.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Set
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf

from whatsapp_operator.api import names
from whatsapp_operator.controller.cache import SELECTOR, Cache, owner
from whatsapp_operator.controller.views import ClaimView, Key, session_key
from whatsapp_operator.kube.client import LEASES, PERSISTENT_VOLUME_CLAIMS, PODS, SESSIONS, Client, Object
from whatsapp_operator.kube.watch import BACKOFF_FIRST, BACKOFF_LAST, Feed

_log = logging.getLogger(__name__)

CHUNK: Final = 100


def session_feed(cache: Cache, namespace: str | None, add: Callable[[Key], None]) -> Feed[Key]:
    """Keeps the sessions of the namespace, or of all for None, and queues those of which there is news."""

    def put(body: Object) -> Key:
        for concerned in cache.put_session(body):
            add(concerned)
        return session_key(body["metadata"])

    def remove(body: Object) -> None:
        metadata = body["metadata"]
        key = session_key(metadata)
        for concerned in cache.remove_session(key, metadata["uid"], metadata["resourceVersion"]):
            add(concerned)

    def prune(listed: Set[Key], version: str) -> None:
        for key in cache.prune_sessions(listed, version, namespace):
            add(key)

    return Feed(SESSIONS, namespace, put, remove, prune)


def pod_feed(cache: Cache, namespace: str | None, add: Callable[[Key], None]) -> Feed[Key]:
    """As `session_feed`, of the pods, each under the key of its session."""

    def put(body: Object) -> Key | None:
        if (news := cache.put_pod(body)) is not None:
            add(news)
        return owner(body)

    def remove(body: Object) -> None:
        if (key := cache.remove_pod(body)) is not None:
            add(key)

    def prune(listed: Set[Key], version: str) -> None:
        for key, _ in cache.pods.prune(listed, version, namespace):
            add(key)

    return Feed(PODS, namespace, put, remove, prune, SELECTOR)


def volume_feed(cache: Cache, namespace: str | None, add: Callable[[Key], None]) -> Feed[Key]:
    """As `session_feed`, of the volumes, each under the key of its session."""

    def put(body: Object) -> Key | None:
        if (news := cache.put_volume(body)) is not None:
            add(news)
        return owner(body)

    def remove(body: Object) -> None:
        if (key := cache.remove_volume(body)) is not None:
            add(key)

    def prune(listed: Set[Key], version: str) -> None:
        for key, _ in cache.volumes.prune(listed, version, namespace):
            add(key)

    return Feed(PERSISTENT_VOLUME_CLAIMS, namespace, put, remove, prune, SELECTOR)


def claim_feed(cache: Cache, namespace: str, add: Callable[[Key], None]) -> Feed[Key]:
    """Keeps the claims in the namespace, and queues who has lost one, who has got it, and who waits for it."""

    def wake(claims: Iterable[ClaimView | None]) -> None:
        for claim in claims:
            if claim is not None and claim.session:
                add(claim.holder)

    def put(body: Object) -> Key:
        key = session_key(body["metadata"])
        before = cache.claims.get(key)
        if cache.put_claim(body):
            wake((before, cache.claims.get(key)))
            for waiting in tuple(cache.waiting.get(key.name, ())):
                add(waiting)
        return key

    def gone(claims: Iterable[ClaimView]) -> None:
        for claim in claims:
            wake((claim,))
            for waiting in cache.waiting.pop(claim.name, ()):
                add(waiting)

    def remove(body: Object) -> None:
        metadata = body["metadata"]
        # One that has only lost its labels lives on at that very version.
        version = str(int(metadata["resourceVersion"]) - 1)
        claim = cache.remove_claim(session_key(metadata), metadata["uid"], version)
        gone(() if claim is None else (claim,))

    def prune(listed: Set[Key], version: str) -> None:
        gone(cache.prune_claims(listed, version))

    return Feed(LEASES, namespace, put, remove, prune, SELECTOR)


class WatchTrace:
    """Knows whether all watches are open, and whether one of kopf's had to begin with a new list.

    kopf says neither, so its requests are looked at; a list that it reads again gives no notice of what was deleted.

    Args:
        namespaces: the namespaces served; empty for all.
        feeds: what is watched beside kopf's sessions.
        on_relist: called after a watch of kopf's was opened that had to begin with a new list, or one that was
            forbidden until then.
        on_restart: called with the plural of a resource whose watch was opened again.

    Attributes:
        complete: set once every watch was opened, but for those of namespaces in which this is forbidden.
        dispensable: the namespace of each path that the others do without while it is forbidden.
        answers: counts pages and watches that came until then.
    """

    def __init__(
        self,
        namespaces: tuple[str, ...],
        feeds: Iterable[Feed[Key]] = (),
        *,
        on_relist: Callable[[], None],
        on_restart: Callable[[str], None],
    ) -> None:
        scopes: tuple[str | None, ...] = namespaces or (None,)
        self._of_kopf = frozenset(SESSIONS.path(scope) for scope in scopes)
        feeds = tuple(feeds)
        self._expected = self._of_kopf | {feed.resource.path(feed.namespace) for feed in feeds}
        resources = {SESSIONS, *(feed.resource for feed in feeds)} - {LEASES}
        self.dispensable = {resource.path(namespace): namespace for resource in resources for namespace in namespaces}
        self._refused: set[str] = set()
        self.answers = 0
        self._listed: set[str] = set()
        self._open: set[str] = set()
        self._on_relist = on_relist
        self._on_restart = on_restart
        self.complete = asyncio.Event()

    def config(self) -> aiohttp.TraceConfig:
        """For the HTTP session that kopf is given."""
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._answered)
        return trace

    async def _answered(
        self, _: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        path = params.url.path
        if params.method == "GET" and params.response.status == 200 and path in self._of_kopf:
            self.seen(path, watch="watch" in params.url.query)

    def seen(self, path: str, *, watch: bool) -> None:
        """A list was answered, or a watch opened."""
        if not watch:
            self.answers += 1
            self._listed.add(path)
            return
        again = self.opened(path)
        relisted = path in self._listed
        self._listed.discard(path)
        if again and relisted:
            self._on_relist()

    def opened(self, path: str) -> bool:
        """A watch was opened; whether again."""
        again = path in self._open
        self._open.add(path)
        self.answers += 1
        if path in self._refused:
            self._refused.discard(path)
            if (namespace := self.dispensable[path]) not in self.unserved:
                _log.info("the namespace is served again: %s", namespace)
            self._on_relist()
        self._look_whether_complete()
        if again:
            self._on_restart(path.rpartition("/")[2])
        return again

    def paged(self) -> None:
        """A page of another list than kopf's was read."""
        self.answers += 1

    def refused(self, path: str) -> bool:
        """A list or watch was forbidden; whether the other namespaces do without it."""
        namespace = self.dispensable.get(path)
        if namespace is None:
            return False
        if namespace not in self.unserved:
            _log.warning("the namespace is not served, for its RoleBinding is not there: %s", namespace)
        self._refused.add(path)
        self._look_whether_complete()
        return True

    @property
    def unserved(self) -> frozenset[str]:
        """The namespaces in which something was forbidden the last time."""
        return frozenset(self.dispensable[path] for path in self._refused)

    def _look_whether_complete(self) -> None:
        if self._open | self._refused >= self._expected:
            self.complete.set()

    async def patience(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """For the HTTP session that kopf is given: kopf ends, and all tasks with it, where one namespace is forbidden.

        The answer is waited for until there is another one; kopf has a time-out for that, and asks again after it.
        """
        pause = BACKOFF_FIRST
        while (response := await handler(request)).status == 403 and self.refused(request.url.path):
            response.release()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(BACKOFF_LAST, 2 * pause)
        return response


def make_registry(client: Client, trace: WatchTrace, sessions: Feed[Key]) -> kopf.OperatorRegistry:
    """Feeds each event of a session."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = client.open_session([trace.config()], [trace.patience])
        return kopf.AiohttpSession(aiohttp_session=session, server=client.server)

    def feed(event: kopf.RawEvent, **_: Any) -> bool:
        body: Object = dict(event["object"])
        if event["type"] == "DELETED":
            sessions.remove(body)
        else:
            sessions.put(body)
        return False

    # Fed by the handler's filter: to call a handler costs kopf three times as much as all the rest of an event.
    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry, when=feed)
    async def on_session(**_: Any) -> None:
        """Never called."""

    return registry


class _NoDifferences(kopf.DiffBaseStorage):
    """Nothing is compared with what was before, so no object is copied for that at every event."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is kept."""


class _NoProgress(kopf.ProgressStorage):
    """No handler has progress to be kept."""

    def fetch(self, *, key: Any, body: kopf.Body) -> kopf.ProgressRecord | None:
        return None

    def store(self, *, key: Any, record: kopf.ProgressRecord, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing is kept."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing is kept."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Nothing is kept."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def make_settings() -> kopf.OperatorSettings:
    """How kopf is used here: as a source of events that writes nothing, with the selection left to the server."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.persistence.finalizer = f"kopf.{names.GROUP}/finalizer"
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.diffbase_storage = _NoDifferences()
    settings.watching.server_timeout = 300
    settings.watching.chunk_size = CHUNK
    # A task that waits holds the last event of its object.
    settings.queueing.idle_timeout = 0.1
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = 15
    return settings
