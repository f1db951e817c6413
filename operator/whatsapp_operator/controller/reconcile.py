"""One session, once: observe, plan, act, until nothing is left to do now; then write the status if it changed."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from whatsapp_operator.api.models import WhatsAppSessionStatus
from whatsapp_operator.controller import events, logs, rollout, status
from whatsapp_operator.controller.actions import AddFinalizer, RemoveFinalizer
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.claims import lease_name
from whatsapp_operator.controller.events import Event, EventWriter
from whatsapp_operator.controller.execute import Executor
from whatsapp_operator.controller.metrics import Metrics
from whatsapp_operator.controller.observe import Observer
from whatsapp_operator.controller.observed import Holder, Observed, Problem
from whatsapp_operator.controller.plan import Plan, plan
from whatsapp_operator.controller.queue import Dispatcher
from whatsapp_operator.controller.settings import Options
from whatsapp_operator.controller.views import Key
from whatsapp_operator.kube.errors import (
    ConflictError,
    KubeError,
    NotFoundError,
    NotLeadingError,
    ThrottledError,
    UndeclaredFieldError,
)

_log = logging.getLogger(__name__)

# A first pass needs four steps: finalizer and claim; account, Secret and volume; pod; status.
MOST_STEPS: Final = 8

_DEFINITION_OUTDATED: Final = (
    "The status cannot be written: the definition of WhatsAppSession that is installed is older than the operator."
    " Apply the one of the operator's version: kubectl apply --server-side -f crds/"
)


class Reconciler:
    """Works on the keys of a queue.

    Args:
        clock: the monotonic one.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        observer: Observer,
        executor: Executor,
        event_writer: EventWriter,
        metrics: Metrics,
        options: Options,
        places: rollout.Places,
        clock: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._observer = observer
        self._executor = executor
        self._events = event_writer
        self._metrics = metrics
        self._options = options
        self._places = places
        self._clock = clock
        self._ending: set[Key] = set()

    async def work(self, key: Key, dispatcher: Dispatcher[Key]) -> None:
        """Reconcile, and put the key back into the queue as its result asks for."""
        started = self._clock()
        self._say_what_it_is_about(key)
        try:
            result = await self._reconcile(key, dispatcher)
        except NotLeadingError:
            result = "not_leading"
        except ConflictError:
            # The cache has the present object already.
            result = "conflict"
            dispatcher.retry(key)
        except ThrottledError as error:
            result = "throttled"
            seconds = dispatcher.retry(key, at_least=error.retry_after)
            _log.warning("throttled by the API server", extra={"retry": round(seconds, 1)})
        except KubeError as error:
            result = "error"
            seconds = dispatcher.retry(key)
            extra = {"retry": round(seconds, 1), "code": error.code}
            _log.warning("the API server did not do it: %s", error, extra=extra)
        finally:
            self._places.seen(key)
            self.admit_next(dispatcher)
        self._metrics.reconciles.labels(result).inc()
        self._metrics.reconcile_seconds.observe(self._clock() - started)

    def admit_next(self, dispatcher: Dispatcher[Key]) -> None:
        """Wake the sessions for which a rollout has a place."""
        logs.about()
        for key in self._places.next():
            dispatcher.add(key)

    def _say_what_it_is_about(self, key: Key, o: Observed | None = None) -> None:
        """For the log; the task of the worker works on nothing else until it takes the next key."""
        pairing = o.report.pairing if o is not None and o.report is not None else None
        attempt = pairing.id if pairing is not None else None
        logs.about(session=str(key), tenant=o.session.spec.tenant if o is not None else "", attempt=attempt or "")

    async def _reconcile(self, key: Key, dispatcher: Dispatcher[Key]) -> str:
        problems: tuple[Problem, ...] = ()
        fresh = False
        for _ in range(MOST_STEPS):
            admitted = self._places.admitted(key)
            o = self._observer.observe(key, problems=problems, fresh=fresh, admitted=admitted)
            if o is None:
                self._places.note(key, None)
                self._ending.discard(key)
                dispatcher.queue.drop(key)
                await self._executor.remove_orphan(key)
                return "gone"
            self._say_what_it_is_about(key, o)
            if o.deleting and key not in self._ending:
                # Whatever has failed until now, the deletion has a deadline of its own.
                self._ending.add(key)
                dispatcher.queue.forget(key)
            step = plan(o, self._options, datetime.now(UTC))
            self._places.note(key, step.rolled.known)
            if step.unlink_timed_out:
                self._tell_unlink_timed_out(o)
            self._wait_for_claims(key, o)
            if not step.actions or problems:
                return await self._finish(key, o, step, dispatcher)
            doing = ", ".join(type(action).__name__ for action in step.actions)
            _log.debug("acting: %s", doing)
            problems = await self._executor.run(o.session, step.actions)
            fresh = fresh or any(isinstance(action, AddFinalizer) for action in step.actions)
            if any(isinstance(action, RemoveFinalizer) for action in step.actions) and not problems:
                self._ended(key, o, dispatcher)
        _log.warning("no end after %s steps", MOST_STEPS)
        dispatcher.retry(key)
        return "unfinished"

    async def _finish(self, key: Key, o: Observed, step: Plan, dispatcher: Dispatcher[Key]) -> str:
        """Write the status, count and tell what it means, and see to what comes next."""
        if step.status is not None:
            await self._write_status(key, o, step.status, dispatcher)
            self._places.note(key, step.rolled.then)
        if o.problems:
            seconds = dispatcher.retry(key)
            if step.requeue_after is not None:
                dispatcher.add_after(key, step.requeue_after)
            extra = {"reason": o.problems[0].reason.value, "retry": round(seconds, 1)}
            _log.warning("refused: %s", o.problems[0].message, extra=extra)
            return "refused"
        dispatcher.queue.forget(key)
        if step.requeue_after is not None:
            dispatcher.add_after(key, step.requeue_after)
        return "success"

    async def _write_status(
        self, key: Key, o: Observed, new: WhatsAppSessionStatus, dispatcher: Dispatcher[Key]
    ) -> None:
        session = o.session
        tenant = (key.namespace, session.spec.tenant)
        if new.primary:
            # Before the write, and in one go with the observation, so that two sessions can never both be chosen.
            self._cache.primaries[tenant] = session.metadata.uid
        before = session.status
        wanted = status.dump(new)
        if wanted != (known := status.dump(before)):
            changed = sorted(name for name in wanted.keys() | known.keys() if wanted.get(name) != known.get(name))
            _log.debug("writing status", extra={"changed": ",".join(changed)})
            try:
                await self._executor.write_status(session, wanted)
            except NotFoundError:
                _log.debug("the session went in the meantime")
                return
            except UndeclaredFieldError:
                _log.error(_DEFINITION_OUTDATED)
                self._events.add(session, Event("Warning", events.DEFINITION_OUTDATED, _DEFINITION_OUTDATED))
                raise
            counts = status.counts(before, new, o.report, created=session.metadata.creation_timestamp)
            self._metrics.count(counts)
            pairing = o.report.pairing if o.report is not None else None
            attempt = pairing.id if pairing is not None else None
            found = [(event, attempt) for event in events.of_transition(before, new, attempt=attempt)]
            if (overdue := rollout.turned_overdue(before, new)) is not None:
                found.append((Event("Warning", rollout.ROLLOUT_OVERDUE, overdue), attempt))
            for event, about in [*((events.of_attempt(done), done.id) for done in counts.attempts), *found]:
                self._events.add(session, event)
                level = logging.WARNING if event.type == "Warning" else logging.INFO
                _log.log(level, event.reason, extra={"attempt": about} if about is not None else None)
            if (new.relink, new.primary, new.rollout) != (before.relink, before.primary, before.rollout):
                # What becomes of the pod, and what it is told, follows from the status that is written.
                dispatcher.add(key)
        if not new.primary and self._cache.primaries.get(tenant) == session.metadata.uid:
            self._resign(key, tenant, dispatcher)

    def _resign(self, key: Key, tenant: tuple[str, str], dispatcher: Dispatcher[Key]) -> None:
        """The session is not primary any more: let the others of its tenant find out who is."""
        self._cache.primaries.pop(tenant, None)
        for other in self._cache.connected(*tenant):
            if other != key:
                dispatcher.add(other)

    def _ended(self, key: Key, o: Observed, dispatcher: Dispatcher[Key]) -> None:
        tenant = (key.namespace, o.session.spec.tenant)
        if self._cache.primaries.get(tenant) in (None, o.session.metadata.uid):
            self._resign(key, tenant, dispatcher)
        _log.info("session removed")

    def _wait_for_claims(self, key: Key, o: Observed) -> None:
        for phone, claim in o.claims.items():
            if phone == o.session.spec.phone and claim.holder not in (Holder.OURS, Holder.NOBODY):
                name = lease_name(o.session, phone, self._options)
                self._cache.waiting.setdefault(name, set()).add(key)

    def _tell_unlink_timed_out(self, o: Observed) -> None:
        note = "The device could not be unlinked in time: remove it by hand from the phone's list of linked devices."
        event = Event("Warning", events.UNLINK_TIMED_OUT, note)
        self._events.add(o.session, event, namespace_gone=bool(o.namespace_terminating))
