"""The end of a session: unlink the device, then pod, volume, claims and Secret go, and last the finalizer."""

from dataclasses import dataclass
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.api.models import DeletionPolicy, RetentionPolicy
from whatsapp_operator.api.reasons import MachineState
from whatsapp_operator.controller import delivery
from whatsapp_operator.controller.actions import (
    Action,
    CheckNamespace,
    CreatePod,
    DeletePod,
    DeleteSecret,
    DeleteVolume,
    EnsureNamespace,
    PatchPod,
    PatchVolume,
    ReleaseClaim,
    RemoveFinalizer,
)
from whatsapp_operator.controller.desired import Wish, document, parse_wish
from whatsapp_operator.controller.objects import pod as pod_object
from whatsapp_operator.controller.observed import Observed, linked_phone
from whatsapp_operator.controller.settings import Options

UNLINK_SECONDS: Final = 30.0
# After this the pod is still waited for, but no longer than its grace period and as much again.
POD_GONE_SECONDS: Final = UNLINK_SECONDS + 2 * pod_object.GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class DeletionPlan:
    """What to do next; `timed_out` tells that the device may still be on the phone's list."""

    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    timed_out: bool = False


def decide(o: Observed, options: Options) -> DeletionPlan:
    """The next step of a deletion."""
    age = o.deletion_age or 0.0
    if names.FINALIZER not in o.session.metadata.finalizers:
        return DeletionPlan()
    if o.namespace_terminating is None:
        return DeletionPlan((CheckNamespace(),))
    if o.namespace_terminating:
        # Everything in it is being removed already, and nothing can be made.
        return DeletionPlan((*(ReleaseClaim(claim) for claim in o.held), RemoveFinalizer()), timed_out=_linked(o))
    wanted = _can_unlink(o) and (_linked(o) or o.live is not None)
    left = wanted or _linked(o)
    if wanted and age < UNLINK_SECONDS:
        return _unlink(o, options, UNLINK_SECONDS - age)
    pod = o.own_pod
    if pod is not None and not pod.deleting:
        return DeletionPlan((DeletePod(names.owned_name(o.session.metadata.name), pod.uid),), timed_out=left)
    if pod is not None and not pod.node_lost and age < POD_GONE_SECONDS:
        return DeletionPlan(requeue_after=POD_GONE_SECONDS - age)
    return DeletionPlan(_clean_up(o) or (RemoveFinalizer(),), timed_out=left)


def _linked(o: Observed) -> bool:
    """Whether a device is linked, as far as was reported, that should not be left so."""
    return _unlink_asked(o) and not _unlinked(o) and (o.paired or linked_phone(o.session) is not None)


def _can_unlink(o: Observed) -> bool:
    """Whether there is a pod, or can be one, that may unlink; one that runs is always asked: the scan may have happened
    a moment ago.
    """
    pod = o.own_pod
    if not _unlink_asked(o) or _unlinked(o):
        return False
    if pod is not None:
        return not pod.deleting and not pod.node_lost
    return o.pod is None and o.volume is not None and not o.volume.deleting


def _unlink_asked(o: Observed) -> bool:
    return o.session.spec.deletion_policy is DeletionPolicy.UNLINK and o.invalid is None


def _unlinked(o: Observed) -> bool:
    """The pod was told to unlink, and says that it has."""
    pod, report = o.own_pod, o.report
    if pod is None or report is None or report.pod_uid != pod.uid:
        return False
    return report.machine is MachineState.UNLINKED and parse_wish(pod.desired_state).unlink


def _told(o: Observed) -> str | None:
    return o.own_pod.desired_state if o.own_pod is not None else None


def _unlink(o: Observed, options: Options, left: float) -> DeletionPlan:
    session, pod = o.session, o.own_pod
    relink = session.status.relink
    told = parse_wish(_told(o))
    wish = Wish(
        phone=told.phone if pod is not None else session.spec.phone,
        rejected_phone=told.rejected_phone,
        relink_request_id=relink.request_id if relink is not None else None,
        unlink=True,
    )
    wanted = document(session, wish)
    if pod is not None:
        if pod.desired_state == wanted and not pod.primary:
            delivered = delivery.ensure(o)
            return DeletionPlan(delivered.actions, requeue_after=min(left, delivered.after or left))
        name = names.owned_name(session.metadata.name)
        # The session is not primary any more, as its status says too.
        labels = ((names.LABEL_PRIMARY, None),) if pod.primary else ()
        annotations = delivery.change(wanted) if pod.desired_state != wanted else ()
        patch = PatchPod(name, pod.uid, pod.version, labels, annotations)
        return DeletionPlan((patch,), requeue_after=left)
    if not o.namespace_ready:
        return DeletionPlan((EnsureNamespace(),), requeue_after=left)
    try:
        return DeletionPlan((CreatePod(pod_object.build(session, options, wanted)),), requeue_after=left)
    except pod_object.InvalidTemplateError:
        return DeletionPlan(requeue_after=left)


def _clean_up(o: Observed) -> tuple[Action, ...]:
    session = o.session
    name = names.owned_name(session.metadata.name)
    actions: list[Action] = [ReleaseClaim(claim) for claim in o.held]
    volume = o.volume
    if volume is not None and volume.session_uid == session.metadata.uid and not volume.deleting:
        if session.spec.storage.retention_policy is RetentionPolicy.RETAIN:
            released = {"metadata": {"labels": {names.LABEL_SESSION_UID: None}}}
            actions.append(PatchVolume(name, volume.version, released))
        else:
            actions.append(DeleteVolume(name, volume.uid))
    if o.secret_uid is not None and not o.secret_gone:
        # Of any other nobody knows whose it is, but garbage collection, which knows the owner.
        actions.append(DeleteSecret(name, o.secret_uid))
    return tuple(actions)
