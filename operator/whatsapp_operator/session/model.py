"""What the session pod knows: the desired state, the credentials found, and the journal that survives restarts.

Plain immutable data with its JSON form; no I/O. Times are seconds since the epoch.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from whatsapp_operator.api.names import desired_state_hash
from whatsapp_operator.api.reasons import PairingMethod, Reason, RelinkOutcome

HISTORY_LENGTH: Final = 10


class DocumentError(ValueError):
    """A document that cannot be understood; the text holds none of its values."""


@dataclass(frozen=True, slots=True)
class PairingSpec:
    method: PairingMethod = PairingMethod.QR_CODE
    attempts: int = 3
    display_name: str = "Chrome (Linux)"


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired-state document of docs/architecture.md."""

    phone: str | None = field(default=None, repr=False)
    pairing: PairingSpec = field(default_factory=PairingSpec)
    relink_on_logout: bool = True
    inactive_expiry: float = 7_776_000.0
    relink_request_id: str | None = None
    rejected_phone: str | None = field(default=None, repr=False)
    unlink: bool = False
    expire: bool = False
    log_level: str | None = None
    """None: that of the environment."""
    hash: str = ""
    """Of the document, see api.names.desired_state_hash."""

    @property
    def window(self) -> tuple[PairingMethod, str, str | None]:
        """What a pairing window is shown for; another one needs another window."""
        phone = self.phone if self.pairing.method is PairingMethod.PAIRING_CODE else None
        return (self.pairing.method, self.pairing.display_name, phone)


def parse_desired(text: str) -> Desired:
    """Raises DocumentError. Unknown keys are left alone: a newer operator may say more than this pod knows."""
    try:
        document = json.loads(text)
        pairing, recovery = document["pairing"], document["recovery"]
        return Desired(
            phone=_optional_text(document.get("phone")),
            pairing=PairingSpec(
                method=PairingMethod(pairing["method"]),
                attempts=int(pairing["attempts"]),
                display_name=str(pairing["displayName"]),
            ),
            relink_on_logout={"Relink": True, "Hold": False}[recovery["onLoggedOut"]],
            inactive_expiry=float(recovery["inactiveExpirySeconds"]),
            relink_request_id=_optional_text(document.get("relinkRequestID")),
            rejected_phone=_optional_text(document.get("rejectedPhone")),
            unlink=document.get("unlink", False) is True,
            expire=document.get("expire", False) is True,
            log_level=_optional_text(document.get("logLevel")),
            hash=desired_state_hash(text),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError(f"the desired state cannot be read ({type(error).__name__})") from None


def _optional_text(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise TypeError
    return value


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the credential database holds. `valid`: it could be read and holds one registered device."""

    present: bool = False
    valid: bool = False
    jid: str = field(default="", repr=False)
    lid: str = field(default="", repr=False)
    platform: str = ""
    business_name: str = field(default="", repr=False)
    push_name: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A pairing window that is open, or scanned and not yet proven to last."""

    id: str
    method: PairingMethod
    number: int
    requested_at: float
    started_at: float
    expires_at: float
    scanned_at: float | None = None
    connected_at: float | None = None
    logins: int = 0
    """Logins after the scan that came to nothing."""


@dataclass(frozen=True, slots=True)
class FinishedAttempt:
    seq: int
    id: str
    method: PairingMethod
    started_at: float
    finished_at: float
    succeeded: bool
    reason: Reason
    seconds_to_qr: float | None
    seconds_to_scan: float | None
    seconds_to_connected: float | None
    message: str = ""
    """A sentence of ours where there is more to say than the reason does."""


class Cause(StrEnum):
    """Why credentials are removed; it decides what follows."""

    RELINK = "Relink"
    UNLINK = "Unlink"
    PHONE_CHANGED = "PhoneChanged"
    PHONE_MISMATCH = "PhoneMismatch"
    PHONE_REJECTED = "PhoneRejected"
    LOGGED_OUT = "LoggedOut"
    MAIN_DEVICE_GONE = "MainDeviceGone"
    NEVER_LOGGED_IN = "NeverLoggedIn"
    EXPIRED = "Expired"


@dataclass(frozen=True, slots=True)
class Removal:
    """A removal of the credentials that has begun: the device is logged out if possible, then they are wiped.

    It is in the journal before anything is done, so that a crash at any point continues it. `cause` says why and
    what follows; `until` is when the wipe no longer waits for the log-out, None: it waits for ever; `logged_out`: the
    server knows the device no longer; `gave_up`: the wipe did not wait any longer, and the device may be known still.
    """

    cause: Cause
    until: float | None
    logged_out: bool = False
    request_id: str | None = None
    gave_up: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """No connection is tried: from `since` until a time, or (None) until something is asked for."""

    reason: Reason
    until: float | None
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Journal:
    """What survives restarts and wipes, on the volume."""

    seq: int = 0
    succeeded: int = 0
    failed: int = 0
    history: tuple[FinishedAttempt, ...] = ()
    attempts_used: int = 0
    attempt: Attempt | None = None
    relink_request_id: str | None = None
    relink_outcome: RelinkOutcome | None = None
    removal: Removal | None = None
    hold: Hold | None = None
    secret_shown: bool = False
    registered_at: float | None = None
    last_used_at: float | None = None
    last_connected_at: float | None = None
    disconnects: int = 0
    last_reason: Reason | None = None
    logouts: int = 0
    """Times the phone removed the device since the last relink or long connection; spaces out new pairings."""
    replaced: int = 0
    """Times in a row that another client took the connection over."""
    rate_limited: int = 0
    expired: bool = False
    """The request for expiry that the desired state holds was done."""


JOURNAL_VERSION: Final = 1


def dump_journal(journal: Journal) -> str:
    return json.dumps({"version": JOURNAL_VERSION, **asdict(journal)}, indent=1)


def load_journal(text: str) -> Journal:
    """Raises DocumentError.

    Keys of a newer image are left alone and those that an older one did not know have their defaults: what is added to
    the journal or a part of it needs a default, and no new version.
    """
    try:
        document = json.loads(text)
        if document["version"] != JOURNAL_VERSION:
            raise ValueError
        attempt, removal, hold = (document.get(key) for key in ("attempt", "removal", "hold"))
        outcome, last_reason = document.get("relink_outcome"), document.get("last_reason")
        return Journal(
            **{
                **_known(Journal, document),
                "history": tuple(_finished(entry) for entry in document.get("history", ())),
                "attempt": Attempt(**{**_known(Attempt, attempt), "method": PairingMethod(attempt["method"])})
                if attempt
                else None,
                "removal": Removal(**{**_known(Removal, removal), "cause": Cause(removal["cause"])})
                if removal
                else None,
                "hold": Hold(**{**_known(Hold, hold), "reason": Reason(hold["reason"])}) if hold else None,
                "relink_outcome": RelinkOutcome(outcome) if outcome else None,
                "last_reason": Reason(last_reason) if last_reason else None,
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError(f"the journal cannot be read ({type(error).__name__})") from None


def _finished(entry: dict[str, Any]) -> FinishedAttempt:
    known = _known(FinishedAttempt, entry)
    return FinishedAttempt(**{**known, "method": PairingMethod(entry["method"]), "reason": Reason(entry["reason"])})


def _known(kind: type, document: dict[str, Any]) -> dict[str, Any]:
    """The part of the document that the data class has fields for."""
    return {known.name: document[known.name] for known in fields(kind) if known.name in document}
