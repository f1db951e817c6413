"""When a suspended session gets a pod all the same: to remove credentials that lay unused for too long.

Only where spec.recovery.inactiveExpiry was set by hand. Of a session that is not suspended the pod itself decides.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from whatsapp_operator.api.reasons import ConditionType, MachineState
from whatsapp_operator.controller.desired import duration_seconds
from whatsapp_operator.controller.observed import Observed


@dataclass(frozen=True, slots=True)
class Expiry:
    """Whether the credentials have to go now, else after how many seconds to look again; None for not at all."""

    now: bool = False
    after: float | None = None


def decide(o: Observed, now: datetime) -> Expiry:
    """What becomes of the credentials of a suspended session, at `now` in UTC."""
    spec, report = o.session.spec, o.report
    present = report.credentials.present if report is not None and report.credentials is not None else None
    if not spec.suspend or spec.recovery.inactive_expiry is None or present is False:
        return Expiry()
    if o.expiring:
        # Also while the new pod does not know yet what is on its volume.
        return Expiry(now=True)
    used = _last_used(o, now)
    if not present or used is None or o.own_pod is not None:
        return Expiry()
    left = (used + timedelta(seconds=duration_seconds(spec.recovery.inactive_expiry)) - now).total_seconds()
    return Expiry(after=left) if left > 0 else Expiry(now=True)


def _last_used(o: Observed, now: datetime) -> datetime | None:
    report = o.report
    if report is None or report.credentials is None:
        return None
    used = report.credentials.last_used_at or report.credentials.registered_at
    if used is None or report.machine is not MachineState.CONNECTED:
        return used
    # The pod ended without a word, so the connection was in use until its end was seen.
    seen = next((found for found in o.session.status.conditions if found.type == ConditionType.CONNECTED), None)
    return now if seen is None or seen.status == "True" else max(used, seen.last_transition_time)
