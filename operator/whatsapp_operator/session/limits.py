"""How long the machine waits for what."""

from dataclasses import dataclass
from typing import Final

from whatsapp_operator.session.model import Cause

PATIENT: Final = frozenset({Cause.EXPIRED, Cause.PHONE_MISMATCH, Cause.PHONE_REJECTED})
"""Why credentials are removed without haste."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Durations in seconds."""

    connect: float = 45.0
    """To load the library, and from then on to a QR, a login or a failure; a black hole takes the library 30 s."""
    code: float = 20.0
    """From the first QR to a pairing code."""
    window: float = 160.0
    """WhatsApp offers six QRs, the first for `first_qr`, the others for `next_qr`."""
    first_qr: float = 60.0
    next_qr: float = 20.0
    window_grace: float = 5.0
    login: float = 20.0
    """From the scan to the login; the library reconnects by itself after the 515, or silently does not."""
    logins: int = 3
    sync: float = 240.0
    """From the server's consent to the end of the login, which waits 75 s for each of three answers at most."""
    ping: float = 5.0
    """Between two questions to the worker."""
    reconnect: float = 25.0
    """For the library to come back by itself after a disconnect."""
    keepalive: float = 40.0
    """For a keepalive to be answered again after one was not."""
    silence: float = 75.0
    """Without anything received; keepalives go every 20 to 30 s and are answered within 10."""
    logout: float = 10.0
    removal: float = 15.0
    """In all, from a request to remove the device to the wipe, when the server cannot be reached."""
    patient_removal: float = 120.0
    """The same where nobody waits for what comes after it, or the device is on a stranger's phone."""
    absorb: float = 60.0
    stable: float = 30.0
    """WhatsApp removes some devices 10 to 15 s after pairing; a login that lasts this long has come to stay."""
    calm: float = 60.0
    """A connection that lasted this long starts the backoff afresh."""
    note_use: float = 86_400.0
    """Between two notes on the volume that the connection goes on, for a process that is killed."""
    volume_retry: float = 10.0
    lock_retry: float = 0.5
    """The process that went before is about to end."""
    backoff_cap: float = 60.0
    relink_after_logout: float = 300.0
    relink_after_logout_cap: float = 21_600.0
    forget_logouts: float = 86_400.0
    replaced: float = 300.0
    replaced_cap: float = 21_600.0
    outdated: float = 3_600.0
    ban: float = 60.0
    """At least, whatever the server says."""
    ban_of_unknown_kind: float = 3_600.0
    """The library cannot tell for how long."""
    rate_limited: float = 300.0
    rate_limited_cap: float = 21_600.0

    def patience(self, cause: Cause) -> float:
        """How long a removal waits for the log-out at most."""
        return self.patient_removal if cause in PATIENT else self.removal


LIMITS: Final = Limits()
