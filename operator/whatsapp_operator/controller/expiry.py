"""When a suspended session gets a pod all the same: to remove credentials that lay unused for too long.

Only where spec.recovery.inactiveExpiry was set by hand. Of a session that is not suspended the pod itself decides.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from whatsapp_operator.api.models import Condition
from whatsapp_operator.api.reasons import ConditionType, Reason
from whatsapp_operator.controller.desired import duration_seconds
from whatsapp_operator.controller.observed import Observed

# More than a pod needs, whose image is pulled first, and which tries to log the device out.
GIVEN_UP_SECONDS: Final = 600.0
TRIED_AGAIN_SECONDS: Final = 86_400.0
# By then the status is written, which tells the next plan that the pod was given up.
TOLD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Expiry:
    """Whether the credentials have to go now, else after how many seconds to look again; None for not at all.

    Attributes:
        failed: a pod was given up that was to remove them.
    """

    now: bool = False
    after: float | None = None
    failed: bool = False


def decide(o: Observed, now: datetime) -> Expiry:
    """What becomes of the credentials of a suspended session, at `now` in UTC."""
    spec, report = o.session.spec, o.report
    present = report.credentials.present if report is not None and report.credentials is not None else None
    if not spec.suspend or spec.recovery.inactive_expiry is None or present is False:
        return Expiry()
    waits = _tried_again(o, now)
    if waits > 0:
        return Expiry(after=waits, failed=True)
    used = _last_used(o, now) if present else None
    unused = timedelta(seconds=duration_seconds(spec.recovery.inactive_expiry))
    left = (used + unused - now).total_seconds() if used is not None else None
    # A new pod does not know yet what is on its volume; once it reports, the removal may be under way.
    if o.expiring and (o.live is not None or left is None or left <= 0):
        patience = GIVEN_UP_SECONDS - o.pod_age
        return Expiry(now=True, after=patience) if patience > 0 else Expiry(now=True, after=TOLD_SECONDS, failed=True)
    if left is None or (o.own_pod is not None and not o.expiring):
        return Expiry()
    return Expiry(after=left) if left > 0 else Expiry(now=True)


def _tried_again(o: Observed, now: datetime) -> float:
    """Seconds until another pod tries what one was given up for, as status tells; 0 for at once."""
    pod_ready, stalled = _condition(o, ConditionType.POD_READY), _condition(o, ConditionType.STALLED)
    if pod_ready is None or stalled is None or pod_ready.reason != Reason.EXPIRY_FAILED:
        return 0.0
    if pod_ready.observed_generation != o.session.metadata.generation:
        return 0.0
    return TRIED_AGAIN_SECONDS - (now - stalled.last_transition_time).total_seconds()


def _last_used(o: Observed, now: datetime) -> datetime | None:
    """What is reported may be as old as the login: the end of the connection is what the operator has seen of it."""
    report = o.report
    if report is None or report.credentials is None:
        return None
    used = report.credentials.last_used_at or report.credentials.registered_at
    if used is None:
        return None
    seen = _condition(o, ConditionType.CONNECTED)
    if seen is not None and seen.status == "True":
        return now
    opened = report.connection.last_connected_at if report.connection is not None else None
    return max(used, opened or used, seen.last_transition_time if seen is not None else used)


def _condition(o: Observed, kind: ConditionType) -> Condition | None:
    return next((found for found in o.session.status.conditions if found.type == kind), None)
