"""Faults: misbehaviour on demand, for one device, one phone, or all, once, several times, or until removed."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

from whatsapp_simulator.store import DeviceId


class FaultError(ValueError):
    """A fault described wrongly; the message names the field."""


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

_PHONE: Final = re.compile(r"\+?[0-9]+")

B = TypeVar("B", bound=Behaviour)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a fault concerns: everyone, one phone's devices, or one device."""

    number: str | None = None
    device: int | None = None

    def covers(self, number: str | None, device: int | None) -> bool:
        return self.number in (None, number) and self.device in (None, device)


@dataclass(slots=True)
class Fault:
    """A behaviour in force. `remaining` is None until removed by hand."""

    id: int
    behaviour: Behaviour
    scope: Scope
    remaining: int | None
    fired: int = 0

    def describe(self) -> dict[str, Any]:
        """The fault as the control API shows it."""
        return {
            "id": self.id,
            "kind": self.behaviour.kind,
            **{name: value for name, value in dataclasses.asdict(self.behaviour).items() if value is not None},
            "phone": self.scope.number,
            "device": self.scope.device,
            "remaining": self.remaining,
            "fired": self.fired,
        }


class Faults:
    """The faults in force, oldest first."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._ids = itertools.count(1)

    def add(self, behaviour: Behaviour, scope: Scope, times: int | None) -> Fault:
        fault = Fault(next(self._ids), behaviour, scope, times)
        self._faults[fault.id] = fault
        return fault

    def remove(self, identifier: int) -> bool:
        """Remove a fault; whether it was there."""
        return self._faults.pop(identifier, None) is not None

    def clear(self) -> None:
        self._faults.clear()

    def all(self) -> list[Fault]:
        return list(self._faults.values())

    def take(self, kind: type[B], number: str | None = None, device: int | None = None) -> B | None:
        """The behaviour to show to this phone or device now, counted as shown; None where no fault matches."""
        for fault in self._faults.values():
            if not isinstance(fault.behaviour, kind) or not fault.scope.covers(number, device):
                continue
            fault.fired += 1
            if fault.remaining is not None:
                fault.remaining -= 1
                if fault.remaining == 0:
                    del self._faults[fault.id]
            return fault.behaviour
        return None

    def take_for(self, kind: type[B], id: DeviceId | None) -> B | None:
        """As `take`; None is a client that no phone has linked yet."""
        return self.take(kind, id.number, id.device) if id else self.take(kind)


def parse(body: Mapping[str, Any]) -> tuple[Behaviour, Scope, int | None]:
    """Read `{kind, phone?, device?, times?, ...parameters}`. `times` is 1 unless given; null is until removed.

    Raises:
        FaultError: an unknown kind or field, or a value of the wrong type.
    """
    fields = dict(body)
    kind = KINDS.get(str(fields.pop("kind", "")))
    if kind is None:
        raise FaultError(f"kind must be one of {', '.join(sorted(KINDS))}")
    number, device, times = fields.pop("phone", None), fields.pop("device", None), fields.pop("times", 1)
    if number is not None and not (isinstance(number, str) and _PHONE.fullmatch(number)):
        raise FaultError("phone must be a string of digits; a plus may precede")
    if device is not None and (not _is_int(device) or device < 1 or number is None):
        raise FaultError("device must be a positive number, and needs phone")
    if times is not None and (not _is_int(times) or times < 1):
        raise FaultError("times must be a positive number, or null")
    for name, value in (("phone", number), ("device", device)):
        if value is not None and name not in kind.limits:
            raise FaultError(f"{kind.kind} cannot be limited to a {name}: the client is not known to be one yet")
    return _behaviour(kind, fields), Scope(number and number.removeprefix("+"), device), times


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _behaviour(kind: type[Behaviour], values: Mapping[str, Any]) -> Behaviour:
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise FaultError(f"{kind.kind} has no {name}")
        wants_number = "int" in str(known[name].type)
        if wants_number != _is_int(value) or not isinstance(value, (int, str)):
            raise FaultError(f"{name} must be a {'number' if wants_number else 'string'}")
        allowed = known[name].metadata.get("range")
        if allowed and value not in allowed:
            raise FaultError(f"{name} must be between {allowed[0]} and {allowed[-1]}")
    return kind(**values)
