"""Events that a person would want to see, each once."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from whatsapp_operator.api import names
from whatsapp_operator.api.masking import mask
from whatsapp_operator.api.models import AttemptResult, PairingAttempt, WhatsAppSession, WhatsAppSessionStatus
from whatsapp_operator.api.reasons import ConditionType, Reason, sentence
from whatsapp_operator.controller.conditions import why_failed
from whatsapp_operator.kube.client import EVENTS, Client, Object
from whatsapp_operator.kube.errors import KubeError

_log = logging.getLogger(__name__)

REPEAT_SECONDS: Final = 600.0
# So many about one session at once, then one more after each of these times: as client-go has it.
BURST: Final = 25
REFILL_SECONDS: Final = 300.0
_REMEMBERED: Final = 10_000
_WAITING: Final = 1_000

UNLINK_TIMED_OUT: Final = "UnlinkTimedOut"
DEFINITION_OUTDATED: Final = "DefinitionOutdated"
PAIRING_SUCCEEDED: Final = "PairingSucceeded"
PAIRING_FAILED: Final = "PairingFailed"


@dataclass(frozen=True, slots=True)
class Event:
    """One event about a session; the note holds nothing that is secret."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


def of_transition(
    before: WhatsAppSessionStatus, after: WhatsAppSessionStatus, *, attempt: str | None = None
) -> list[Event]:
    """What the change of a status means to a person; `attempt` is the id of the one that is under way."""
    old = {condition.type: condition for condition in before.conditions}
    next_window = _window(before) != _window(after)
    found = []
    for condition in after.conditions:
        earlier = old.get(condition.type)
        was_true = earlier is not None and earlier.status == "True"
        turned_true = condition.status == "True" and not was_true
        shows = condition.type == ConditionType.QR_READY and condition.status == "True"
        lost_pairing = condition.type == ConditionType.AUTH_PAIRED and condition.status != "True" and was_true
        if condition.type == ConditionType.STALLED:
            if turned_true or earlier is None or earlier.reason != condition.reason:
                found.append(Event("Warning", str(condition.reason), condition.message))
        elif condition.type == ConditionType.CONNECTED and condition.reason in _TOLD_AS_LOST:
            if earlier is None or earlier.reason != condition.reason:
                found.append(Event("Warning", str(condition.reason), condition.message))
        elif lost_pairing:
            found.append(Event("Warning", str(condition.reason), condition.message))
        elif condition.reason in _TOLD and (turned_true or (shows and next_window)):
            note = condition.message
            if shows and attempt is not None:
                note = f"{note} {_named(attempt)}"
            found.append(Event("Normal", str(condition.reason), note))
    return found


def _window(status: WhatsAppSessionStatus) -> tuple[object, ...]:
    """What differs from one window of a QR or code to the next."""
    pairing = status.pairing
    if pairing is None:
        return ()
    return pairing.attempt, pairing.expires_at, pairing.last.id if pairing.last is not None else None


def of_attempt(attempt: PairingAttempt) -> Event:
    """How an attempt to pair has ended."""
    if attempt.result is AttemptResult.SUCCEEDED:
        return Event("Normal", PAIRING_SUCCEEDED, f"{sentence(Reason.PAIRED)} {_named(attempt.id)}")
    return Event("Warning", PAIRING_FAILED, f"{mask(why_failed(attempt))} {_named(attempt.id)}")


def _named(attempt: str | None) -> str:
    """By its id, which comes from a pod."""
    return f"Attempt {mask(attempt or 'unknown')}."


_TOLD: Final = frozenset(
    {Reason.QR_AVAILABLE, Reason.CODE_AVAILABLE, Reason.PAIRED, Reason.CONNECTED, Reason.SUSPENDED}
)


# Why there is no connection, where more than a moment passes until it is back.
_TOLD_AS_LOST: Final = frozenset(
    {Reason.TEMPORARY_BAN, Reason.STREAM_REPLACED, Reason.PROXY_FAILED, Reason.CONNECT_FAILURE, Reason.NODE_LOST}
)


class EventWriter:
    """Writes events in the background; one that cannot be written is logged and dropped.

    Args:
        namespace: the operator's own, for events about sessions whose namespace is going.
    """

    def __init__(self, client: Client, *, namespace: str, instance: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._namespace = namespace
        self._instance = instance
        self._clock = clock
        self._queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue(_WAITING)
        self._written: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def add(self, session: WhatsAppSession, event: Event, *, namespace_gone: bool = False) -> None:
        """Queue an event, unless the same was written within the last 10 minutes, or too many about the session."""
        mark, now = (session.metadata.uid, event.reason, event.note), self._clock()
        if now - self._written.get(mark, float("-inf")) < REPEAT_SECONDS:
            return
        if not self._spend(session.metadata.uid, now):
            _log.debug("too many events about one session, one is dropped: %s", event.reason)
            return
        self._written[mark] = now
        self._written.move_to_end(mark)
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)
        namespace = self._namespace if namespace_gone else session.metadata.namespace
        try:
            self._queue.put_nowait((namespace, self._body(session, event, namespace)))
        except asyncio.QueueFull:
            _log.warning("too many events at once, one is dropped: %s", event.reason)

    def _spend(self, uid: str, now: float) -> bool:
        """Whether one more event about the session may be written."""
        left, since = self._left.get(uid, (float(BURST), now))
        left = min(float(BURST), left + (now - since) / REFILL_SECONDS)
        allowed = left >= 1
        self._left[uid] = (left - 1 if allowed else left, now)
        self._left.move_to_end(uid)
        while len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        return allowed

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            namespace, body = await self._queue.get()
            try:
                await self._client.create(EVENTS, namespace, body)
            except KubeError as error:
                regarding = body["regarding"]
                about = {"session": f"{regarding['namespace']}/{regarding['name']}"}
                _log.warning("event %s was not written: %s", body["reason"], error, extra=about)

    def _body(self, session: WhatsAppSession, event: Event, namespace: str) -> Object:
        now = datetime.now(UTC)
        metadata = session.metadata
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata.name}-", "namespace": namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": names.GROUP,
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "type": event.type,
            "reason": event.reason,
            "note": event.note,
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
            },
        }
