"""What is written into the journal: pure functions of one journal to the next."""

from dataclasses import replace

from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.session.limits import Limits
from whatsapp_operator.session.model import (
    HISTORY_LENGTH,
    Credentials,
    FinishedAttempt,
    Hold,
    Journal,
)


def not_after(journal: Journal, now: float, limits: Limits) -> Journal:
    """The journal as if its past were past: a clock that was ahead has been set back since."""

    def past(moment: float | None) -> float | None:
        return None if moment is None else min(moment, now)

    attempt, hold, removal = journal.attempt, journal.hold, journal.removal
    if attempt is not None:
        attempt = replace(
            attempt,
            requested_at=min(attempt.requested_at, now),
            started_at=min(attempt.started_at, now),
            scanned_at=past(attempt.scanned_at),
            connected_at=past(attempt.connected_at),
        )
    if hold is not None and hold.until is not None and hold.since > now:
        hold = Hold(hold.reason, now + (hold.until - hold.since), now)
    if removal is not None and removal.until is not None:
        # A new process has all the time for the log-out, unless it was given up.
        removal = replace(removal, until=now if removal.gave_up else now + limits.patience(removal.cause))
    return replace(
        journal,
        attempt=attempt,
        hold=hold,
        removal=removal,
        registered_at=past(journal.registered_at),
        last_used_at=past(journal.last_used_at),
        last_connected_at=past(journal.last_connected_at),
    )


def taken_over(journal: Journal, credentials: Credentials) -> Journal:
    """The journal of a kept volume for a new object: what the earlier one was asked for and waited for is void."""
    hold, removal = journal.hold, journal.removal
    return replace(
        journal,
        attempts_used=0,
        expired=False,
        hold=hold if hold is not None and hold.until is not None else None,
        removal=removal if removal is not None and removal.logged_out else None,
        registered_at=journal.registered_at if credentials.present else None,
    )


def finished(journal: Journal, now: float, reason: Reason, *, succeeded: bool, message: str = "") -> Journal:
    """With the open attempt, if any, in the history; a failed one uses up one of the round."""
    attempt = journal.attempt
    if attempt is None:
        return journal
    scanned, connected = attempt.scanned_at, attempt.connected_at
    entry = FinishedAttempt(
        seq=journal.seq + 1,
        id=attempt.id,
        method=attempt.method,
        started_at=attempt.started_at,
        finished_at=now,
        succeeded=succeeded,
        reason=reason,
        seconds_to_qr=attempt.started_at - attempt.requested_at,
        seconds_to_scan=None if scanned is None else scanned - attempt.started_at,
        seconds_to_connected=None if connected is None or scanned is None else connected - scanned,
        message=message,
    )
    return replace(
        journal,
        attempt=None,
        seq=journal.seq + 1,
        succeeded=journal.succeeded + (1 if succeeded else 0),
        failed=journal.failed + (0 if succeeded else 1),
        attempts_used=0 if succeeded else journal.attempts_used + 1,
        history=(*journal.history, entry)[-HISTORY_LENGTH:],
    )
