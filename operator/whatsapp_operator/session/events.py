"""What the machine is told: the worker's events (wire.py) and those of the supervisor."""

from dataclasses import dataclass

from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.session import wire
from whatsapp_operator.session.model import Credentials, Desired, Journal


@dataclass(frozen=True, slots=True)
class Moment:
    """When, and the randomness a step may use: `jitter` in [0, 1), `token` a fresh random id for an attempt."""

    now: float
    jitter: float
    token: str


@dataclass(frozen=True, slots=True)
class DesiredChanged:
    desired: Desired


@dataclass(frozen=True, slots=True)
class Opened:
    """`kept`: the volume was that of an earlier session object; it is taken over by Stamp."""

    journal: Journal
    credentials: Credentials
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Inspected:
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class VolumeFailed:
    """`reason` is VolumeFull, VolumeReadOnly, VolumeForeign or CredentialsConflict (another process uses it)."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Wiped:
    pass


@dataclass(frozen=True, slots=True)
class Published:
    """The API server has taken what was last to be shown."""


@dataclass(frozen=True, slots=True)
class Concealed:
    """The Secret shows nothing."""


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """`status` is the HTTP status, 0 when the API server could not be reached; it is tried again."""

    status: int


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The worker ended, or hung and was killed."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline may have passed."""


Event = (
    wire.WorkerEvent
    | DesiredChanged
    | Opened
    | Inspected
    | VolumeFailed
    | Wiped
    | Published
    | Concealed
    | PublishFailed
    | WorkerExited
    | Tick
)
