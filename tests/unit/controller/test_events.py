import asyncio
from typing import Any, cast

import pytest

from tests.unit.controller.builders import session
from whatsapp_operator.api.models import PairingAttempt, PairingStatus, WhatsAppSessionStatus
from whatsapp_operator.api.reasons import Reason, sentence
from whatsapp_operator.controller.events import (
    BURST,
    REFILL_SECONDS,
    REPEAT_SECONDS,
    Event,
    EventWriter,
    of_attempt,
    of_transition,
)
from whatsapp_operator.kube.client import Client, Resource
from whatsapp_operator.kube.errors import ServerError


def status(**conditions: tuple[str, str]) -> WhatsAppSessionStatus:
    listed = [
        {"type": kind, "status": value, "reason": reason, "lastTransitionTime": "2026-11-21T10:00:00Z", "message": "m"}
        for kind, (value, reason) in conditions.items()
    ]
    return WhatsAppSessionStatus.model_validate({"conditions": listed})


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(status(), status(QRReady=("True", "QRAvailable")), [("Normal", "QRAvailable")], id="QR"),
        pytest.param(status(QRReady=("True", "QRAvailable")), status(QRReady=("True", "QRAvailable")), [], id="same"),
        pytest.param(status(), status(Connected=("True", "Connected")), [("Normal", "Connected")], id="connected"),
        pytest.param(
            status(AuthPaired=("True", "Paired")),
            status(AuthPaired=("False", "LoggedOut")),
            [("Warning", "LoggedOut")],
            id="logged out",
        ),
        pytest.param(status(), status(AuthPaired=("False", "NotPaired")), [], id="not yet paired"),
        pytest.param(status(), status(Stalled=("True", "PodRejected")), [("Warning", "PodRejected")], id="stalled"),
        pytest.param(
            status(Stalled=("True", "PodRejected")),
            status(Stalled=("True", "VolumeFull")),
            [("Warning", "VolumeFull")],
            id="stalled for another reason",
        ),
        pytest.param(
            status(Connected=("False", "Reconnecting")),
            status(Connected=("False", "TemporaryBan")),
            [("Warning", "TemporaryBan")],
            id="banned",
        ),
        pytest.param(
            status(Connected=("False", "TemporaryBan")),
            status(Connected=("False", "TemporaryBan")),
            [],
            id="still banned",
        ),
        pytest.param(
            status(Connected=("True", "Connected")),
            status(Connected=("False", "Reconnecting")),
            [],
            id="lost for a moment",
        ),
        pytest.param(status(), status(PodReady=("True", "PodReady")), [], id="of no interest"),
    ],
)
def test_what_a_person_wants_to_see(
    before: WhatsAppSessionStatus, after: WhatsAppSessionStatus, expected: list[tuple[str, str]]
) -> None:
    assert [(event.type, event.reason) for event in of_transition(before, after)] == expected


def test_a_code_is_told_with_the_id_of_its_attempt() -> None:
    after = status(QRReady=("True", "CodeAvailable"), AuthPaired=("True", "Paired"))
    notes = {event.reason: event.note for event in of_transition(status(), after, attempt="4be1")}
    assert notes == {"CodeAvailable": "m Attempt 4be1.", "Paired": "m"}


@pytest.mark.parametrize(
    ("attempt", "kind", "reason", "note"),
    [
        ({"result": "Succeeded", "reason": "Paired"}, "Normal", "PairingSucceeded", sentence(Reason.PAIRED)),
        (
            {"result": "Failed", "reason": "Expired"},
            "Warning",
            "PairingFailed",
            f"Expired: {sentence(Reason.EXPIRED)}",
        ),
        (
            {"result": "Failed", "reason": "NotPaired", "message": "Refused."},
            "Warning",
            "PairingFailed",
            "Refused.",
        ),
    ],
)
def test_how_an_attempt_ended(attempt: dict[str, Any], kind: str, reason: str, note: str) -> None:
    found = of_attempt(PairingAttempt.model_validate({"seq": 1, "id": "4be1", **attempt}))
    assert found == Event(kind, reason, f"{note} Attempt 4be1.")  # type: ignore[arg-type]


class Recorder:
    def __init__(self, failures: int = 0) -> None:
        self.written: list[tuple[str | None, dict[str, Any]]] = []
        self.failures = failures
        self.changed = asyncio.Event()

    async def create(self, _: Resource, namespace: str | None, body: dict[str, Any]) -> dict[str, Any]:
        if self.failures:
            self.failures -= 1
            raise ServerError("not now", code=500)
        self.written.append((namespace, body))
        self.changed.set()
        return body


async def test_each_event_is_written_once_in_ten_minutes() -> None:
    now = 0.0
    recorder = Recorder(failures=1)
    writer = EventWriter(cast(Client, recorder), namespace="system", instance="operator-0", clock=lambda: now)
    running = asyncio.create_task(writer.run())
    writer.add(session(), Event("Normal", "Lost", "the API server did not take it"))
    for _ in range(3):
        writer.add(session(), Event("Normal", "Connected", "open"))
    now = REPEAT_SECONDS
    writer.add(session(), Event("Normal", "Connected", "open"))
    writer.add(session(), Event("Warning", "UnlinkTimedOut", "by hand"), namespace_gone=True)
    async with asyncio.timeout(10):
        while len(recorder.written) < 3:
            recorder.changed.clear()
            await recorder.changed.wait()
    running.cancel()
    assert [(namespace, body["reason"]) for namespace, body in recorder.written] == [
        ("team", "Connected"),
        ("team", "Connected"),
        ("system", "UnlinkTimedOut"),
    ]
    assert recorder.written[0][1]["regarding"]["name"] == "shop"


def showing(window: dict[str, Any], status_of_qr: str = "True") -> WhatsAppSessionStatus:
    found = status(QRReady=(status_of_qr, "QRAvailable"))
    return found.model_copy(update={"pairing": PairingStatus.model_validate(window)})


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param({"attempt": 1}, {"attempt": 2}, True, id="the next of a round"),
        pytest.param(
            {"attempt": 1, "expiresAt": "2026-11-21T10:00:00Z"},
            {"attempt": 1, "expiresAt": "2026-11-21T10:02:00Z"},
            True,
            id="the first of another round",
        ),
        pytest.param({"attempt": 1}, {"attempt": 1, "last": {"seq": 1, "id": "a"}}, True, id="another has ended"),
        pytest.param({"attempt": 1, "failed": 1}, {"attempt": 1, "failed": 2}, False, id="the same"),
    ],
)
def test_each_window_is_told_of(before: dict[str, Any], after: dict[str, Any], told: bool) -> None:
    found = of_transition(showing(before), showing(after), attempt="a2")
    assert found == ([Event("Normal", "QRAvailable", "m Attempt a2.")] if told else [])
    assert of_transition(showing(before), showing(after, "False"), attempt="a2") == []


async def test_a_session_that_never_rests_floods_nothing_and_takes_nothing_from_another() -> None:
    now, recorder = 0.0, Recorder()
    writer = EventWriter(cast(Client, recorder), namespace="system", instance="operator-0", clock=lambda: now)
    other = session()
    other = other.model_copy(update={"metadata": other.metadata.model_copy(update={"uid": "other"})})
    for number in range(10 * BURST):
        writer.add(session(), Event("Warning", "PodRejected", f"{number}"))
    writer.add(other, Event("Normal", "Connected", "m"))
    now = REFILL_SECONDS
    for number in range(10):
        writer.add(session(), Event("Warning", "PodRejected", f"later {number}"))
    running = asyncio.create_task(writer.run())
    async with asyncio.timeout(10):
        while len(recorder.written) < BURST + 2:
            recorder.changed.clear()
            await recorder.changed.wait()
    running.cancel()
    uids = [body["regarding"]["uid"] for _, body in recorder.written]
    assert (uids.count(session().metadata.uid), uids.count("other")) == (BURST + 1, 1)
