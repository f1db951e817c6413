"""What the machine asks of the supervisor."""

from dataclasses import dataclass, field

from whatsapp_operator.session.model import Journal


@dataclass(frozen=True, slots=True)
class Save:
    journal: Journal


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """Answered by Opened or VolumeFailed."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Make the volume that of this session object."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """Answered by Inspected or VolumeFailed."""


@dataclass(frozen=True, slots=True)
class MoveAside:
    """Keep the unreadable credentials under another name; answered by Inspected or VolumeFailed."""


@dataclass(frozen=True, slots=True)
class Wipe:
    """Answered by Wiped or VolumeFailed."""


@dataclass(frozen=True, slots=True)
class StartWorker:
    display_name: str
    pair_phone: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Nothing more is heard of it."""


@dataclass(frozen=True, slots=True)
class LogOut:
    """Answered by the worker's LogoutDone."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Exactly one of QR and code is set; `expires_at` is of this very QR or code."""

    expires_at: float
    qr: str | None = field(default=None, repr=False)
    png: str | None = field(default=None, repr=False)
    code: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Conceal:
    """Clear the Secret."""


Command = Save | OpenVolume | Stamp | Inspect | MoveAside | Wipe | StartWorker | KillWorker | LogOut | Publish | Conceal
