"""The operator's part of status, from what was observed and what the plan has decided."""

from dataclasses import dataclass
from datetime import datetime

from whatsapp_operator.api import names
from whatsapp_operator.api.models import (
    ConnectionStatus,
    PairingAttempt,
    PairingState,
    PairingStatus,
    PodStatus,
    RelinkStatus,
    RolloutStatus,
    SessionReport,
    WhatsAppSessionStatus,
)
from whatsapp_operator.api.reasons import ConditionType, MachineState, Phase, Reason, SessionState
from whatsapp_operator.controller import conditions, rollout
from whatsapp_operator.controller.conditions import Draft, Drafts
from whatsapp_operator.controller.observed import Observed, linked_phone
from whatsapp_operator.kube.client import Object

_UNFINISHED = frozenset({PairingState.REQUESTING, PairingState.SHOWING, PairingState.SCANNED})


@dataclass(frozen=True, slots=True)
class Counts:
    """What the write of a status adds to the metrics.

    Attributes:
        disconnects: number and last reason of lost connections.
        relink: outcome of a request that is now done.
    """

    attempts: tuple[PairingAttempt, ...] = ()
    disconnects: int = 0
    disconnect_reason: str = ""
    relink: str | None = None


def compute(
    o: Observed,
    phone_claimed: Draft,
    relink: RelinkStatus | None,
    now: datetime,
    *,
    place: RolloutStatus | None = None,
) -> WhatsAppSessionStatus:
    """The status without its part `session`; times to the second."""
    now = now.replace(microsecond=0)
    drafts = conditions.compute(o, phone_claimed, note=rollout.note(place))
    previous = o.session.status
    is_connected = _is_true(drafts, ConditionType.CONNECTED)
    generation = o.session.metadata.generation
    return WhatsAppSessionStatus(
        observed_generation=generation,
        phase=phase(o, drafts),
        session_state=session_state(o),
        auth_paired=o.paired,
        primary=is_connected and not o.deleting and is_primary(o, previous, now),
        phone=linked_phone(o.session),
        conditions=conditions.merge(previous.conditions, drafts, generation=generation, now=now),
        relink=relink,
        pairing=pairing(o),
        connection=connection(o),
        pod=pod(o, drafts),
        rollout=place,
    )


def is_primary(o: Observed, previous: WhatsAppSessionStatus, now: datetime) -> bool:
    """Whether this session, which is connected, is its tenant's primary one: sticky, else the oldest connected."""
    uid = o.session.metadata.uid
    if o.primary_uid is not None:
        return o.primary_uid == uid
    mine = (connected_since(previous) or now, uid)
    return all(mine <= rival for rival in o.rivals)


def connected_since(status: WhatsAppSessionStatus) -> datetime | None:
    """Since when the condition Connected is True; None if it is not."""
    for condition in status.conditions:
        if condition.type == ConditionType.CONNECTED and condition.status == "True":
            return condition.last_transition_time
    return None


def phase(o: Observed, drafts: Drafts) -> Phase:
    """For display only."""
    if o.deleting:
        return Phase.DELETING
    if o.resting and not o.problems:
        # Between two windows the reason is the same.
        held = o.report is not None and o.report.machine is MachineState.HELD
        return Phase.EXPIRED if held and _expired(o) else Phase.SUSPENDED
    if drafts.get(ConditionType.STALLED) is not None:
        return Phase.STALLED
    if _is_true(drafts, ConditionType.CONNECTED):
        return Phase.CONNECTED
    if _is_true(drafts, ConditionType.QR_READY):
        return Phase.WAITING_FOR_SCAN
    report = o.live
    if report is None:
        return Phase.PENDING
    if report.machine is MachineState.AUTHENTICATING:
        return Phase.AUTHENTICATING
    if _expired(o):
        return Phase.EXPIRED
    return Phase.DISCONNECTED if o.paired else Phase.STARTING


def _expired(o: Observed) -> bool:
    return o.report is not None and o.report.reason == Reason.EXPIRED and not o.paired


def session_state(o: Observed) -> SessionState:
    """The session in four words."""
    report = o.live
    if report is None:
        return SessionState.NOT_STARTED
    if report.machine in (MachineState.SHOWING_QR, MachineState.SHOWING_CODE):
        return SessionState.WAITING_QR
    if report.machine is MachineState.CONNECTED and o.paired:
        return SessionState.CONNECTED
    if report.machine in (MachineState.HELD, MachineState.FAILED, MachineState.UNLINKED):
        return SessionState.NOT_STARTED
    return SessionState.CONNECTING


def pairing(o: Observed) -> PairingStatus:
    """Pairing as last reported; a window of a pod that is gone is over."""
    previous = o.session.status.pairing or PairingStatus()
    known = previous.secret_name
    secret = names.owned_name(o.session.metadata.name) if o.secret_ready or known is not None else None
    report = o.report.pairing if o.report is not None else None
    if report is None:
        return previous.model_copy(update={"secret_name": secret})
    # A pod that cannot read its journal reports an empty one; a new journal begins to matter with its first attempt.
    unread = not report.seq and not report.history and previous.last_counted_seq is not None
    over = o.live is None and report.state in _UNFINISHED
    return PairingStatus(
        method=report.method,
        state=PairingState.IDLE if over else report.state,
        attempt=0 if over else report.attempt,
        secret_name=secret,
        expires_at=None if over else report.expires_at,
        last=report.history[-1] if report.history else previous.last,
        succeeded=previous.succeeded if report.succeeded is None else report.succeeded,
        failed=previous.failed if report.failed is None else report.failed,
        last_counted_seq=previous.last_counted_seq if unread or report.seq is None else report.seq,
    )


def connection(o: Observed) -> ConnectionStatus | None:
    """The connection as last reported; it is open only as long as its pod says so."""
    found = o.report.connection if o.report is not None else None
    previous = o.session.status.connection
    if found is None:
        return previous
    if o.report is not None and o.report.pairing is not None and o.report.pairing.seq is None:
        # The pod has not read its journal, which holds the number.
        found = found.model_copy(update={"disconnects": previous.disconnects if previous is not None else None})
    return found if o.live is not None else found.model_copy(update={"since": None, "next_retry_at": None})


def pod(o: Observed, drafts: Drafts) -> PodStatus | None:
    """The pod; of one that is only pending no more than the name, as the rest changes several times within a second."""
    found = o.own_pod
    if found is None:
        return None
    name = names.owned_name(o.session.metadata.name)
    draft = drafts.get(ConditionType.POD_READY)
    if draft is not None and draft.reason is Reason.POD_PENDING:
        return PodStatus(name=name, uid=found.uid)
    return PodStatus(
        name=name, uid=found.uid, node=found.node or None, image=found.image or None, restarts=found.restarts
    )


def counts(
    previous: WhatsAppSessionStatus,
    new: WhatsAppSessionStatus,
    report: SessionReport | None,
    *,
    created: datetime | None = None,
) -> Counts:
    """What the write of the new status adds to the metrics; the write is what makes it count once.

    At an object's first report, its journal may hold attempts that were counted for an earlier object on a kept volume:
    those that ended before it was `created` are left out.
    """
    after = (new.pairing.last_counted_seq if new.pairing is not None else None) or 0
    counted = previous.pairing.last_counted_seq if previous.pairing is not None else None
    history = (report.pairing.history if report is not None and report.pairing is not None else None) or []
    # A smaller number is that of a new volume, which counts from the start.
    floor = counted if counted is not None and after >= counted else 0
    attempts = tuple(
        attempt
        for attempt in history
        if attempt.seq is not None
        and floor < attempt.seq <= after
        and (counted is not None or (created and attempt.finished_at and attempt.finished_at >= created))
    )
    lost_before = previous.connection.disconnects if previous.connection is not None else None
    lost_after = new.connection.disconnects if new.connection is not None else None
    lost = 0
    # Of these, too, a first report may hold what was counted for an earlier object.
    if lost_before is not None and lost_after is not None:
        lost = lost_after - lost_before if lost_after >= lost_before else lost_after
    relink = new.relink
    done = relink is not None and relink.completed_at is not None
    done_before = (
        previous.relink is not None
        and previous.relink.completed_at is not None
        and relink is not None
        and previous.relink.request_id == relink.request_id
    )
    return Counts(
        attempts=attempts,
        disconnects=lost,
        disconnect_reason=(new.connection.last_reason if new.connection is not None else None) or "Unknown",
        relink=str(relink.outcome or "Completed") if relink is not None and done and not done_before else None,
    )


def dump(status: WhatsAppSessionStatus) -> Object:
    """As it is written; conditions are always sent, for a list that is left out of an apply would become null."""
    body: Object = status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"session"})
    return body


def _is_true(drafts: Drafts, kind: ConditionType) -> bool:
    draft = drafts.get(kind)
    return draft is not None and draft.status == "True"
