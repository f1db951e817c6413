"""The conditions, each computed by a function of its own from what was observed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from whatsapp_operator.api.masking import mask
from whatsapp_operator.api.models import AccessMode, AttemptResult, Condition, PairingAttempt, SessionReport
from whatsapp_operator.api.reasons import ConditionType, MachineState, Reason, sentence
from whatsapp_operator.controller import desired, relink
from whatsapp_operator.controller.observed import Observed
from whatsapp_operator.controller.views import OOM_KILLED, PodView

MESSAGE_BYTES: Final = 512
OUT_OF_MEMORY: Final = (
    "The session container was last ended for using more memory than its limit (OOMKilled). Should this come back,"
    " raise spec.template.resources.limits.memory."
)
# Pending for less than this is not worth telling why, in seconds.
PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Draft:
    """A condition before it is compared with what was; without a message it gets the reason's own sentence."""

    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str = ""

    @property
    def text(self) -> str:
        return bounded(mask(self.message)) if self.message else sentence(self.reason)


def reason_of(text: str | None) -> Reason | None:
    """The reason that a report names; None for one that this version does not know."""
    return _BY_NAME.get(text or "")


def bounded(text: str, limit: int = MESSAGE_BYTES) -> str:
    """At most so many bytes of UTF-8."""
    raw = text.encode()
    return text if len(raw) <= limit else raw[: limit - 3].decode(errors="ignore") + "..."


_BY_NAME: Final = {reason.value: reason for reason in Reason}

Drafts = dict[ConditionType, Draft | None]

_IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError"})
_CRASH_REASONS: Final = frozenset({"CrashLoopBackOff"})
_START_REASONS: Final = frozenset({"CreateContainerError", "RunContainerError", "StartError", "PostStartHookError"})

_VOLUME_REPORTS: Final = frozenset({Reason.VOLUME_FULL, Reason.VOLUME_READ_ONLY, Reason.VOLUME_FOREIGN})
_QR_REPORTS: Final = frozenset(
    {
        Reason.EXPIRED,
        Reason.ATTEMPTS_EXHAUSTED,
        Reason.RATE_LIMITED,
        Reason.PASSKEY_REQUIRED,
        Reason.INVALID_SPEC,
    }
)
_AUTH_REPORTS: Final = frozenset(
    {
        Reason.LOGGED_OUT,
        Reason.MAIN_DEVICE_GONE,
        Reason.PHONE_MISMATCH,
        Reason.CREDENTIALS_CORRUPT,
        Reason.CREDENTIALS_CONFLICT,
        Reason.EXPIRED,
        Reason.UNLINKED,
    }
)
_LOST: Final = frozenset({Reason.LOGGED_OUT, Reason.MAIN_DEVICE_GONE, Reason.EXPIRED})
_CONNECTED_REPORTS: Final = frozenset(
    {
        Reason.LOGGED_OUT,
        Reason.STREAM_REPLACED,
        Reason.TEMPORARY_BAN,
        Reason.CLIENT_OUTDATED,
        Reason.CONNECT_FAILURE,
        Reason.PROXY_FAILED,
        Reason.KEEP_ALIVE_TIMEOUT,
        Reason.RECONNECTING,
        Reason.CONNECTING,
    }
)

# A person must act; everything else is expected to pass by itself.
_STALLING: Final = frozenset(
    {
        Reason.HELD_BY_OTHER,
        Reason.PHONE_CLAIM_CONFLICT,
        Reason.NAME_CONFLICT,
        Reason.POD_REJECTED,
        Reason.CONFIG_MISSING,
        Reason.IMAGE_PULL_FAILED,
        Reason.CRASH_LOOPING,
        Reason.VOLUME_FULL,
        Reason.VOLUME_READ_ONLY,
        Reason.VOLUME_FOREIGN,
        Reason.EXPANSION_REFUSED,
        Reason.EXPIRY_FAILED,
        Reason.ATTEMPTS_EXHAUSTED,
        Reason.PASSKEY_REQUIRED,
        Reason.CREDENTIALS_CONFLICT,
        Reason.CLIENT_OUTDATED,
        Reason.INVALID_SPEC,
    }
)
# So many take-overs in a row are no accident.
_REPLACED_STALLING: Final = 3

# The order in which the most specific reason is looked for.
_ORDER: Final = (
    ConditionType.PHONE_CLAIMED,
    ConditionType.POD_READY,
    ConditionType.QR_READY,
    ConditionType.AUTH_PAIRED,
    ConditionType.CONNECTED,
)


NO_POD_YET: Final = (
    "No session pod is started before the phone is claimed; the condition PhoneClaimed tells what is in the way."
)


def compute(o: Observed, phone_claimed: Draft, *, note: str | None = None) -> Drafts:
    """All conditions; None for those that are only there while they are true. Ready begins with the note."""
    unclaimed = phone_claimed.status == "False" and o.own_pod is None
    waits = unclaimed and not o.problems and not o.session.spec.suspend
    drafts: Drafts = {
        ConditionType.PHONE_CLAIMED: phone_claimed,
        ConditionType.POD_READY: Draft("False", Reason.POD_PENDING, NO_POD_YET) if waits else pod_ready(o),
        ConditionType.QR_READY: qr_ready(o),
        ConditionType.AUTH_PAIRED: auth_paired(o),
        ConditionType.CONNECTED: connected(o),
    }
    drafts[ConditionType.STALLED] = stalled(o, drafts)
    drafts[ConditionType.READY] = ready(o, drafts, note=note)
    drafts[ConditionType.RECONCILING] = reconciling(o, drafts)
    return drafts


def merge(
    previous: Sequence[Condition], drafts: Mapping[ConditionType, Draft | None], *, generation: int, now: datetime
) -> list[Condition]:
    """The conditions to write: lastTransitionTime moves only where status does; in the order of the enumeration."""
    known = {condition.type: condition for condition in previous}
    merged = []
    for kind in ConditionType:
        draft = drafts.get(kind)
        if draft is None:
            continue
        before = known.get(kind)
        unmoved = before is not None and before.status == draft.status
        merged.append(
            Condition(
                type=kind,
                status=draft.status,
                reason=draft.reason,
                message=draft.text,
                last_transition_time=before.last_transition_time if before is not None and unmoved else now,
                observed_generation=generation,
            )
        )
    return merged


def pod_ready(o: Observed) -> Draft:
    """Whether the pod runs and reports."""
    if o.problems:
        return Draft("False", o.problems[0].reason, o.problems[0].message)
    pod = o.own_pod
    if pod is None:
        return Draft("False", Reason.SUSPENDED if o.session.spec.suspend else Reason.POD_PENDING)
    if pod.node_lost:
        return Draft("Unknown", Reason.NODE_LOST)
    if pod.deleting:
        return Draft("False", Reason.POD_PENDING, "The session pod is being stopped.")
    if pod.phase in ("Failed", "Succeeded"):
        return Draft("False", Reason.POD_FAILED, _detail(Reason.POD_FAILED, pod.status_reason, pod.status_message))
    waiting = _waiting(pod)
    if waiting is not None:
        return waiting
    memory = OUT_OF_MEMORY if pod.ended == OOM_KILLED else ""
    if not pod.running:
        return Draft("False", Reason.POD_PENDING, told(Reason.POD_PENDING, memory)) if memory else _pending(o, pod)
    report = o.live
    if report is None or not pod.ready:
        return Draft("False", Reason.POD_PENDING, told(Reason.POD_PENDING, memory))
    if report.reason in _VOLUME_REPORTS:
        return _reported(report)
    return Draft("True", Reason.POD_READY, told(Reason.POD_READY, " ".join(filter(None, (memory, _shareable(o))))))


def _shareable(o: Observed) -> str:
    """That the volume itself keeps no second pod away; Kubernetes does so only where this is its one access mode."""
    modes = o.volume.access_modes if o.volume is not None else ()
    if modes in ((), (AccessMode.READ_WRITE_ONCE_POD,)):
        return ""
    return (
        f"Its volume could be mounted by two pods (its access mode is {', '.join(modes)}, not"
        f" {AccessMode.READ_WRITE_ONCE_POD}); that there is only one is left to the pod's fixed name."
    )


def _waiting(pod: PodView) -> Draft | None:
    kinds = (
        (_IMAGE_REASONS, Reason.IMAGE_PULL_FAILED),
        (_CONFIG_REASONS, Reason.CONFIG_MISSING),
        (_CRASH_REASONS, Reason.CRASH_LOOPING),
        (_START_REASONS, Reason.POD_FAILED),
    )
    for reasons, reason in kinds:
        if pod.waiting_reason in reasons:
            # The kubelet's message of a crash loop counts seconds and names the pod: it would never stay the same.
            ended = OUT_OF_MEMORY if pod.ended == OOM_KILLED else pod.ended
            detail = ended if reason is Reason.CRASH_LOOPING else pod.waiting_message
            return Draft("False", reason, _detail(reason, pod.waiting_reason, detail))
    return None


def _pending(o: Observed, pod: PodView) -> Draft:
    """Why the pod does not run yet, once it has lasted or was told before."""
    unbound = o.volume is not None and not o.volume.bound
    if pod.unschedulable is None and not unbound:
        return Draft("False", Reason.POD_PENDING, _creating(o))
    # A volume that waits for its first consumer is not even asked for before a node is found.
    waits = unbound and (pod.unschedulable is None or "olume" in pod.unschedulable)
    reason = Reason.VOLUME_PENDING if waits else Reason.UNSCHEDULABLE
    told_before = any(
        condition.type == ConditionType.POD_READY and condition.reason == reason
        for condition in o.session.status.conditions
    )
    if o.pod_age <= PATIENCE_SECONDS and not told_before:
        return Draft("False", Reason.POD_PENDING)
    asked = _asked(o) if waits else ""
    return Draft("False", reason, told(reason, " ".join(filter(None, (asked, pod.unschedulable)))))


def _asked(o: Observed) -> str:
    """What the volume was asked of and with which access mode; why it is not given is in Events of its claim."""
    if o.volume is None or o.volume.storage_class is None:
        return "No StorageClass is asked for, and the cluster has no default."
    mode = o.session.spec.storage.access_mode
    asked = f"The StorageClass {o.volume.storage_class} is asked for a volume with the access mode {mode}"
    only = ", which CSI drivers alone provide: for another, set spec.storage.accessMode to ReadWriteOnce."
    return asked + (only if mode is AccessMode.READ_WRITE_ONCE_POD else ".")


def _creating(o: Observed) -> str:
    """What a container that is long in the making may wait for; nothing but an Event of the kubelet would tell."""
    bundle = o.session.spec.ca_bundle
    if bundle is None:
        return ""
    kind, reference = ("Secret", bundle.secret_ref) if bundle.secret_ref else ("ConfigMap", bundle.config_map_ref)
    if reference is None:
        return ""
    text = (
        f"{sentence(Reason.POD_PENDING)} If this lasts, check that the {kind} {reference.name} of spec.caBundle exists"
        f" and has the key {reference.key}; the pod starts by itself then."
    )
    written = Draft("False", Reason.POD_PENDING, text).text
    told_before = any(
        condition.type == ConditionType.POD_READY and condition.message == written
        for condition in o.session.status.conditions
    )
    return text if o.pod_age > PATIENCE_SECONDS or told_before else ""


def _reported(report: SessionReport) -> Draft:
    """The reason that the pod gives, which must be one of the API."""
    reason = Reason(report.reason or "")
    return Draft("False", reason, told(reason, report.message or ""))


def told(reason: Reason, detail: str) -> str:
    """What was found, followed by what the reason means and the remedy, for which room is kept."""
    said = sentence(reason)
    if not detail:
        return said
    # A part of a number, left by the cut, would not be known for one.
    return f"{bounded(mask(detail).rstrip('.'), MESSAGE_BYTES - len(said.encode()) - 2)}. {said}"


def _detail(reason: Reason, code: str, detail: str) -> str:
    return told(reason, ": ".join(part for part in (code, detail) if part))


def qr_ready(o: Observed) -> Draft:
    """Whether a QR or code waits for a person."""
    report = o.live
    if report is not None and report.machine is MachineState.SHOWING_QR:
        return Draft("True", Reason.QR_AVAILABLE)
    if report is not None and report.machine is MachineState.SHOWING_CODE:
        return Draft("True", Reason.CODE_AVAILABLE)
    if o.paired:
        return Draft("False", Reason.NOT_NEEDED)
    if report is None:
        resting = "While the session is suspended no QR or code is offered." if o.resting else ""
        return Draft("False", Reason.POD_NOT_READY, resting)
    if report.reason in _QR_REPORTS:
        return _reported(report)
    if report.machine is MachineState.AUTHENTICATING:
        return Draft("False", Reason.NOT_NEEDED, "The QR or code was used; the phone is being linked.")
    return Draft("False", Reason.STARTING)


def auth_paired(o: Observed) -> Draft:
    """Whether a device is linked; credentials outlive the pod, so the last report of any pod counts."""
    if o.live is not None and o.live.reason == Reason.CREDENTIALS_CONFLICT:
        return _reported(o.live)
    if o.paired:
        return Draft("True", Reason.PAIRED)
    report = o.report
    history = report.pairing.history if report is not None and report.pairing is not None else None
    failed = history[-1] if history and history[-1].result is AttemptResult.FAILED else None
    # Of a window that has passed the reason is the same as of credentials that have.
    window = failed is not None and failed.reason == Reason.EXPIRED
    if report is not None and report.reason in _AUTH_REPORTS and not (window and report.reason == Reason.EXPIRED):
        return _reported(report)
    if report is not None and report.credentials is not None and report.credentials.present:
        # Moved aside, until a device is linked again.
        return Draft("False", Reason.CREDENTIALS_CORRUPT)
    if failed is None:
        return Draft("False", _lost_before(o) or Reason.NOT_PAIRED)
    reason = reason_of(failed.reason)
    if reason in _AUTH_REPORTS and not window:
        return Draft("False", reason, told(reason, failed.message or ""))
    return Draft("False", Reason.NOT_PAIRED, f"No device is linked. The last attempt failed. {why_failed(failed)}")


def _lost_before(o: Observed) -> Reason | None:
    """Why the device was lost for which another is to be linked, as long as nobody has asked for that."""
    before = next((found for found in o.session.status.conditions if found.type == ConditionType.AUTH_PAIRED), None)
    if before is None or before.status == "True" or before.reason not in _LOST:
        return None
    asked = o.session.status.relink.requested_at if o.session.status.relink is not None else None
    later = asked is not None and asked >= before.last_transition_time
    return None if later else Reason(before.reason)


def why_failed(attempt: PairingAttempt) -> str:
    """Why an attempt to pair has failed, for a person."""
    reason = reason_of(attempt.reason)
    if reason is None or reason is Reason.NOT_PAIRED:
        return attempt.message or "The phone has scanned, but the pairing was refused or not finished."
    return f"{reason}: {told(reason, attempt.message or '')}"


def connected(o: Observed) -> Draft:
    """Whether the socket is open and paired, as told by the pod that runs now."""
    pod, report = o.own_pod, o.live
    if pod is not None and pod.node_lost:
        return Draft("Unknown", Reason.NODE_LOST)
    if report is None and o.session.spec.suspend:
        # Whatever becomes of its pod: the last transition is the end of the connection.
        return Draft("False", Reason.SUSPENDED)
    if report is None:
        return Draft("Unknown", Reason.POD_NOT_READY)
    if report.machine is MachineState.CONNECTED and o.paired:
        return Draft("True", Reason.CONNECTED)
    if report.reason in _CONNECTED_REPORTS:
        return _reported(report)
    if not o.paired:
        return Draft("False", Reason.NOT_PAIRED)
    if report.machine is MachineState.FAILED:
        return Draft("False", Reason.CONNECTING, "Nothing is connected until the volume can be used.")
    reason = Reason.RECONNECTING if report.machine is MachineState.RECONNECTING else Reason.CONNECTING
    return Draft("False", reason)


def ready(o: Observed, drafts: Drafts, *, note: str | None = None) -> Draft:
    """Whether everything asked for is there; else the most specific reason."""
    draft = _ready(o, drafts)
    notes = (note, relink.wrong_token(o.session), desired.wrong_log_level(o.session))
    told_first = " ".join(note for note in notes if note is not None)
    if not told_first:
        return draft
    return Draft(draft.status, draft.reason, f"{told_first} {_fitted(draft, MESSAGE_BYTES - len(told_first) - 1)}")


def _fitted(draft: Draft, limit: int) -> str:
    """The text in so many bytes; what is cut off is the detail, not the remedy."""
    text, said = draft.text, sentence(draft.reason)
    if len(text.encode()) <= limit or not text.endswith(said):
        return bounded(text, limit)
    return f"{bounded(text.removesuffix(said).rstrip(), limit - len(said.encode()) - 1)} {said}"


def _ready(o: Observed, drafts: Drafts) -> Draft:
    if o.deleting:
        return Draft("False", Reason.DELETING)
    if o.invalid is not None:
        return Draft("False", Reason.INVALID_SPEC, told(Reason.INVALID_SPEC, o.invalid))
    if o.resting and not o.problems:
        if o.pod is None:
            return Draft("True", Reason.SUSPENDED)
        return Draft("False", Reason.PROGRESSING, "The session pod is being stopped.")
    found = {kind: drafts[kind] for kind in _ORDER}
    claimed, pod = found[ConditionType.PHONE_CLAIMED], found[ConditionType.POD_READY]
    qr, auth, conn = found[ConditionType.QR_READY], found[ConditionType.AUTH_PAIRED], found[ConditionType.CONNECTED]
    if claimed is None or pod is None or qr is None or auth is None or conn is None:
        raise ValueError("Ready is computed after the conditions that it sums up")
    if claimed.status != "True" and claimed.reason is not Reason.ATTEMPTS_EXHAUSTED:
        return Draft("False", claimed.reason, claimed.message)
    if pod.status != "True":
        return pod
    if conn.status == "True":
        return Draft("True", Reason.CONNECTED)
    if qr.status == "True":
        return Draft("False", Reason.WAITING_FOR_SCAN)
    waits = drafts[ConditionType.STALLED]
    if waits is not None:
        return Draft("False", waits.reason, waits.message)
    for draft, plain in ((qr, {Reason.NOT_NEEDED, Reason.STARTING, Reason.POD_NOT_READY}), (auth, {Reason.NOT_PAIRED})):
        if draft.status != "True" and draft.reason not in plain:
            return Draft("False", draft.reason, draft.message)
    return Draft("False", conn.reason, conn.message)


def stalled(o: Observed, drafts: Drafts) -> Draft | None:
    """Whether a person must act, and what they can do."""
    if o.deleting:
        return None
    if o.invalid is not None:
        return Draft("True", Reason.INVALID_SPEC, told(Reason.INVALID_SPEC, o.invalid))
    if o.resting and not o.problems:
        return None
    for kind in _ORDER:
        draft = drafts[kind]
        if draft is not None and draft.status != "True" and draft.reason in _STALLING:
            return Draft("True", draft.reason, draft.message)
    report = o.live
    reason = reason_of(report.reason) if report is not None else None
    if report is None or not _waits_for_a_person(report):
        return None
    if reason is None:
        # Of a newer session image.
        return Draft("True", Reason.HELD, _detail(Reason.HELD, report.reason or "", report.message or ""))
    return Draft("True", reason, told(reason, report.message or ""))


def _waits_for_a_person(report: SessionReport) -> bool:
    """The pod will try nothing more by itself, or nothing that can help."""
    retried = report.connection is not None and report.connection.next_retry_at is not None
    replaced = (report.connection.replaced if report.connection is not None else None) or 0
    if report.machine is MachineState.HELD:
        return not retried or (report.reason == Reason.STREAM_REPLACED and replaced >= _REPLACED_STALLING)
    return report.machine is MachineState.FAILED


def reconciling(o: Observed, drafts: Drafts) -> Draft | None:
    """Whether something is under way; never together with Stalled."""
    ready_draft, qr = drafts[ConditionType.READY], drafts[ConditionType.QR_READY]
    if o.deleting:
        return Draft("True", Reason.DELETING)
    if drafts[ConditionType.STALLED] is not None or (ready_draft is not None and ready_draft.status == "True"):
        return None
    if qr is not None and qr.status == "True":
        return Draft("True", Reason.WAITING_FOR_SCAN)
    return Draft("True", Reason.PROGRESSING)
