"""A rollout: pods that another operator, or one with another session image, has built are replaced a few at a time.

A session is admitted in its status before its pod is deleted, and holds its place until it is again what it was. So the
places that are taken can be counted from the API server alone, and a rollout whose sessions do not come back stops by
itself, as there is no place left.
"""

import heapq
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from whatsapp_operator.api.models import RolloutBefore, RolloutStatus, WhatsAppSessionStatus
from whatsapp_operator.api.reasons import MachineState
from whatsapp_operator.controller import conditions
from whatsapp_operator.controller.observed import Observed
from whatsapp_operator.controller.settings import MaxUnavailable
from whatsapp_operator.controller.views import Key

_log = logging.getLogger(__name__)

# Time to stop the pod, to pull an image and to connect.
OVERDUE_SECONDS: Final = 300.0
# A connection that was lost since, and is tried again, is expected to come back.
RECENT_SECONDS: Final = 3600.0

ROLLOUT_OVERDUE: Final = "RolloutOverdue"
_OVERDUE_TEXT: Final = (
    "Its pod was replaced in a rollout and it is not back: it holds a place of the rollout, which stops when none is"
    " left. Roll the operator or the session image back, or mend, relink or suspend this session."
)

_SPARE: Final = 16
_BETTER: Final = tuple(RolloutBefore)
_TRYING: Final = frozenset({MachineState.CONNECTING, MachineState.RECONNECTING})


class State(StrEnum):
    """Where a session that runs stands."""

    UPDATED = "updated"
    OUTDATED = "outdated"
    IN_PROGRESS = "in_progress"
    OVERDUE = "overdue"


class Member(NamedTuple):
    """A session that runs, as a rollout sees it.

    Attributes:
        turn: what decides who comes first; None for one that is not to be admitted now.
    """

    state: State
    turn: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod of a session that runs; neither where it is missing or going.

    Attributes:
        current: it is as this operator builds it.
        outdated: it is not, and nothing else replaces it.
    """

    current: bool = False
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a session in a rollout.

    Attributes:
        place: status.rollout as it should be.
        replace: it was admitted, so its pod has to go.
        after: seconds after which time alone may change this.
        known: how it counts before `place` is written; None for a session that does not run.
        then: the same afterwards.
    """

    place: RolloutStatus | None = None
    replace: bool = False
    after: float | None = None
    known: Member | None = None
    then: Member | None = None


NO_PART: Final = Step()


def unchanged(o: Observed) -> Step:
    """Of a session of which nothing can be decided now: what it holds it keeps, and it is not admitted."""
    place = o.session.status.rollout
    if place is None:
        return NO_PART
    member = Member(State.OVERDUE if place.overdue else State.IN_PROGRESS)
    return Step(place, known=member, then=member)


def advance(o: Observed, pod: Pod, revision: str, now: datetime) -> Step:
    """The next step of a session that runs; `revision` is this operator's."""
    now = now.replace(microsecond=0)
    place = o.session.status.rollout
    known = _member(o, pod, place, revision)
    if not pod.outdated:
        if place is None or _is_back(o, pod, place):
            return Step(known=known, then=Member(State.UPDATED))
        return _waiting(o, pod, place, revision, now, known=known)
    if place is not None and place.revision == revision:
        return _waiting(o, pod, place, revision, now, known=known)
    if known.turn is None or not o.admitted:
        # A place in another rollout is kept: it tells what the session was before.
        return Step(place, known=known, then=known)
    earlier = place.before if place is not None and place.before is not None else RolloutBefore.DOWN
    before = max(earlier, _expected(o, now), key=_BETTER.index)
    admitted = RolloutStatus(revision=revision, before=before, started_at=now)
    return Step(admitted, known=known, then=_member(o, pod, admitted, revision))


def _waiting(o: Observed, pod: Pod, place: RolloutStatus, revision: str, now: datetime, *, known: Member) -> Step:
    left = OVERDUE_SECONDS - (now - place.started_at).total_seconds() if place.started_at is not None else 0.0
    if left <= 0 and not place.overdue:
        place = place.model_copy(update={"overdue": True})
    return Step(
        place,
        replace=pod.outdated,
        after=left if left > 0 else None,
        known=known,
        then=_member(o, pod, place, revision),
    )


def _present(o: Observed) -> RolloutBefore:
    if conditions.connected(o).status == "True":
        return RolloutBefore.CONNECTED
    return RolloutBefore.DOWN if o.live is None else RolloutBefore.REPORTING


def _expected(o: Observed, now: datetime) -> RolloutBefore:
    """How the session is, or would be but for the moment: while nobody can connect, nothing is learnt of the image."""
    report = o.live
    if report is None or not o.paired or report.machine not in _TRYING or report.credentials is None:
        return _present(o)
    used = report.credentials.last_used_at
    recent = used is not None and (now - used).total_seconds() < RECENT_SECONDS
    return RolloutBefore.CONNECTED if recent else _present(o)


def _is_back(o: Observed, pod: Pod, place: RolloutStatus) -> bool:
    """Whether the session is what it was, on a pod of this revision.

    A log-out, a ban or a replaced stream does not count as back, though it may have another cause: the new image may be
    it, and one place is a small price. What a person has asked for since does.
    """
    if not pod.current:
        return False
    relink = o.session.status.relink
    asked = relink.requested_at if relink is not None else None
    wiped = asked is not None and place.started_at is not None and asked >= place.started_at
    needed = RolloutBefore.REPORTING if wiped and place.before is RolloutBefore.CONNECTED else place.before
    return _BETTER.index(_present(o)) >= _BETTER.index(needed or RolloutBefore.DOWN)


def _member(o: Observed, pod: Pod, place: RolloutStatus | None, revision: str) -> Member:
    if place is not None and (not pod.outdated or place.revision == revision):
        return Member(State.OVERDUE if place.overdue else State.IN_PROGRESS)
    if not pod.outdated:
        return Member(State.UPDATED)
    linking = o.live is not None and o.live.machine is MachineState.AUTHENTICATING
    if linking or (o.pod is not None and o.pod.node_lost):
        # A phone is just being linked; or the pod would not go until its node is back.
        return Member(State.OUTDATED)
    metadata = o.session.metadata
    primary = o.session.status.primary is True
    created = metadata.creation_timestamp.isoformat() if metadata.creation_timestamp is not None else ""
    return Member(State.OUTDATED, (_BETTER.index(_present(o)) + primary, created))


def note(place: RolloutStatus | None) -> str | None:
    """What a person should know of the session's place."""
    return _OVERDUE_TEXT if place is not None and place.overdue else None


def turned_overdue(before: WhatsAppSessionStatus, after: WhatsAppSessionStatus) -> str | None:
    """The note of an event, if this change of the status is worth one."""
    told = note(after.rollout)
    return told if told is not None and note(before.rollout) is None else None


class Places:
    """The places of the rollout, and who gets the next one. A change costs O(log n), spread over all.

    Nobody is admitted before `open`, and before each session of `expect` was looked at: until then it is not known how
    many places are taken, nor who comes first.
    """

    def __init__(self, limit: MaxUnavailable) -> None:
        self._limit = limit
        self._opened = False
        self._unseen: set[Key] = set()
        self._members: dict[Key, Member] = {}
        self._count: Counter[State] = Counter()
        self._admitted: set[Key] = set()
        self._waiting: list[tuple[tuple[int, str], Key]] = []
        self._told = ""

    def expect(self, keys: Iterable[Key]) -> None:
        """Sessions that are to be looked at first."""
        self._unseen.update(keys)

    def open(self) -> None:
        """From now on sessions may be admitted."""
        self._opened = True

    def count(self, state: State) -> int:
        return self._count[state]

    def admitted(self, key: Key) -> bool:
        """Whether a place is kept for the session, which has not taken it in its status yet."""
        return key in self._admitted

    def seen(self, key: Key) -> None:
        """The session was looked at, whatever came of it."""
        self._unseen.discard(key)

    def note(self, key: Key, member: Member | None) -> None:
        """How the session counts now; None if it does not run."""
        self._unseen.discard(key)
        known = self._members.get(key)
        if member is None or member.turn is None:
            self._admitted.discard(key)
        if member == known:
            return
        if known is not None:
            self._count[known.state] -= 1
        if member is None:
            del self._members[key]
            return
        self._count[member.state] += 1
        self._members[key] = member
        if member.turn is not None:
            heapq.heappush(self._waiting, (member.turn, key))
        if len(self._waiting) > 2 * len(self._members) + _SPARE:
            # While no place is free, nothing else removes the turns that have changed since.
            self._waiting = [(item.turn, of) for of, item in self._members.items() if item.turn is not None]
            heapq.heapify(self._waiting)

    def next(self) -> list[Key]:
        """Keep the free places for those whose turn it is; they have to be looked at."""
        if not self._opened or self._unseen:
            return []
        limit = self._limit.of(len(self._members))
        found: list[Key] = []
        while self._waiting and self._taken() < limit:
            turn, key = heapq.heappop(self._waiting)
            member = self._members.get(key)
            if member is not None and member.turn == turn and key not in self._admitted:
                self._admitted.add(key)
                found.append(key)
        self._tell(limit)
        return found

    def _taken(self) -> int:
        return self._count[State.IN_PROGRESS] + self._count[State.OVERDUE] + len(self._admitted)

    def _tell(self, limit: int) -> None:
        overdue, outdated = self._count[State.OVERDUE], self._count[State.OUTDATED]
        if outdated and overdue and overdue >= limit:
            told, level = "the rollout has stopped: no place is left, and none of its sessions has come back", "WARNING"
        elif self._taken() or outdated:
            told, level = "pods of another revision are being replaced", "INFO"
        else:
            told, level = "all pods are of this revision", "INFO"
        if told != self._told:
            self._told = told
            _log.log(logging.getLevelName(level), told, extra={"outdated": outdated, "overdue": overdue})
