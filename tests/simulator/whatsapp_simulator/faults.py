"""Faults: misbehaviour on demand, for one device, one phone, or all, once, several times, or until removed."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from whatsapp_simulator.behaviours import KINDS, Behaviour
from whatsapp_simulator.store import DeviceId

_PHONE: Final = re.compile(r"\+?[0-9]+")

B = TypeVar("B", bound=Behaviour)


class FaultError(ValueError):
    """A fault described wrongly; the message names the field."""


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
