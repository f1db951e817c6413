"""kopf: its handlers feed the cache and put keys on the queue, and do nothing else."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf

from whatsapp_operator.api import names
from whatsapp_operator.controller.cache import SELECTOR, Cache
from whatsapp_operator.controller.views import Key
from whatsapp_operator.kube.client import PERSISTENT_VOLUME_CLAIMS, PODS, SESSIONS, Client, Object

WATCHED: Final = (SESSIONS, PODS, PERSISTENT_VOLUME_CLAIMS)
CHUNK: Final = 500


class WatchTrace:
    """Sees kopf's requests: whether all watches are open, and whether one had to begin with a new list.

    kopf says neither, and a list that is read again gives no notice of what was deleted before.

    Args:
        namespaces: the namespaces served; empty for all.
        on_relist: called after a watch was opened that had to begin with a new list.
        on_restart: called with the plural of a resource whose watch was opened again.

    Attributes:
        complete: set once every watch was opened.
    """

    def __init__(
        self, namespaces: tuple[str, ...], *, on_relist: Callable[[], None], on_restart: Callable[[str], None]
    ) -> None:
        scopes: tuple[str | None, ...] = namespaces or (None,)
        self._watched = {resource.path(scope): resource for resource in WATCHED for scope in scopes}
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
        if params.method == "GET" and params.response.status == 200 and path in self._watched:
            self.seen(path, watch="watch" in params.url.query)

    def seen(self, path: str, *, watch: bool) -> None:
        """A list was answered, or a watch opened."""
        if not watch:
            self._listed.add(path)
            return
        again = path in self._open
        self._open.add(path)
        if len(self._open) == len(self._watched):
            self.complete.set()
        if again:
            self._on_restart(self._watched[path].plural)
        relisted = path in self._listed
        self._listed.discard(path)
        if again and relisted:
            self._on_relist()


def make_registry(client: Client, cache: Cache, trace: WatchTrace, add: Callable[[Key], None]) -> kopf.OperatorRegistry:
    """The handlers. All they do is to keep the cache and to queue the key of the session that an event is about."""
    registry = kopf.OperatorRegistry()

    def feed(put: Callable[[Object], Key | None], remove: Callable[[Object], Key | None], event: Any) -> None:
        body: Object = dict(event["object"])
        key = remove(body) if event["type"] == "DELETED" else put(body)
        if key is not None:
            add(key)

    def remove_session(body: Object) -> Key | None:
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        return key if cache.remove_session(key, metadata["uid"], metadata["resourceVersion"]) else None

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = client.open_session([trace.config()])
        return kopf.AiohttpSession(aiohttp_session=session, server=client.server)

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def on_session(event: kopf.RawEvent, **_: Any) -> None:
        feed(cache.put_session, remove_session, event)

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
        feed(cache.put_pod, cache.remove_pod, event)

    @kopf.on.event("", "v1", "persistentvolumeclaims", registry=registry)
    async def on_volume(event: kopf.RawEvent, **_: Any) -> None:
        feed(cache.put_volume, cache.remove_volume, event)

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
    settings.watching.label_selectors["", "v1", "pods"] = SELECTOR
    settings.watching.label_selectors["", "v1", "persistentvolumeclaims"] = SELECTOR
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = 15
    return settings
