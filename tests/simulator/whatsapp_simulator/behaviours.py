"""The kinds of misbehaviour that `POST /faults` knows, with their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a fault does. Fields are the parameters of `POST /faults`."""

    kind: ClassVar[str]
    limits: ClassVar[tuple[str, ...]] = ("phone", "device")
    """What the fault can be limited to: nothing before a client has said who it is, a phone while it links."""


def _within(lowest: int, highest: int) -> Mapping[str, range]:
    """Metadata of a number that `parse` checks."""
    return {"range": range(lowest, highest + 1)}


@dataclass(frozen=True, slots=True)
class RefuseDial(Behaviour):
    """The proxy answers CONNECT with this HTTP status."""

    kind: ClassVar[str] = "refuse-dial"
    limits: ClassVar[tuple[str, ...]] = ()
    status: int = field(default=503, metadata=_within(300, 599))


@dataclass(frozen=True, slots=True)
class FewRefs(Behaviour):
    """A registration gets at most this many references, so that the client soon runs out of QRs."""

    kind: ClassVar[str] = "few-refs"
    limits: ClassVar[tuple[str, ...]] = ()
    refs: int = field(default=1, metadata=_within(1, 100))


@dataclass(frozen=True, slots=True)
class CloseAfterFrames(Behaviour):
    """The connection is closed after this many frames from the client, those of the handshake not counted."""

    kind: ClassVar[str] = "close-after-frames"
    frames: int = field(default=1, metadata=_within(0, 1_000_000))


@dataclass(frozen=True, slots=True)
class Hang(Behaviour):
    """The connection stays open and nothing is answered any more: from the start, or from login where scoped."""

    kind: ClassVar[str] = "hang"


@dataclass(frozen=True, slots=True)
class Slow(Behaviour):
    """What the server sends is late by this much: from the start, or from login where scoped."""

    kind: ClassVar[str] = "slow"
    milliseconds: int = field(default=1000, metadata=_within(1, 600_000))

    @property
    def seconds(self) -> float:
        return self.milliseconds / 1000


@dataclass(frozen=True, slots=True)
class Failure(Behaviour):
    """A login or registration is answered by `<failure>`; `code` and `expire` (seconds) belong to reason 402."""

    kind: ClassVar[str] = "failure"
    reason: str = "503"
    code: str | None = None
    expire: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class StreamError(Behaviour):
    """A `<stream:error>`, now where a matching device is connected, otherwise after its next login."""

    kind: ClassVar[str] = "stream-error"
    code: str | None = None
    conflict: str | None = None


@dataclass(frozen=True, slots=True)
class Drop(Behaviour):
    """The connection is cut, now where a matching device is connected, otherwise after its next login."""

    kind: ClassVar[str] = "drop"


@dataclass(frozen=True, slots=True)
class IgnoreKeepalives(Behaviour):
    """A keepalive is not answered. Each one counts."""

    kind: ClassVar[str] = "ignore-keepalives"


@dataclass(frozen=True, slots=True)
class IgnorePreKeys(Behaviour):
    """A query about prekeys (namespace `encrypt`) is not answered, and not acted on. Each one counts."""

    kind: ClassVar[str] = "ignore-prekeys"


@dataclass(frozen=True, slots=True)
class Undecryptable(Behaviour):
    """A message reaches its reader damaged, unless the reader has asked for it again. Matches by the reader."""

    kind: ClassVar[str] = "undecryptable"


@dataclass(frozen=True, slots=True)
class ClockSkew(Behaviour):
    """The time that the server tells at login is off by this much; a negative one is in the past."""

    kind: ClassVar[str] = "clock-skew"
    seconds: int = field(default=3600, metadata=_within(-1_000_000_000, 1_000_000_000))


@dataclass(frozen=True, slots=True)
class RefuseCode(Behaviour):
    """A request for a pairing code is refused. Matches by the number that it is for; `text` follows from the code."""

    kind: ClassVar[str] = "refuse-code"
    limits: ClassVar[tuple[str, ...]] = ("phone",)
    code: int = field(default=429, metadata=_within(400, 599))
    text: str | None = None


@dataclass(frozen=True, slots=True)
class IgnoreCode(Behaviour):
    """A request for a pairing code is not answered. Matches by the number that it is for."""

    kind: ClassVar[str] = "ignore-code"
    limits: ClassVar[tuple[str, ...]] = ("phone",)


@dataclass(frozen=True, slots=True)
class BadHMAC(Behaviour):
    """`pair-success` has a wrong HMAC. Matches by the phone that scans."""

    kind: ClassVar[str] = "bad-hmac"
    limits: ClassVar[tuple[str, ...]] = ("phone",)


@dataclass(frozen=True, slots=True)
class BadAccountSignature(Behaviour):
    """`pair-success` has a right HMAC over a wrong account signature. Matches by the phone that scans."""

    kind: ClassVar[str] = "bad-account-signature"
    limits: ClassVar[tuple[str, ...]] = ("phone",)


@dataclass(frozen=True, slots=True)
class Obstacle(Behaviour):
    """The phone scans or takes the code, and does not link the client. Matches by that phone."""

    limits: ClassVar[tuple[str, ...]] = ("phone",)


@dataclass(frozen=True, slots=True)
class PhoneNeverFinishes(Obstacle):
    """Nothing more happens."""

    kind: ClassVar[str] = "phone-never-finishes"


@dataclass(frozen=True, slots=True)
class NoMultidevice(Obstacle):
    """The phone knows no linked devices, and the client is told."""

    kind: ClassVar[str] = "no-multidevice"


@dataclass(frozen=True, slots=True)
class Passkey(Obstacle):
    """The client is asked for a passkey of the account first."""

    kind: ClassVar[str] = "passkey"


KINDS: Final[dict[str, type[Behaviour]]] = {
    behaviour.kind: behaviour
    for behaviour in (
        RefuseDial,
        FewRefs,
        CloseAfterFrames,
        Hang,
        Slow,
        Failure,
        StreamError,
        Drop,
        IgnoreKeepalives,
        IgnorePreKeys,
        Undecryptable,
        ClockSkew,
        RefuseCode,
        IgnoreCode,
        BadHMAC,
        BadAccountSignature,
        PhoneNeverFinishes,
        NoMultidevice,
        Passkey,
    )
}
