"""What a plan is made of: one session and everything around it, at one moment, without a clock or a connection."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.api.models import SessionReport, WhatsAppSession
from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.controller.desired import parse_wish
from whatsapp_operator.controller.views import ClaimView, PodView, VolumeView

_JID_USER: Final = re.compile(r"([1-9][0-9]{6,14})[.:@]")


class Holder(StrEnum):
    """Who holds a phone claim, as seen from one session."""

    NOBODY = "nobody"
    OURS = "ours"
    # Not known to live: to be looked up before anything is taken from it.
    UNKNOWN = "unknown"
    GONE = "gone"
    # It lives, but has never paired the number.
    PROVISIONAL = "provisional"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim on one phone.

    Attributes:
        name: of the Lease.
        held_by: namespace/name of the holder, only if it is in the session's own namespace.
    """

    name: str
    holder: Holder = Holder.NOBODY
    lease: ClaimView | None = None
    held_by: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A write that was refused for good, until someone changes something; the message is for the person who does."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One session and everything around it.

    Attributes:
        invalid: why the object cannot be used as it is, naming the field.
        pod_age: seconds since this process first saw the pod.
        desired_age: the same of the pod's present desired state.
        deletion_age: seconds since it first saw the deletion; None if there is none.
        claims: by phone, for each phone that plays a part (`phones_of`).
        held: all claims that this session holds.
        namespace_ready: ServiceAccount and RoleBinding are there.
        secret_ready: the Secret is there and the session's own.
        secret_uid: of the Secret that this process has made.
        secret_gone: this process has deleted it.
        secret_taken: this process has found that the name is somebody else's.
        secret_missed: the pod has just reported that it is not there any more.
        namespace_terminating: None if nobody has asked yet.
        fresh: this very pass has added the finalizer.
        admitted: a rollout has a place for this session.
        primary_uid: uid of the tenant's primary session.
        rivals: uids of the tenant's other connected sessions, each after the time since when.
        problems: what went wrong in this very pass.
    """

    session: WhatsAppSession
    invalid: str | None = None
    pod: PodView | None = None
    pod_age: float = 0.0
    desired_age: float = 0.0
    volume: VolumeView | None = None
    claims: Mapping[str, Claim] = field(default_factory=dict)
    held: tuple[ClaimView, ...] = ()
    namespace_ready: bool = True
    secret_ready: bool = True
    secret_uid: str | None = None
    secret_gone: bool = False
    secret_taken: bool = False
    secret_missed: bool = False
    namespace_terminating: bool | None = None
    deletion_age: float | None = None
    fresh: bool = False
    admitted: bool = False
    primary_uid: str | None = None
    rivals: tuple[tuple[datetime, str], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def report(self) -> SessionReport | None:
        """The last report, of whichever pod."""
        return self.session.status.session

    @property
    def own_pod(self) -> PodView | None:
        """The pod, if it belongs to this very session and not to an earlier one of the same name."""
        return self.pod if self.pod is not None and self.pod.session_uid == self.session.metadata.uid else None

    @property
    def live(self) -> SessionReport | None:
        """The report, if it is of the pod that runs now, and of the container that runs now in it."""
        pod, report = self.own_pod, self.report
        if pod is None or report is None or report.pod_uid != pod.uid:
            return None
        if not pod.running or pod.deleting or pod.node_lost:
            return None
        if pod.started_at is not None and report.reported_at is not None and report.reported_at < pod.started_at:
            return None
        return report

    @property
    def paired(self) -> bool:
        """The volume holds credentials of a linked device, as far as was ever reported."""
        report = self.report
        if report is None:
            return False
        if report.credentials is None or report.credentials.present is None:
            return bool(self.session.status.auth_paired)
        return report.credentials.present and bool(report.credentials.valid)

    @property
    def expiring(self) -> bool:
        """A pod was told to remove the credentials of the session, which is suspended."""
        pod = self.own_pod
        if pod is None or pod.deleting:
            return False
        return self.session.spec.suspend and parse_wish(pod.desired_state).expire

    @property
    def resting(self) -> bool:
        """Suspended, and without anything left to be done."""
        return self.session.spec.suspend and not self.expiring

    @property
    def deleting(self) -> bool:
        return self.session.metadata.deletion_timestamp is not None

    @property
    def paused(self) -> bool:
        return self.session.metadata.annotations.get(names.ANNOTATION_PAUSED) == "true"


def phone_of_jid(jid: str | None) -> str | None:
    """The number in an address such as 15551230001:3@s.whatsapp.net, in E.164 form."""
    match = _JID_USER.match(jid or "")
    return f"+{match.group(1)}" if match else None


def linked_phone(session: WhatsAppSession) -> str | None:
    """The number whose credentials lie on the volume, as far as was ever reported."""
    status = session.status
    report = status.session
    known = status.phone if status.auth_paired else None
    if report is None or report.credentials is None or report.credentials.present is None:
        return known
    if not report.credentials.present:
        return None
    return phone_of_jid(report.device.jid if report.device is not None else None) or known
