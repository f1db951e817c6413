"""What each thing that a session pod can report becomes; written from the contract of the custom resource."""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from tests.unit.controller.builders import PHONE, linked, observed, pod, report, session
from whatsapp_operator.api.reasons import EXPLANATIONS, ConditionType, MachineState, Reason
from whatsapp_operator.controller import conditions
from whatsapp_operator.controller.conditions import Draft

CLAIMED = Draft("True", Reason.CLAIMED)
CONFLICT = Draft("False", Reason.PHONE_CLAIM_CONFLICT)
UNDER_WAY, ACT = ConditionType.RECONCILING, ConditionType.STALLED
LATER = "2026-11-21T11:00:00Z"
READY = ("True", "Connected")


class Row(NamedTuple):
    """A report, and the reasons that follow; a condition is False but for those that say True.

    Attributes:
        paired: the report tells of a linked device.
        retried: it tells when the next try is made.
        abnormal: which of Reconciling and Stalled is True; None for neither.
        rest: other parts of the report.
    """

    machine: str
    reason: str
    paired: bool
    retried: bool
    auth: str
    qr: str
    connected: str
    ready: str
    abnormal: ConditionType | None
    claimed: Draft = CLAIMED
    pod_ready: str = "PodReady"
    rest: tuple[tuple[str, Any], ...] = ()


TRUE = {"Paired", "QRAvailable", "CodeAvailable", "Connected", "PodReady"}


def failed(reason: str) -> tuple[tuple[str, Any], ...]:
    return (("pairing", {"history": [{"seq": 1, "result": "Failed", "reason": reason}]}),)


def replaced(times: int) -> tuple[tuple[str, Any], ...]:
    return (("connection", {"replaced": times, "nextRetryAt": LATER}),)


def rows() -> Iterator[Row]:
    # On the way.
    for reason in ("Starting", "PodNotReady"):
        yield Row("Starting", reason, True, False, "Paired", "NotNeeded", "Connecting", "Connecting", UNDER_WAY)
        yield Row("Starting", reason, False, False, "NotPaired", "Starting", "NotPaired", "NotPaired", UNDER_WAY)
    yield Row("Connected", "Connected", True, False, "Paired", "NotNeeded", "Connected", "Connected", None)
    for reason in ("Connecting", "Reconnecting"):
        yield Row("Authenticating", reason, True, False, "Paired", "NotNeeded", reason, reason, UNDER_WAY)
    # Machine Reconnecting is Connecting after a first login.
    for machine, retried in product(("Connecting", "Reconnecting"), (True, False)):
        for reason in ("ConnectFailure", "ProxyFailed", "KeepAliveTimeout", machine):
            yield Row(machine, reason, True, retried, "Paired", "NotNeeded", reason, reason, UNDER_WAY)
            yield Row(machine, reason, False, retried, "NotPaired", "Starting", reason, reason, UNDER_WAY)
        for reason in ("Starting", "ConfigMissing"):
            yield Row(machine, reason, False, retried, "NotPaired", "Starting", "NotPaired", "NotPaired", UNDER_WAY)
        # The device is logged out, or the credentials are gone; a new pairing follows.
        for reason in ("PhoneMismatch", "MainDeviceGone", "CredentialsCorrupt"):
            yield Row(machine, reason, False, retried, reason, "Starting", "NotPaired", reason, UNDER_WAY)
        yield Row(machine, "LoggedOut", False, retried, "LoggedOut", "Starting", "LoggedOut", "LoggedOut", UNDER_WAY)
        yield Row(machine, "Expired", False, retried, "Expired", "Expired", "NotPaired", "Expired", UNDER_WAY)
        # Its device is being logged out again.
        yield Row(
            machine,
            "PhoneClaimConflict",
            *(True, retried, "Paired", "NotNeeded", machine, "PhoneClaimConflict", ACT),
            claimed=CONFLICT,
        )
        # A window has passed, or a scan was refused.
        yield Row(
            machine,
            "Expired",
            *(False, retried, "NotPaired", "Expired", "NotPaired", "Expired", UNDER_WAY),
            rest=failed("Expired"),
        )
        yield Row(
            machine,
            "NotPaired",
            *(False, retried, "NotPaired", "Starting", "NotPaired", "NotPaired", UNDER_WAY),
            rest=failed("NotPaired"),
        )
        # WhatsApp says so while a device is still to be logged out.
        for reason in ("StreamReplaced", "TemporaryBan"):
            yield Row(machine, reason, True, retried, "Paired", "NotNeeded", reason, reason, UNDER_WAY)
    # A person is to scan.
    for machine, reason in (("ShowingQR", "QRAvailable"), ("ShowingCode", "CodeAvailable")):
        yield Row(machine, reason, False, False, "NotPaired", reason, "NotPaired", "WaitingForScan", UNDER_WAY)
        for last in ("PhoneMismatch", "LoggedOut", "MainDeviceGone", "CredentialsCorrupt"):
            yield Row(
                machine,
                reason,
                *(False, False, last, reason, "NotPaired", "WaitingForScan", UNDER_WAY),
                rest=failed(last),
            )
    yield Row(
        "ShowingQR",
        "QRAvailable",
        *(False, False, "CredentialsCorrupt", "QRAvailable", "NotPaired", "WaitingForScan", UNDER_WAY),
        rest=(("credentials", {"present": True, "valid": False}),),
    )
    # It waits for a time.
    yield Row("Held", "TemporaryBan", True, True, "Paired", "NotNeeded", "TemporaryBan", "TemporaryBan", UNDER_WAY)
    yield Row("Held", "RateLimited", False, True, "NotPaired", "RateLimited", "NotPaired", "RateLimited", UNDER_WAY)
    yield Row("Held", "LoggedOut", False, True, "LoggedOut", "Starting", "LoggedOut", "LoggedOut", UNDER_WAY)
    yield Row(
        "Held", "MainDeviceGone", False, True, "MainDeviceGone", "Starting", "NotPaired", "MainDeviceGone", UNDER_WAY
    )
    for times in (0, 1, 2):
        yield Row(
            "Held",
            "StreamReplaced",
            *(True, True, "Paired", "NotNeeded", "StreamReplaced", "StreamReplaced", UNDER_WAY),
            rest=replaced(times),
        )
    # It waits for a time, but not without a person.
    for times in (3, 7):
        yield Row(
            "Held",
            "StreamReplaced",
            *(True, True, "Paired", "NotNeeded", "StreamReplaced", "StreamReplaced", ACT),
            rest=replaced(times),
        )
    for is_paired, auth, qr in ((True, "Paired", "NotNeeded"), (False, "NotPaired", "Starting")):
        yield Row("Held", "ClientOutdated", is_paired, True, auth, qr, "ClientOutdated", "ClientOutdated", ACT)
    # It waits for a person.
    for reason in ("AttemptsExhausted", "PasskeyRequired", "InvalidSpec"):
        yield Row("Held", reason, False, False, "NotPaired", reason, "NotPaired", reason, ACT)
    yield Row("Held", "LoggedOut", False, False, "LoggedOut", "Starting", "LoggedOut", "LoggedOut", ACT)
    yield Row("Held", "MainDeviceGone", False, False, "MainDeviceGone", "Starting", "NotPaired", "MainDeviceGone", ACT)
    yield Row("Held", "Expired", False, False, "Expired", "Expired", "NotPaired", "Expired", ACT)
    yield Row(
        "Held",
        "PhoneClaimConflict",
        *(False, False, "NotPaired", "Starting", "NotPaired", "PhoneClaimConflict", ACT),
        claimed=CONFLICT,
    )
    # The volume cannot be used; nothing is known of the credentials but what was before.
    for reason, before in product(("VolumeFull", "VolumeReadOnly", "VolumeForeign"), (True, False)):
        auth, qr = ("Paired", "NotNeeded") if before else ("NotPaired", "Starting")
        conn = "Connecting" if before else "NotPaired"
        yield Row("Failed", reason, before, False, auth, qr, conn, reason, ACT, pod_ready=reason)
    yield Row(
        "Failed",
        "CredentialsConflict",
        *(True, False, "CredentialsConflict", "NotNeeded", "Connecting", "CredentialsConflict", ACT),
    )
    yield Row("Unlinked", "Unlinked", False, False, "Unlinked", "Starting", "NotPaired", "Unlinked", UNDER_WAY)


ROWS = list(rows())


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{number}-{row.machine}-{row.reason}") for number, row in enumerate(ROWS)]
)
def test_every_report_becomes_what_the_contract_says(row: Row) -> None:
    body = report(row.machine, row.reason, connection={"nextRetryAt": LATER if row.retried else None})
    status: dict[str, Any] = {}
    if row.machine == "Failed":
        body["credentials"] = {}
        status = {"authPaired": row.paired, "phone": PHONE} if row.paired else {}
    elif row.paired:
        body |= linked()
    of = session(status={**status, "session": body | dict(row.rest)})
    drafts = conditions.compute(observed(of, pod=pod()), row.claimed)
    expected = {
        ConditionType.POD_READY: row.pod_ready,
        ConditionType.AUTH_PAIRED: row.auth,
        ConditionType.QR_READY: row.qr,
        ConditionType.CONNECTED: row.connected,
        ConditionType.READY: row.ready,
    }
    for kind, reason in expected.items():
        draft = drafts[kind]
        assert draft is not None
        assert (kind, draft.status, draft.reason) == (kind, "True" if reason in TRUE else "False", reason)
    abnormal = [kind for kind in (UNDER_WAY, ACT) if drafts[kind] is not None]
    assert abnormal == ([row.abnormal] if row.abnormal is not None else [])
    stalled = drafts[ACT]
    if stalled is not None:
        assert stalled.reason == row.ready
        remedy = EXPLANATIONS[stalled.reason].remedy
        assert remedy
        assert stalled.text.endswith(remedy)


def test_every_state_and_every_reason_of_a_machine_is_in_the_table() -> None:
    assert {row.machine for row in ROWS} == {machine.value for machine in MachineState}
    # These are the operator's own: what it sees of the pod and of claims, and what it sums up.
    others = {
        *("Claimed", "NotDeclared", "HeldByOther", "PodReady", "PodPending", "ImagePullFailed", "VolumePending"),
        *("Unschedulable", "PodFailed", "NodeLost", "Suspended", "CrashLooping", "PodRejected", "ExpansionRefused"),
        *("NameConflict", "ExpiryFailed", "Held", "NotNeeded", "Paired", "WaitingForScan", "Progressing", "Deleting"),
    }
    assert {row.reason for row in ROWS} == {reason.value for reason in Reason} - others
