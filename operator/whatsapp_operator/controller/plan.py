"""What to do for one session: a pure function of what was observed.

A plan holds only the next step: actions that do not depend on each other. The reconciler carries them out, observes and
plans again, until nothing is left to do now; the status of the last plan is what it writes.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.api.models import Template, WhatsAppSessionStatus
from whatsapp_operator.api.reasons import ConditionType, Reason
from whatsapp_operator.controller import (
    claims,
    conditions,
    deletion,
    delivery,
    expiry,
    quantity,
    recovery,
    relink,
    rollout,
    status,
)
from whatsapp_operator.controller.actions import (
    AcquireClaim,
    Action,
    AddFinalizer,
    CheckHolder,
    CreatePod,
    CreateSecret,
    CreateVolume,
    DeletePod,
    DeleteVolume,
    EnsureNamespace,
    PatchPod,
    PatchVolume,
    ResizeVolume,
    TakeOverClaim,
)
from whatsapp_operator.controller.claims import ClaimPlan
from whatsapp_operator.controller.conditions import PATIENCE_SECONDS, Draft
from whatsapp_operator.controller.desired import Wish, document
from whatsapp_operator.controller.objects import labels
from whatsapp_operator.controller.objects import pod as pod_object
from whatsapp_operator.controller.objects import pvc as pvc_object
from whatsapp_operator.controller.objects import secret as secret_object
from whatsapp_operator.controller.observed import Observed, Problem
from whatsapp_operator.controller.settings import Options
from whatsapp_operator.controller.views import PodView, VolumeView
from whatsapp_operator.kube.client import Object

PAST_SECONDS: Final = 60.0
_FIRST_STEPS: Final = (AddFinalizer, AcquireClaim, CheckHolder, TakeOverClaim)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next step.

    Attributes:
        status: as it should be written if nothing more is done; None leaves it alone.
        requeue_after: seconds after which time alone may change the plan.
        unlink_timed_out: a device may be left on the phone's list, which a person should know.
        rolled: the session's part in a rollout, of which the place is in the status.
    """

    actions: tuple[Action, ...] = ()
    status: WhatsAppSessionStatus | None = None
    requeue_after: float | None = None
    unlink_timed_out: bool = False
    rolled: rollout.Step = rollout.NO_PART


@dataclass(frozen=True, slots=True)
class _Step:
    """What one concern asks for; problems are found without any request."""

    actions: tuple[Action, ...] = ()
    problems: tuple[Problem, ...] = ()
    after: float | None = None
    rolled: rollout.Step = rollout.NO_PART


def _sees_the_past(o: Observed) -> float | None:
    """Whether the pod is of a later session than the one that is seen, whose watch lags behind that of the pods.

    What was asked for then (to suspend, say) would be done to a pod that is asked for now. Returns for how many seconds
    that may be so: no watch lags longer, and then somebody has changed what the pod tells.
    """
    left = PAST_SECONDS - o.pod_age
    return left if left > 0 and o.own_pod is not None and _of_the_future(o, o.own_pod) else None


def _of_the_future(o: Observed, pod: PodView) -> bool:
    return pod.generation > o.session.metadata.generation


def plan(o: Observed, options: Options, now: datetime) -> Plan:
    """The next step for a session, at `now` in UTC."""
    if o.deleting:
        return _deletion(o, options, now)
    if o.paused:
        return Plan()
    if (seconds := _sees_the_past(o)) is not None:
        return Plan(requeue_after=seconds, rolled=rollout.unchanged(o))
    requested = relink.advance(o.session, o.report, now.replace(microsecond=0))
    if o.invalid is not None:
        rolled = rollout.unchanged(o)
        told = status.compute(o, Draft("False", Reason.INVALID_SPEC), requested, now, place=rolled.place)
        return Plan(status=told, rolled=rolled)
    claimed = claims.decide(o)
    expires = expiry.decide(o, now)
    runs = claimed.may_run and (expires.now or not o.session.spec.suspend)
    pod = _pod(o, options, claimed, now, runs=runs, expire=expires.now)
    steps = (
        _Step(problems=(Problem(Reason.EXPIRY_FAILED, ""),) if expires.failed else (), after=expires.after),
        _finalizer(o, claimed),
        _Step(claimed.actions),
        _surroundings(o, options) if runs else _resting_volume(o),
        pod,
    )
    actions = tuple(action for step in steps for action in step.actions)
    first = tuple(action for action in actions if isinstance(action, _FIRST_STEPS))
    found = tuple(problem for step in steps for problem in step.problems)
    seen = o if not found else _with_problems(o, found)
    after = [step.after for step in steps if step.after is not None]
    if claimed.condition.reason is Reason.HELD_BY_OTHER:
        after.append(claims.CLAIM_RETRY_SECONDS)
    return Plan(
        actions=first or actions,
        status=status.compute(seen, claimed.condition, requested, now, place=pod.rolled.place),
        requeue_after=min(after + _patience(o), default=None),
        rolled=pod.rolled,
    )


def _deletion(o: Observed, options: Options, now: datetime) -> Plan:
    step = deletion.decide(o, options)
    claimed = Draft("True", Reason.CLAIMED) if o.held else Draft("True", Reason.NOT_DECLARED)
    return Plan(
        actions=step.actions,
        status=status.compute(o, claimed, o.session.status.relink, now),
        requeue_after=step.requeue_after,
        unlink_timed_out=step.timed_out,
    )


def _with_problems(o: Observed, found: tuple[Problem, ...]) -> Observed:
    return replace(o, problems=(*o.problems, *found))


def _patience(o: Observed) -> list[float]:
    """When what is not told yet, because it may pass quickly, is to be told."""
    pod = o.own_pod
    young = pod is not None and not pod.running and o.pod_age <= PATIENCE_SECONDS
    return [PATIENCE_SECONDS - o.pod_age + 0.1] if young else []


def _finalizer(o: Observed, claimed: ClaimPlan) -> _Step:
    """Not before there is something to make or to clean up, so that it tells whether anything was ever attempted."""
    if names.FINALIZER in o.session.metadata.finalizers:
        return _Step()
    claiming = any(isinstance(action, (AcquireClaim, TakeOverClaim)) for action in claimed.actions)
    begins = not o.session.spec.suspend and (claimed.may_run or claiming)
    volume = o.volume
    owns = o.own_pod is not None or (volume is not None and volume.session_uid == o.session.metadata.uid)
    return _Step((AddFinalizer(),)) if begins or owns or o.held else _Step()


def _surroundings(o: Observed, options: Options) -> _Step:
    """What must be there before a pod: account, Secret, volume."""
    actions: list[Action] = []
    if not o.namespace_ready:
        actions.append(EnsureNamespace())
    missed = o.secret_missed and o.live is not None
    if missed or (not o.secret_ready and o.own_pod is None):
        actions.append(CreateSecret(secret_object.build(o.session, options.version), may_exist=_secret_may_exist(o)))
    volume = _volume(o, options)
    return _Step((*actions, *volume.actions), volume.problems)


def _secret_may_exist(o: Observed) -> bool:
    """Whether a Secret of that name is taken for the session's own; nobody may read it to find out.

    It was recorded in status; or an earlier pass, which the finalizer tells of, has ended without saying that the name
    was taken, as after a crash. A wrong guess costs its owner nothing: only a Secret that this process has made is ever
    deleted.
    """
    if o.secret_taken:
        return False
    recorded = o.session.status.pairing
    if recorded is not None and recorded.secret_name is not None:
        return True
    conflict = any(
        condition.type == ConditionType.POD_READY and condition.reason == Reason.NAME_CONFLICT
        for condition in o.session.status.conditions
    )
    return names.FINALIZER in o.session.metadata.finalizers and not o.fresh and not conflict


def _volume(o: Observed, options: Options) -> _Step:
    volume, session = o.volume, o.session
    name = names.owned_name(session.metadata.name)
    if volume is None:
        return _Step((CreateVolume(pvc_object.build(session, options.version)),))
    if volume.session_uid != session.metadata.uid:
        if volume.deleting:
            return _Step(problems=(Problem(Reason.VOLUME_PENDING, "A former volume of that name is being deleted."),))
        if volume.session_uid or not volume.ours:
            taken = f"The PersistentVolumeClaim {name} is not this session's own."
            return _Step(problems=(Problem(Reason.NAME_CONFLICT, conditions.told(Reason.NAME_CONFLICT, taken)),))
        if volume.tenant != session.spec.tenant:
            return _Step(problems=(Problem(Reason.VOLUME_FOREIGN, ""),))
        adopted: Object = {"metadata": {"labels": {names.LABEL_SESSION_UID: session.metadata.uid}}}
        return _Step((PatchVolume(name, volume.version, adopted),))
    if _outdated(o):
        return _Step((DeleteVolume(name, volume.uid, volume.version),))
    if (volume.edited or volume.tenant != session.spec.tenant) and not volume.deleting:
        kept = dict(labels.mended(labels.of_session(session, options.version)))
        return _Step((PatchVolume(name, volume.version, {"metadata": {"labels": kept}}),))
    return _resting_volume(o)


def _outdated(o: Observed) -> bool:
    """A volume that is not what the spec asks for, and that nothing was ever written to: it can be made anew."""
    volume, storage = o.volume, o.session.spec.storage
    if volume is None or not volume.pending or volume.deleting or volume.session_uid != o.session.metadata.uid:
        return False
    other_kind = volume.kind_hash not in (None, pvc_object.kind_hash(o.session))
    return other_kind or quantity.parse(volume.requested) != quantity.parse(storage.size)


def _resting_volume(o: Observed) -> _Step:
    """What is done to a volume whether or not a pod is to run."""
    volume, session = o.volume, o.session
    if volume is None or not volume.bound or volume.session_uid != session.metadata.uid:
        return _Step()
    return _size(volume, names.owned_name(session.metadata.name), session.spec.storage.size)


def _size(volume: VolumeView, name: str, size: str) -> _Step:
    """The size of a bound volume: it only grows, but a request that was refused can be taken back."""
    wanted, requested = quantity.parse(size), quantity.parse(volume.requested)
    if wanted > requested:
        return _Step((ResizeVolume(name, volume.version, size),))
    if volume.resize_error is None:
        return _Step()
    if wanted < requested and volume.capacity:
        # The API server takes no request down to what the volume has already, and then there is nothing to ask for.
        enough = wanted <= quantity.parse(volume.capacity)
        return _Step() if enough else _Step((ResizeVolume(name, volume.version, size),))
    refused = conditions.told(Reason.EXPANSION_REFUSED, volume.resize_error)
    return _Step(problems=(Problem(Reason.EXPANSION_REFUSED, refused),))


def _pod(o: Observed, options: Options, claimed: ClaimPlan, now: datetime, *, runs: bool, expire: bool) -> _Step:
    session, pod = o.session, o.own_pod
    name = names.owned_name(session.metadata.name)
    if o.pod is not None and pod is None:
        if o.pod.deleting:
            return _Step()
        # Labelled by this operator for a session of that name which is gone: nobody else will remove it.
        former = o.pod.session_uid != ""
        return _Step((DeletePod(name, o.pod.uid),)) if former else _Step(problems=(_name_taken(name),))
    if not runs:
        gone = pod is None or pod.deleting
        return _Step() if gone or pod is None else _Step((DeletePod(name, pod.uid),))
    request = session.status.relink
    wish = Wish(
        phone=claimed.phone,
        rejected_phone=claimed.rejected_phone,
        relink_request_id=request.request_id if request is not None else None,
        expire=expire,
    )
    wanted = document(session, wish)
    try:
        made = pod_object.hashes(session, options)
    except pod_object.InvalidTemplateError as error:
        wrong = Problem(Reason.INVALID_SPEC, conditions.told(Reason.INVALID_SPEC, str(error)))
        return _Step(problems=(wrong,), rolled=rollout.unchanged(o))
    revision = pod_object.revision(options)
    if pod is None:
        volume = o.volume
        ready = o.namespace_ready and o.secret_ready and volume is not None
        own = volume is not None and volume.session_uid == session.metadata.uid and not volume.deleting
        rolled = rollout.advance(o, rollout.Pod(), revision, now)
        if not ready or not own or _outdated(o):
            return _Step(after=rolled.after, rolled=rolled)
        return _Step((CreatePod(pod_object.build(session, options, wanted)),), after=rolled.after, rolled=rolled)
    replaced = recovery.replacement(pod, o.pod_age, applied_hash=made.applied, spec_hash=made.spec)
    going = pod.deleting or replaced.now or _only_holds_its_volume(o)
    current = pod.applied_hash == made.applied
    seen = rollout.Pod(current=current and not going, outdated=replaced.outdated and not going)
    rolled = rollout.advance(o, seen, revision, now)
    if not pod.deleting and (going or rolled.replace):
        return _Step((DeletePod(name, pod.uid),), rolled=rolled)
    patch = _pod_patch(o, options, pod, wanted, made.spec, current=current)
    delivered = delivery.Delivery() if patch or pod.deleting else delivery.ensure(o)
    after = [seconds for seconds in (replaced.after, delivered.after, rolled.after) if seconds is not None]
    return _Step((*patch, *delivered.actions), after=min(after, default=None), rolled=rolled)


def _only_holds_its_volume(o: Observed) -> bool:
    """Somebody deletes the volume, and it goes when the pod does: so it does, if no credentials are lost by that."""
    volume, pod = o.volume, o.own_pod
    if volume is None or not volume.deleting or pod is None or pod.deleting or pod.node_lost:
        return False
    return volume.pending or not o.paired or (o.live is not None and o.live.reason == Reason.VOLUME_FOREIGN)


def _name_taken(name: str) -> Problem:
    return Problem(
        Reason.NAME_CONFLICT, conditions.told(Reason.NAME_CONFLICT, f"The Pod {name} is not this session's own.")
    )


def _pod_patch(
    o: Observed, options: Options, pod: PodView, wanted: str, spec_hash: str, *, current: bool
) -> tuple[Action, ...]:
    """Annotations and labels that differ from those of a new pod; what others have added is theirs.

    Those of a pod that is not `current` come with the next one. The label primary follows status.primary, which is
    written first.
    """
    if pod.deleting:
        return ()
    stamped = current or pod.spec_hash is None
    changed: tuple[tuple[str, str | None], ...] = ()
    annotations: tuple[tuple[str, str | None], ...] = ()
    primary = o.session.status.primary is True
    if pod.edited or pod.tenant != o.session.spec.tenant or (current and _template_edited(o, pod)):
        changed = labels.mended(pod_object.wanted_labels(o.session, options))
        annotations = tuple(sorted(((o.session.spec.template or Template()).annotations or {}).items()))
    if pod.primary != primary:
        changed = (*changed, (names.LABEL_PRIMARY, "true" if primary else None))
    if pod.desired_state != wanted:
        annotations = (*annotations, *delivery.change(wanted))
    if stamped and pod.spec_hash != spec_hash:
        # Another way to ask for the same pod; or the pod is of an operator that left no such hash.
        annotations = (*annotations, (names.ANNOTATION_SPEC_HASH, spec_hash))
    if _of_the_future(o, pod):
        annotations = (*annotations, (names.ANNOTATION_GENERATION, str(o.session.metadata.generation)))
    if not changed and not annotations:
        return ()
    return (PatchPod(names.owned_name(o.session.metadata.name), pod.uid, pod.version, changed, annotations),)


def _template_edited(o: Observed, pod: PodView) -> bool:
    template = o.session.spec.template or Template()
    wanted = (template.labels or {}, template.annotations or {})
    return any(part.items() - found.items() for part, found in zip(wanted, pod.further, strict=True))
