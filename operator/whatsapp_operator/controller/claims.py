"""Who may use a phone: one session per phone and scope, by a Lease that only one can create."""

from dataclasses import dataclass, replace
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.api.models import PairingState, WhatsAppSession
from whatsapp_operator.api.phones import canonical, same_account
from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.controller import numbers, relink
from whatsapp_operator.controller.actions import AcquireClaim, Action, CheckHolder, ReleaseClaim, TakeOverClaim
from whatsapp_operator.controller.conditions import Draft, told
from whatsapp_operator.controller.desired import Wish, parse_wish
from whatsapp_operator.controller.observed import Claim, Holder, Observed, linked_phone
from whatsapp_operator.controller.settings import ClaimScope, Options
from whatsapp_operator.controller.views import PodView

CLAIM_RETRY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """What is to be done about claims, and what they allow.

    Attributes:
        phone, rejected_phone: for the pod's desired state.
        may_run: whether a pod may run.
    """

    actions: tuple[Action, ...]
    condition: Draft
    phone: str | None = None
    rejected_phone: str | None = None
    may_run: bool = True


def lease_name(session: WhatsAppSession, phone: str, options: Options) -> str:
    """Name of the Lease that claims the phone for sessions of the same scope, in whichever spelling."""
    cluster = options.claim_scope is ClaimScope.CLUSTER
    scope = "" if cluster else f"{session.metadata.namespace}/{session.spec.tenant}"
    return names.claim_name(options.claim_key, scope, canonical(phone))


def phones_of(session: WhatsAppSession, pod: PodView | None) -> frozenset[str]:
    """All phones that play a part: the declared, the linked, and the one that the pod was told."""
    wish = parse_wish(pod.desired_state) if pod is not None else Wish()
    found = (session.spec.phone, linked_phone(session), wish.phone)
    return frozenset(phone for phone in found if phone is not None)


def decide(o: Observed) -> ClaimPlan:
    """The claims that the session should hold now."""
    declared = o.session.spec.phone
    if declared is None:
        return _undeclared(o)
    fault = _fault(o, declared)
    if fault is None:
        return _declared(o, declared)
    wrong = Draft("False", Reason.INVALID_SPEC, told(Reason.INVALID_SPEC, f"spec.phone: {fault}"))
    wish = parse_wish(o.own_pod.desired_state if o.own_pod is not None else None)
    for before in (linked_phone(o.session), wish.phone):
        if before is not None and _fault(o, before) is None:
            # The session goes on with its former number until the spec is corrected.
            return replace(_declared(o, before), condition=wrong)
    dropped = _release(o, keep=set()) if _dropped(o, paired=False) is not None else ()
    return ClaimPlan(dropped, wrong, may_run=False)


def _fault(o: Observed, phone: str) -> str | None:
    """Why the number cannot be one; what is linked has proven that it is."""
    return None if same_account(phone, linked_phone(o.session)) else numbers.fault(phone)


def _declared(o: Observed, declared: str) -> ClaimPlan:
    linked = linked_phone(o.session)
    claim = o.claims[declared]
    wish = parse_wish(o.own_pod.desired_state if o.own_pod is not None else None)
    dropped = _dropped(o, same_account(linked, declared))
    if dropped is not None:
        released = _release(o, keep={linked} if linked is not None else set())
        return ClaimPlan(released, Draft("False", dropped), phone=declared)
    if claim.holder is Holder.OURS:
        # The former number's claim is kept until its device is gone from the volume.
        released = _release(o, keep={declared} | ({linked} if linked is not None else set()))
        return ClaimPlan(released, Draft("True", Reason.CLAIMED), phone=declared)
    taking = _take(claim, paired=same_account(linked, declared))
    if taking:
        return ClaimPlan(taking, Draft("False", Reason.HELD_BY_OTHER), may_run=False)
    held = Draft("False", Reason.HELD_BY_OTHER, _held_message(claim))
    # The session goes on with its former number meanwhile, also in a new pod.
    for before in (wish.phone, linked):
        if before is not None and not same_account(before, declared) and o.claims[before].holder is Holder.OURS:
            return ClaimPlan((), held, phone=before)
    # A Lease that is named after another spelling of the number, as by an earlier version, would never be released.
    return ClaimPlan(_release(o, keep=set(o.claims)), held, phone=declared, may_run=False)


def _undeclared(o: Observed) -> ClaimPlan:
    linked = linked_phone(o.session)
    wish = parse_wish(o.own_pod.desired_state if o.own_pod is not None else None)
    if linked is None:
        released = _release(o, keep=set())
        conflict = Reason.PHONE_CLAIM_CONFLICT
        held_back = o.live is not None and o.live.reason == conflict and not _newer_request(o, wish)
        if wish.rejected_phone is not None and held_back:
            return ClaimPlan(released, Draft("False", conflict), rejected_phone=wish.rejected_phone)
        return ClaimPlan(released, Draft("True", Reason.NOT_DECLARED))
    claim = o.claims[linked]
    if claim.holder is Holder.OURS:
        return ClaimPlan(_release(o, keep={linked}), Draft("True", Reason.CLAIMED))
    taking = _take(claim, paired=True)
    if taking:
        return ClaimPlan(taking, Draft("False", Reason.PHONE_CLAIM_CONFLICT))
    conflicting = Draft("False", Reason.PHONE_CLAIM_CONFLICT, _held_message(claim, Reason.PHONE_CLAIM_CONFLICT))
    return ClaimPlan(_release(o, keep=set(o.claims)), conflicting, rejected_phone=linked)


def _newer_request(o: Observed, wish: Wish) -> bool:
    record = o.session.status.relink
    return record is not None and record.request_id is not None and record.request_id != wish.relink_request_id


def _dropped(o: Observed, paired: bool) -> Reason | None:
    """Why a claim that never paired is given up for now, None if it is not."""
    if paired:
        return None
    if o.session.spec.suspend and o.own_pod is None:
        return Reason.SUSPENDED
    pairing = o.live.pairing if o.live is not None else None
    exhausted = pairing is not None and pairing.state is PairingState.EXHAUSTED
    return Reason.ATTEMPTS_EXHAUSTED if exhausted and not relink.pending(o.session) else None


def _take(claim: Claim, *, paired: bool) -> tuple[Action, ...]:
    if claim.holder is Holder.NOBODY or claim.lease is None:
        return (AcquireClaim(claim.name),)
    if claim.holder is Holder.UNKNOWN:
        return (CheckHolder(claim.lease),)
    if claim.holder is Holder.GONE or (claim.holder is Holder.PROVISIONAL and paired):
        return (TakeOverClaim(claim.lease),)
    return ()


def _release(o: Observed, keep: set[str]) -> tuple[Action, ...]:
    kept = {o.claims[phone].name for phone in keep if phone in o.claims}
    return tuple(ReleaseClaim(claim) for claim in o.held if claim.name not in kept)


def _held_message(claim: Claim, reason: Reason = Reason.HELD_BY_OTHER) -> str:
    return told(reason, f"Held by {claim.held_by}" if claim.held_by is not None else "")
