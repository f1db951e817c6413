"""status.session: what the pod tells, and when it is written."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from whatsapp_operator.api.reasons import MachineState, Reason
from whatsapp_operator.session.kubernetes_api import ApiError
from whatsapp_operator.session.model import Attempt, FinishedAttempt
from whatsapp_operator.session.state import Phase, State, machine_reason, machine_state

logger = logging.getLogger(__name__)

# Bounds of the custom resource for what people choose themselves.
MAX_PLATFORM: Final = 64
MAX_NAME: Final = 256

LEFT_BEHIND: Final = (
    "The device that was linked before could not be logged out; it may still be on the phone's list of linked devices, "
    "and can be removed there."
)

TRANSIENT_DELAY: Final = 5.0
"""Seconds that a state on the way to another may last before it is worth a write."""
FOLLOWED_DELAY: Final = 1.0
"""Seconds until the operator is told that another desired state is followed, if nothing else is to be told before."""
RETRY_FIRST: Final = 0.5
RETRY_CAP: Final = 30.0

_TRANSIENT: Final = frozenset({MachineState.STARTING, MachineState.CONNECTING, MachineState.RECONNECTING})

Report = dict[str, Any]


def build(state: State, *, pod_uid: str, boot_id: str) -> Report:
    """The whole of status.session but for reportedAt; every key is there, null where there is nothing."""
    journal, credentials = state.journal, state.credentials
    waiting = state.phase in (Phase.IDLE, Phase.HELD)
    attempt, known = _visible_attempt(state), state.was_opened
    return {
        "podUID": pod_uid,
        "bootID": boot_id,
        "machine": machine_state(state).value,
        "reason": machine_reason(state).value,
        "message": _message(state),
        "credentials": {
            "present": credentials.present or state.corrupt if known else None,
            "valid": credentials.valid if known else None,
            "registeredAt": timestamp(journal.registered_at),
            # While it is connected: since when, for the notes that the journal takes are no news.
            "lastUsedAt": timestamp(state.connected_since or journal.last_used_at),
        },
        "device": {
            "jid": credentials.jid,
            "lid": credentials.lid,
            "platform": credentials.platform[:MAX_PLATFORM],
            "businessName": credentials.business_name[:MAX_NAME],
            "pushName": credentials.push_name[:MAX_NAME],
        }
        if credentials.valid
        else None,
        "connection": {
            "since": timestamp(state.connected_since),
            "lastConnectedAt": timestamp(journal.last_connected_at),
            "disconnects": journal.disconnects,
            "lastReason": journal.last_reason.value if journal.last_reason else None,
            "replaced": journal.replaced,
            "nextRetryAt": timestamp(state.deadline) if waiting else None,
        },
        "pairing": {
            "method": state.desired.pairing.method.value if state.desired else None,
            "state": _pairing_state(state, attempt),
            **_attempt(attempt),
            "seq": journal.seq if known else None,
            "succeeded": journal.succeeded if known else None,
            "failed": journal.failed if known else None,
            "history": [_finished(entry) for entry in journal.history] if known else None,
        },
        "desiredStateHash": state.desired.hash if state.desired else None,
        "relinkRequestID": journal.relink_request_id,
        "relinkOutcome": journal.relink_outcome.value if journal.relink_outcome else None,
    }


def _message(state: State) -> str:
    expired = state.phase is Phase.HELD and state.fault is Reason.EXPIRED
    if state.left_behind and not state.detail and (state.fault is None or expired):
        return LEFT_BEHIND
    return state.detail


def delay(report: Report, accepted: Report | None) -> float:
    """Seconds that the report may wait, given the one that the API server has.

    A state on the way to another waits, unless it ends a Connected or tells of a failure for the first time.
    """
    if accepted is not None and accepted["machine"] == MachineState.CONNECTED != report["machine"]:
        return 0.0
    if report["machine"] not in _TRANSIENT:
        return 0.0
    failed = report["message"] != "" or report["connection"]["nextRetryAt"] is not None
    told = accepted is not None and all(accepted[key] == report[key] for key in ("machine", "reason", "message"))
    if failed and not told:
        return 0.0
    followed = accepted is None or accepted["desiredStateHash"] == report["desiredStateHash"]
    return TRANSIENT_DELAY if followed else FOLLOWED_DELAY


def timestamp(seconds: float | None) -> str | None:
    """RFC 3339 in UTC, to the microsecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _visible_attempt(state: State) -> Attempt | None:
    """The open attempt, unless its window was lost with its worker."""
    attempt = state.journal.attempt
    if attempt is not None and attempt.scanned_at is None and state.phase is not Phase.SHOWING:
        return None
    return attempt


def _pairing_state(state: State, attempt: Attempt | None) -> str:
    journal = state.journal
    if attempt is not None and attempt.scanned_at is not None:
        return "Scanned" if attempt.connected_at is None else "Succeeded"
    if attempt is not None:
        return "Showing"
    if state.phase is Phase.REQUESTING:
        return "Requesting"
    if state.desired is not None and journal.attempts_used >= state.desired.pairing.attempts:
        return "Exhausted"
    if state.credentials.valid:
        return "Succeeded" if journal.history and journal.history[-1].succeeded else "Idle"
    return "Failed" if journal.history and not journal.history[-1].succeeded else "Idle"


def _attempt(attempt: Attempt | None) -> dict[str, Any]:
    return {
        "attempt": attempt.number if attempt else 0,
        "id": attempt.id if attempt else None,
        "startedAt": timestamp(attempt.started_at) if attempt else None,
        "expiresAt": timestamp(attempt.expires_at) if attempt else None,
    }


def _finished(entry: FinishedAttempt) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "id": entry.id,
        "method": entry.method.value,
        "startedAt": timestamp(entry.started_at),
        "finishedAt": timestamp(entry.finished_at),
        "result": "Succeeded" if entry.succeeded else "Failed",
        "reason": entry.reason.value,
        "message": entry.message,
        "secondsToQR": _rounded(entry.seconds_to_qr),
        "secondsToScan": _rounded(entry.seconds_to_scan),
        "secondsToConnected": _rounded(entry.seconds_to_connected),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


class Reporter:
    """Writes the last report until the API server has it; reports that come meanwhile replace it.

    `write` sends one report and raises ApiError; `now` is the clock of reportedAt.
    """

    def __init__(self, write: Callable[[Report], Awaitable[None]], now: Callable[[], float]) -> None:
        self._write = write
        self._now = now
        self._accepted: Report | None = None
        self._certain = True
        """No other report than the accepted one can have arrived since."""
        self._pending: Report | None = None
        self._due = 0.0
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()
        self.written = 0
        self.failed = 0

    def update(self, report: Report) -> None:
        if report == self._accepted and self._certain:
            self._pending = None
            return
        due = asyncio.get_running_loop().time() + delay(report, self._accepted)
        self._due = due if self._pending is None else min(due, self._due)
        self._pending = report
        self._changed.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        retry_at = 0.0
        while True:
            if self._pending is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            wait = max(self._due, retry_at) - loop.time()
            if wait > 0:
                self._changed.clear()
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            if await self._send():
                failures = 0
            else:
                failures += 1
                backoff = min(RETRY_FIRST * 2.0 ** min(failures - 1, 16), RETRY_CAP)
                retry_at = loop.time() + backoff * random.uniform(0.8, 1.0)  # noqa: S311

    async def flush(self) -> None:
        """One more try for what is not written yet, at once."""
        if self._pending is not None:
            await self._send()

    async def _send(self) -> bool:
        async with self._sending:
            report = self._pending
            if report is None:
                return True
            self._certain = False
            try:
                await self._write({**report, "reportedAt": timestamp(self._now())})
            except ApiError as error:
                self.failed += 1
                logger.warning("the report was not accepted: %s", error)
                return False
            self.written += 1
            self._accepted, self._certain = report, True
            if self._pending is report or self._pending == report:
                self._pending = None
            return True
