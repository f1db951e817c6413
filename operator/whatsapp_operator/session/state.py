"""The state of the machine, and what is told of it."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from whatsapp_operator.api.reasons import MachineState, Reason
from whatsapp_operator.session.model import Credentials, Desired, Journal


class Phase(Enum):
    """What the machine is doing; MachineState is what it tells of it."""

    BOOTING = auto()  # the volume is being opened, the desired state awaited
    FAULTY = auto()  # the volume cannot be used
    IDLE = auto()  # no worker; one is started at `deadline`
    INSPECTING = auto()  # the credentials are looked at
    INSPECTED = auto()  # within a step only: settling starts the worker
    OPENING = auto()  # a worker logs in with credentials
    REQUESTING = auto()  # a worker asks for a QR or code
    SHOWING = auto()
    AUTHENTICATING = auto()  # scanned; the login is awaited
    CONNECTED = auto()
    RECONNECTING = auto()  # the worker reconnects by itself
    LOGGING_OUT = auto()
    WIPING = auto()
    HELD = auto()  # no worker; the journal's hold says why and until when
    UNLINKED = auto()


WITH_WORKER: Final = frozenset(
    {
        Phase.OPENING,
        Phase.REQUESTING,
        Phase.SHOWING,
        Phase.AUTHENTICATING,
        Phase.CONNECTED,
        Phase.RECONNECTING,
        Phase.LOGGING_OUT,
    }
)
WITH_LOGIN: Final = frozenset({Phase.OPENING, Phase.AUTHENTICATING, Phase.CONNECTED, Phase.RECONNECTING})


@dataclass(frozen=True, slots=True)
class Shown:
    """What the Secret shows; `published` once the API server has it."""

    code: bool
    since: float
    expires_at: float
    published: bool = False


@dataclass(frozen=True, slots=True)
class State:
    phase: Phase = Phase.BOOTING
    deadline: float | None = None
    """When the phase is over by itself."""
    desired: Desired | None = None
    opened: bool = False
    """The journal is that of the volume."""
    was_opened: bool = False
    """Since this process began; before, nothing is known of journal and credentials."""
    journal: Journal = field(default_factory=Journal)
    credentials: Credentials = field(default_factory=Credentials)
    shown: Shown | None = None
    worker_since: float | None = None
    first_qr: float | None = None
    """When the first QR came that stands behind a pairing code."""
    reached: bool = False
    """Something at the other end has taken this worker's connection."""
    let_in: bool = False
    """The server has said yes to this worker's login, which is not thereby finished."""
    doubted: bool = False
    """The connection is taken for lost because of a pong only."""
    connected_since: float | None = None
    was_connected: bool = False
    """Since this process began; a first login is no reconnect."""
    failures: int = 0
    """In a row, of connections and workers."""
    short_lived: int = 0
    """Connections in a row that did not last."""
    fault: Reason | None = None
    """Why the present phase is not what it should be."""
    detail: str = ""
    """A sentence of ours about the fault, free of values of the session; empty: the reason's own."""
    corrupt: bool = False
    """Credentials were moved aside and the device is not paired again yet."""
    left_behind: bool = False
    """A device could not be logged out before its credentials were wiped, and no other is paired yet."""


def machine_state(state: State) -> MachineState:
    """What the report calls the phase."""
    match state.phase:
        case Phase.BOOTING:
            return MachineState.STARTING
        case Phase.FAULTY:
            return MachineState.FAILED
        case Phase.SHOWING if state.shown is not None and state.shown.published:
            return MachineState.SHOWING_CODE if state.shown.code else MachineState.SHOWING_QR
        case Phase.AUTHENTICATING:
            return MachineState.AUTHENTICATING
        case Phase.CONNECTED:
            return MachineState.CONNECTED
        case Phase.RECONNECTING:
            return MachineState.RECONNECTING
        case Phase.HELD:
            return MachineState.HELD
        case Phase.UNLINKED:
            return MachineState.UNLINKED
        case Phase.LOGGING_OUT | Phase.WIPING:
            return MachineState.CONNECTING
        case _:
            return MachineState.RECONNECTING if state.was_connected else MachineState.CONNECTING


def machine_reason(state: State) -> Reason:
    """The most specific reason of the phase."""
    match state.phase:
        case Phase.CONNECTED:
            return Reason.CONNECTED
        case Phase.UNLINKED:
            return Reason.UNLINKED
        case Phase.SHOWING if state.shown is not None and state.shown.published:
            return Reason.CODE_AVAILABLE if state.shown.code else Reason.QR_AVAILABLE
        case _ if state.fault is not None:
            return state.fault
        case Phase.BOOTING | Phase.REQUESTING | Phase.SHOWING:
            return Reason.STARTING
        case _ if state.was_connected:
            return Reason.RECONNECTING
        case _:
            return Reason.CONNECTING
