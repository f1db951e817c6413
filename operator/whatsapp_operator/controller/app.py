"""The process: leader election, watches, cache, workers, endpoints, and an end that is quick."""

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Set
from functools import partial
from typing import Final

import kopf

from whatsapp_operator.api import names
from whatsapp_operator.controller import http, policies, watch
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.events import EventWriter
from whatsapp_operator.controller.execute import Executor
from whatsapp_operator.controller.metrics import Metrics
from whatsapp_operator.controller.observe import Observer
from whatsapp_operator.controller.queue import Dispatcher, WorkQueue
from whatsapp_operator.controller.reconcile import Reconciler
from whatsapp_operator.controller.rollout import Places, State
from whatsapp_operator.controller.settings import Settings
from whatsapp_operator.controller.views import Key
from whatsapp_operator.kube.client import Client, keep_token_fresh, load_configuration
from whatsapp_operator.kube.errors import (
    ForbiddenError,
    GoneError,
    KubeError,
    ServerError,
    ThrottledError,
    UnreachableError,
)
from whatsapp_operator.kube.lease import Election
from whatsapp_operator.kube.watch import Reflector, read_all

_log = logging.getLogger(__name__)

# Without a page or a watch more.
SYNC_SECONDS: Final = 60.0
FIRST_COMPARE_ATTEMPTS: Final = 5
# Backoff of the comparison, in seconds.
COMPARE_RETRY_FIRST: Final = 1.0
COMPARE_RETRY_LAST: Final = 60.0
# So many new objects before the youngest are looked through for cycles, of which there are hardly any; 700 by default.
COLLECT_AFTER: Final = 50_000


class Operator:
    """One replica, from its start to its end.

    Args:
        client: for everything but the lease; refuses writes while this replica does not lead.
        on_started: called once kopf runs.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: Client,
        election: Election,
        metrics: Metrics,
        cache: Cache,
        on_started: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._client = client
        self._election = election
        self._metrics = metrics
        self._cache = cache
        self._on_started = on_started
        self._synced = False
        self._resync = asyncio.Event()
        clock = time.monotonic
        options = settings.options
        self._queue: WorkQueue[Key] = WorkQueue()
        self._dispatcher = Dispatcher(self._queue, self._work, clock=clock, on_wait=metrics.queue_seconds.observe)
        metrics.queue_depth.set_function(lambda: len(self._queue))
        scopes = settings.watch_namespaces or (None,)
        self._sessions = [watch.session_feed(cache, scope, self._add) for scope in scopes]
        self._feeds = [
            *(make(cache, scope, self._add) for make in (watch.pod_feed, watch.volume_feed) for scope in scopes),
            watch.claim_feed(cache, settings.namespace, self._add),
        ]
        self._trace = watch.WatchTrace(
            settings.watch_namespaces,
            self._feeds,
            on_relist=self._resync.set,
            on_restart=lambda plural: metrics.watch_restarts.labels(plural).inc(),
        )
        # As of the last comparison; nothing is decided there.
        self._unserved: frozenset[str] = frozenset()
        self._events = EventWriter(client, namespace=settings.namespace, instance=settings.identity, clock=clock)
        self._executor = Executor(
            client, cache, options, namespace=settings.namespace, clock=clock, wake=self._dispatcher.add
        )
        self._places = Places(settings.max_unavailable)
        for state in State:
            metrics.rollout_sessions.labels(state).set_function(partial(self._places.count, state))
        self._reconciler = Reconciler(
            cache=cache,
            observer=Observer(cache, options, namespace=settings.namespace, clock=clock),
            executor=self._executor,
            event_writer=self._events,
            metrics=metrics,
            options=options,
            places=self._places,
            clock=clock,
        )

    def why_not_ready(self) -> str | None:
        """None if the leader has read everything, or the standby sees the lease."""
        if self._election.leading:
            if self._synced and self._unserved and self._unserved >= {*self._settings.watch_namespaces}:
                return "no namespace is served, for no RoleBinding is there"
            return None if self._synced else "not synced yet"
        return None if self._election.watching else "the API server does not answer about the lease"

    async def run(self) -> None:
        """Wait for the lease, then lead until it is lost."""
        await self._election.acquire()
        _log.info("leading")
        self._metrics.leader.set(1)
        holding = asyncio.create_task(self._election.hold(), name="lease")
        leading = asyncio.create_task(self._lead(), name="lead")
        try:
            await asyncio.wait((holding, leading), return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()
            _log.error("the lease is lost")
        finally:
            for task in (leading, holding):
                task.cancel()
            await asyncio.gather(leading, holding, return_exceptions=True)
            self._metrics.leader.set(0)

    async def _lead(self) -> None:
        trace = self._trace
        registry = watch.make_registry(self._client, trace, self._sessions[0])
        namespaces = self._settings.watch_namespaces
        async with asyncio.TaskGroup() as group:
            group.create_task(_endless(self._events.run()), name="events")
            group.create_task(_endless(self._synced_work()), name="work")
            watching = kopf.operator(
                registry=registry,
                settings=watch.make_settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
            )
            group.create_task(_endless(watching), name="sessions")
            for feed in self._feeds:
                path = feed.resource.path(feed.namespace)
                opened, refused = partial(trace.opened, path), partial(trace.refused, path)
                reflector = Reflector(self._client, feed, on_open=opened, on_page=trace.paged, on_refused=refused)
                group.create_task(_endless(reflector.run()), name=feed.resource.plural)

    async def _synced_work(self) -> None:
        """Nothing is decided before everything is known; afterwards the list is compared again from time to time."""
        # A standby has seen them at its start, which may be weeks ago.
        await self._check_policies()
        await self._wait_for_watches()
        self._on_started()
        await self._compare_until_done(attempts=FIRST_COMPARE_ATTEMPTS)
        self._choose_primaries()
        # Pods could be made there; the next comparison looks whether that is still so.
        self._cache.namespaces_ready.update(key.namespace for key in self._cache.pods)
        self._places.expect(self._cache.sessions)
        for key in {*self._cache.sessions, *self._cache.pods}:
            self._dispatcher.add(key)
        self._synced = True
        # What was read lives for long: it is not looked through any more.
        gc.collect()
        gc.freeze()
        _log.info("synced", extra={"sessions": len(self._cache.sessions), "pods": len(self._cache.pods)})
        async with asyncio.TaskGroup() as group:
            group.create_task(_endless(self._dispatcher.run(self._settings.workers)), name="workers")
            group.create_task(_endless(self._compare_regularly()), name="compare")
            group.create_task(self._open_rollout(), name="rollout")

    async def _wait_for_watches(self) -> None:
        """However long the lists are, and however slow the API server is; but not if nothing comes any more.

        Raises:
            RuntimeError: not all could be opened.
        """
        while not self._trace.complete.is_set():
            answers = self._trace.answers
            try:
                async with asyncio.timeout(SYNC_SECONDS):
                    await self._trace.complete.wait()
            except TimeoutError as error:
                if self._trace.answers == answers:
                    raise RuntimeError("not every watch could be opened: is the definition installed?") from error

    async def _open_rollout(self) -> None:
        """Not at once: while operators of two versions take turns, pods must not be replaced to and fro."""
        await asyncio.sleep(self._settings.rollout_delay)
        self._places.open()
        self._reconciler.admit_next(self._dispatcher)

    async def _compare_regularly(self) -> None:
        while True:
            seconds = self._settings.resync_seconds
            if self._unserved - self._trace.unserved:
                # Its watches are open, or about to be refused too.
                seconds = min(seconds, COMPARE_RETRY_LAST)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._resync.wait()
            self._resync.clear()
            await self._check_policies()
            await self._compare_until_done()
            await self._ensure_namespaces()

    async def _check_policies(self) -> None:
        """End where they were taken away: the role binding of the next namespace would give too much.

        Raises:
            NotInForceError: some are not enforced.
        """
        try:
            gone = await policies.missing(self._client, self._settings.namespace)
        except KubeError as error:
            _log.warning("cannot see whether the admission policies are in force: %s", error)
            return
        if gone:
            raise policies.NotInForceError(gone)

    async def _compare_until_done(self, *, attempts: int | None = None) -> None:
        """Compare, and after a failure try again later and later.

        Raises:
            KubeError: only if `attempts` is given; so many have failed, or one with what will not pass by itself.
        """
        for attempt in itertools.count(1):
            try:
                await self._compare(first=attempts is not None)
                return
            except KubeError as error:
                passing = isinstance(error, (GoneError, ThrottledError, ServerError, UnreachableError))
                if attempts is not None and (attempt >= attempts or not passing):
                    raise
                asked = error.retry_after if isinstance(error, ThrottledError) else 0.0
                backoff = min(COMPARE_RETRY_LAST, COMPARE_RETRY_FIRST * 2 ** min(attempt - 1, 20))
                seconds = max(asked, backoff * random.uniform(0.5, 1.0))  # noqa: S311
                extra = {"retry": round(seconds, 1), "code": error.code}
                _log.warning("the comparison with the API server has failed: %s", error, extra=extra)
                await asyncio.sleep(seconds)

    async def _compare(self, *, first: bool = False) -> None:
        """Read everything, correct the cache by it, and queue what was missed.

        At first the sessions only: kopf does not tell when it has passed on its list; the other watches are their own.
        """
        unserved = set(self._trace.unserved)
        for feed in self._sessions if first else (*self._feeds, *self._sessions):
            namespace = self._trace.dispensable.get(feed.resource.path(feed.namespace))
            if namespace in unserved:
                continue
            try:
                await read_all(self._client, feed)
            except ForbiddenError:
                if namespace is None:
                    raise
                unserved.add(namespace)
        self._serve_all_but(frozenset(unserved))
        for claim in self._cache.claims_without_holder():
            try:
                await self._executor.release_vanished(claim)
            except KubeError as error:
                # The next comparison finds it again.
                _log.warning("the holder of a claim was not looked up: %s", error, extra={"code": error.code})

    def _serve_all_but(self, unserved: frozenset[str]) -> None:
        if unserved:
            _log.warning("not served, for the RoleBinding is not there: %s", ", ".join(sorted(unserved)))
        back, self._unserved = self._unserved - unserved, unserved
        if back:
            self._choose_primaries(back)
        for key in {*self._cache.sessions, *self._cache.pods} if back else ():
            if key.namespace in back:
                self._add(key)

    async def _ensure_namespaces(self) -> None:
        """Make the session pods' accounts and role bindings again where somebody has removed them."""
        for namespace in sorted(self._cache.namespaces_ready):
            sessions = [key for key in self._cache.sessions if key.namespace == namespace]
            try:
                problem = await self._executor.ensure_namespace(namespace, made=True) if sessions else None
            except KubeError as error:
                # The next comparison looks again.
                _log.warning("the account of the session pods was not looked at: %s", error, extra={"code": error.code})
                continue
            if problem is not None or not sessions:
                self._cache.namespaces_ready.discard(namespace)
                for key in sessions:
                    self._add(key)

    def _choose_primaries(self, namespaces: Set[str] | None = None) -> None:
        """Who was primary stays it; of two, which only a crash can leave, the older one."""
        marked = [
            (since, view.uid, (key.namespace, view.tenant))
            for key, view in self._cache.sessions.items()
            if (namespaces is None or key.namespace in namespaces)
            if view.primary and (since := view.connected_since) is not None
        ]
        for _, uid, tenant in sorted(marked):
            self._cache.primaries.setdefault(tenant, uid)

    def _add(self, key: Key) -> None:
        if self._synced:
            self._dispatcher.add(key)

    async def _work(self, key: Key) -> None:
        if key.namespace in self._unserved:
            # All of it is queued once it is served.
            self._places.seen(key)
            return
        await self._reconciler.work(key, self._dispatcher)


async def _endless(work: Awaitable[None]) -> None:
    """Work that must not end while this replica leads."""
    await work
    raise RuntimeError("a part of the operator has ended")


async def run(settings: Settings) -> int:
    """Run until a signal (0) or the loss of the lease or of anything else that is needed (1)."""
    configuration = await load_configuration(settings.kubeconfig, settings.context)
    cache = Cache()
    metrics = Metrics(cache, per_object=settings.object_metrics)
    # Of its own, and not counted: its regular renewals would hide what the sessions cost.
    lease_client = Client(configuration)
    election = Election(
        lease_client,
        namespace=settings.namespace,
        name=names.LEADER_LEASE,
        identity=f"{settings.identity}_{os.urandom(4).hex()}",
        times=settings.lease,
    )
    client = Client(configuration, before_write=election.check, on_request=metrics.request)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    # Once more after kopf has started, which takes them for itself.
    take_signals()
    operator = Operator(
        settings, client=client, election=election, metrics=metrics, cache=cache, on_started=take_signals
    )
    async with http.serve(
        settings.http_host, settings.http_port, ready=operator.why_not_ready, metrics=metrics
    ) as port:
        _log.info("started", extra={"identity": settings.identity, "port": port})
        refreshing = asyncio.create_task(keep_token_fresh(configuration), name="token")
        running = asyncio.create_task(_run_under_policies(operator, lease_client, settings), name="operator")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        code = _result(running)
        await election.release()
        for task in (running, stopping, refreshing):
            task.cancel()
        await asyncio.wait((running, stopping, refreshing), timeout=1.0)
    await client.close()
    await lease_client.close()
    _log.info("stopped", extra={"code": code})
    return code


async def _run_under_policies(operator: Operator, client: Client, settings: Settings) -> None:
    await policies.require(client, settings.namespace)
    await operator.run()


def _result(running: "asyncio.Task[None]") -> int:
    if not running.done():
        return 0
    error = running.exception()
    cause = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, policies.NotInForceError):
        _log.error("%s", cause)
    elif error is not None:
        _log.error("the operator has failed", exc_info=error)
    return 1


def main(settings: Settings) -> int:
    """Run the process; returns its exit code."""
    gc.set_threshold(COLLECT_AFTER)
    code = asyncio.run(run(settings))
    sys.stderr.flush()
    return code
