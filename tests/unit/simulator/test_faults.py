"""How faults are described, whom they concern, and how often they show."""

from typing import Any

import pytest

from whatsapp_simulator.behaviours import (
    KINDS,
    BadHMAC,
    Behaviour,
    ClockSkew,
    CloseAfterFrames,
    Drop,
    Failure,
    FewRefs,
    IgnoreKeepalives,
    IgnorePreKeys,
    RefuseCode,
    RefuseDial,
    StreamError,
)
from whatsapp_simulator.binary.node import Node
from whatsapp_simulator.fault_stanzas import failure_node, is_first_copy, silencer, stream_error_node
from whatsapp_simulator.faults import FaultError, Faults, Scope, parse


@pytest.mark.parametrize(
    ("body", "parsed"),
    [
        ({"kind": "drop"}, (Drop(), Scope(), 1)),
        ({"kind": "drop", "times": None}, (Drop(), Scope(), None)),
        ({"kind": "drop", "phone": "+15551230001", "times": 3}, (Drop(), Scope("15551230001"), 3)),
        ({"kind": "drop", "phone": "15551230001", "device": 2}, (Drop(), Scope("15551230001", 2), 1)),
        ({"kind": "refuse-dial", "status": 407}, (RefuseDial(407), Scope(), 1)),
        ({"kind": "close-after-frames", "frames": 0}, (CloseAfterFrames(0), Scope(), 1)),
        (
            {"kind": "failure", "reason": "402", "code": "101", "expire": 60},
            (Failure("402", "101", 60), Scope(), 1),
        ),
        ({"kind": "clock-skew", "seconds": -60}, (ClockSkew(-60), Scope(), 1)),
        ({"kind": "few-refs", "refs": 2}, (FewRefs(2), Scope(), 1)),
        (
            {"kind": "refuse-code", "phone": "15551230001", "code": 403},
            (RefuseCode(403), Scope("15551230001"), 1),
        ),
        ({"kind": "stream-error", "conflict": "replaced"}, (StreamError(None, "replaced"), Scope(), 1)),
    ],
)
def test_faults_as_described(body: dict[str, Any], parsed: tuple[Behaviour, Scope, int | None]) -> None:
    assert parse(body) == parsed


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({}, "kind must be one of"),
        ({"kind": "unknown"}, "kind must be one of"),
        ({"kind": "drop", "times": 0}, "times"),
        ({"kind": "drop", "times": True}, "times"),
        ({"kind": "drop", "phone": 1}, "phone must be a string"),
        ({"kind": "drop", "phone": "+1 555"}, "phone must be a string of digits"),
        ({"kind": "drop", "device": 1}, "needs phone"),
        ({"kind": "drop", "phone": "15551230001", "device": 0}, "device must be a positive number"),
        ({"kind": "drop", "reason": "401"}, "drop has no reason"),
        ({"kind": "failure", "reason": 401}, "reason must be a string"),
        ({"kind": "failure", "expire": "soon"}, "expire must be a number"),
        ({"kind": "close-after-frames", "frames": True}, "frames must be a number"),
        ({"kind": "close-after-frames", "frames": -1}, "frames must be between 0 and"),
        ({"kind": "refuse-dial", "status": 200}, "status must be between 300 and 599"),
        ({"kind": "slow", "milliseconds": 0}, "milliseconds must be between 1 and"),
        ({"kind": "slow", "seconds": 1}, "slow has no seconds"),
        ({"kind": "few-refs", "refs": 0}, "refs must be between 1 and"),
        ({"kind": "few-refs", "phone": "15551230001"}, "cannot be limited to a phone"),
        ({"kind": "refuse-code", "code": "429"}, "code must be a number"),
        ({"kind": "refuse-code", "code": 200}, "code must be between 400 and 599"),
        ({"kind": "refuse-code", "text": 1}, "text must be a string"),
        ({"kind": "refuse-dial", "phone": "15551230001"}, "cannot be limited to a phone"),
        ({"kind": "bad-hmac", "phone": "15551230001", "device": 1}, "cannot be limited to a device"),
    ],
)
def test_faults_described_wrongly_name_the_field(body: dict[str, Any], cause: str) -> None:
    with pytest.raises(FaultError, match=cause):
        parse(body)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_defaults_and_can_be_listed(kind: str) -> None:
    faults = Faults()
    fault = faults.add(*parse({"kind": kind}))
    assert fault.describe()["kind"] == kind
    assert [listed.id for listed in faults.all()] == [fault.id]


@pytest.mark.parametrize(
    ("scope", "number", "device", "covered"),
    [
        (Scope(), None, None, True),
        (Scope(), "1", 2, True),
        (Scope("1"), "1", 2, True),
        (Scope("1"), "2", 2, False),
        (Scope("1"), None, None, False),
        (Scope("1", 2), "1", 2, True),
        (Scope("1", 2), "1", 3, False),
        (Scope("1", 2), "1", None, False),
    ],
)
def test_whom_a_fault_concerns(scope: Scope, number: str | None, device: int | None, covered: bool) -> None:
    faults = Faults()
    faults.add(Drop(), scope, None)
    assert (faults.take(Drop, number, device) is not None) is covered


def test_how_often_a_fault_shows() -> None:
    faults = Faults()
    twice = faults.add(Drop(), Scope(), 2)
    assert [faults.take(Drop) is not None for _ in range(3)] == [True, True, False]
    assert twice.fired == 2
    assert faults.all() == []
    always = faults.add(Drop(), Scope(), None)
    for _ in range(5):
        assert faults.take(Drop)
    assert always.fired == 5
    assert faults.remove(always.id)
    assert not faults.remove(always.id)
    assert faults.take(Drop) is None


def test_the_oldest_matching_fault_shows_first() -> None:
    faults = Faults()
    faults.add(BadHMAC(), Scope(), 1)
    faults.add(Failure("500"), Scope("2"), 1)
    faults.add(Failure("503"), Scope(), 1)
    faults.add(Failure("400"), Scope(), 1)
    assert [faults.take(Failure, "1"), faults.take(Failure, "2")] == [Failure("503"), Failure("500")]
    faults.clear()
    assert faults.take(Failure) is None


def test_the_stanzas_that_faults_send() -> None:
    ban = failure_node(Failure("402", "101", 60))
    assert dict(ban.attrs) == {"reason": "402", "location": "sim", "code": "101", "expire": 60}
    removed = stream_error_node(StreamError("401", "device_removed"))
    assert removed.get("code") == "401"
    assert removed.require("conflict").get("type") == "device_removed"
    assert stream_error_node(StreamError("503")).children == ()


@pytest.mark.parametrize(
    ("stanza", "kind"),
    [
        (Node("iq", {"xmlns": "w:p", "type": "get", "id": "1"}), IgnoreKeepalives),
        (Node("iq", {"xmlns": "encrypt", "type": "set", "id": "1"}), IgnorePreKeys),
        (Node("iq", {"xmlns": "w", "type": "get", "id": "1"}), None),
        (Node("iq", {"type": "result", "id": "1"}), None),
        (Node("message", {"xmlns": "w:p"}), None),
    ],
)
def test_what_faults_leave_unanswered(stanza: Node, kind: type[Behaviour] | None) -> None:
    assert silencer(stanza) is kind


def test_first_copies_are_messages_that_nobody_asked_for_again() -> None:
    assert is_first_copy(Node("message", {"id": "M"}, [Node("enc", {"v": 2}, b"secret")]))
    assert not is_first_copy(Node("message", {"id": "M"}, [Node("enc", {"v": 2, "count": 1}, b"secret")]))
    assert not is_first_copy(Node("receipt", {"id": "M"}))
