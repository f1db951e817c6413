"""Messages between the supervisor and its worker: one JSON object a line, on a socket pair of their own.

Every message is a flat dataclass; on the wire it is its fields and its class name as `type`. Fields that hold
credentials or personal data are kept out of `repr`, so that no log line or traceback can show them.
"""

import json
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

T = TypeVar("T")

MAX_LINE: Final = 1 << 20
"""Longest line in bytes; a text message has at most 65,536 characters."""


class WireError(ValueError):
    """A line that is no message of this protocol."""


# Supervisor to worker.


@dataclass(frozen=True, slots=True)
class Start:
    """Open the connection; the first message, sent once. `pair_phone` (digits) asks for a pairing code, not a QR."""

    database: str
    display_name: str
    proxy_url: str | None = field(default=None, repr=False)
    pair_phone: str | None = field(default=None, repr=False)
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Logout:
    """Remove this device from the account; answered by `LogoutDone`."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a text; `to` is a number in digits. Answered by `SendDone` with the same request."""

    request: int
    to: str = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered by `Pong` with the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class Quit:
    """Close the connection and exit; only sent to a worker that is connected, others are killed."""


# Worker to supervisor.


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """The library is loaded and the connection is being opened."""

    library_version: str


@dataclass(frozen=True, slots=True)
class QRCode:
    """The next QR of the window; `png` is the picture in base64, empty when a pairing code was asked for."""

    text: str = field(repr=False)
    png: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PairingCode:
    """The code to enter on the phone, `XXXX-XXXX`."""

    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PairingCodeRefused:
    """`kind` is rate_limited, invalid_phone or other."""

    kind: str
    detail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PairingEnded:
    """The outcome of a pairing window, as the library names it.

    success, timeout, error, err-client-outdated, err-scanned-without-multidevice, err-unexpected-state or
    passkey-request. A connection that is lost during the window is a timeout, too.
    """

    status: str


@dataclass(frozen=True, slots=True)
class Paired:
    """A phone has scanned the QR or taken the code; the login follows."""

    jid: str = field(repr=False)
    lid: str = field(repr=False)
    platform: str
    business_name: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connected:
    """Logged in: the socket is open and the device is paired."""

    jid: str = field(repr=False)
    lid: str = field(repr=False)
    platform: str
    business_name: str = field(repr=False)
    push_name: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The socket was closed; the library reconnects by itself."""


@dataclass(frozen=True, slots=True)
class KeepAliveTimeout:
    errors: int


@dataclass(frozen=True, slots=True)
class KeepAliveRestored:
    pass


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """The server refuses the device; the library has deleted its credentials already."""

    main_device_gone: bool


@dataclass(frozen=True, slots=True)
class TemporaryBan:
    code: int
    seconds: int


@dataclass(frozen=True, slots=True)
class ConnectFailure:
    """The server refused the login with a reason that is none of the above."""

    reason: str


@dataclass(frozen=True, slots=True)
class StreamError:
    code: str


@dataclass(frozen=True, slots=True)
class StreamReplaced:
    pass


@dataclass(frozen=True, slots=True)
class ClientOutdated:
    pass


@dataclass(frozen=True, slots=True)
class ConnectEnded:
    """connect() raised or returned: nothing more comes from this worker.

    `kind` is proxy, proxy_url, proxy_name, proxy_address, tls, clock, dns, network, storage, ban, refused or other;
    `status` is the HTTP status of a proxy's refusal, else 0.
    """

    kind: str
    status: int
    detail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LogoutDone:
    """`error` is empty when the server has removed the device."""

    error: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SendDone:
    """`error` is empty when the server has taken the message; `timestamp` in seconds since the epoch."""

    request: int
    message_id: str
    timestamp: int
    error: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A text message; `sender` is `+<number>`, or a LID where the number is not known."""

    message_id: str
    sender: str = field(repr=False)
    text: str = field(repr=False)
    timestamp: int


@dataclass(frozen=True, slots=True)
class Undecryptable:
    pass


@dataclass(frozen=True, slots=True)
class Pong:
    """`connected` and `logged_in` as the library says; the rest in seconds, None where it is not known.

    `silence` is the time since anything was received over TCP, `latency` that from the last thing sent to what came
    after it.
    """

    number: int
    connected: bool
    logged_in: bool
    silence: float | None = None
    latency: float | None = None


Command = Start | Logout | Send | Ping | Quit
WorkerEvent = (
    WorkerStarted
    | QRCode
    | PairingCode
    | PairingCodeRefused
    | PairingEnded
    | Paired
    | Connected
    | Disconnected
    | KeepAliveTimeout
    | KeepAliveRestored
    | LoggedOut
    | TemporaryBan
    | ConnectFailure
    | StreamError
    | StreamReplaced
    | ClientOutdated
    | ConnectEnded
    | LogoutDone
    | SendDone
    | MessageReceived
    | Undecryptable
    | Pong
)

_COMMANDS: Final[dict[str, type[Command]]] = {cls.__name__: cls for cls in (Start, Logout, Send, Ping, Quit)}
_EVENTS: Final[dict[str, type[WorkerEvent]]] = {
    cls.__name__: cls
    for cls in (
        WorkerStarted,
        QRCode,
        PairingCode,
        PairingCodeRefused,
        PairingEnded,
        Paired,
        Connected,
        Disconnected,
        KeepAliveTimeout,
        KeepAliveRestored,
        LoggedOut,
        TemporaryBan,
        ConnectFailure,
        StreamError,
        StreamReplaced,
        ClientOutdated,
        ConnectEnded,
        LogoutDone,
        SendDone,
        MessageReceived,
        Undecryptable,
        Pong,
    )
}


def encode(message: Command | WorkerEvent) -> bytes:
    """One line, newline included."""
    document: dict[str, Any] = {f.name: getattr(message, f.name) for f in fields(message)}
    return json.dumps({"type": type(message).__name__, **document}, separators=(",", ":")).encode() + b"\n"


def decode_command(line: bytes) -> Command:
    """Raises WireError."""
    return _decode(line, _COMMANDS)


def decode_event(line: bytes) -> WorkerEvent:
    """Raises WireError."""
    return _decode(line, _EVENTS)


def _decode(line: bytes, types: dict[str, type[T]]) -> T:
    # A line may hold a credential: no error quotes it, nor is chained to one that does.
    try:
        document = json.loads(line)
    except ValueError:
        raise WireError("a line that is not JSON") from None
    if not isinstance(document, dict):
        raise WireError("a line that is not an object")
    cls = types.get(str(document.pop("type", None)))
    if cls is None:
        raise WireError("a message of an unknown type")
    expected = {f.name: f.type for f in fields(cls)}  # type: ignore[arg-type]
    if document.keys() != expected.keys():
        raise WireError(f"{cls.__name__} with missing or unknown fields")
    for name, value in document.items():
        kind = expected[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):  # type: ignore[arg-type]
            raise WireError(f"{cls.__name__}.{name} has the wrong type")
    return cls(**document)
