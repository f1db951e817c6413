import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.unit.session.test_machine import JID, START, Session, paired, showing
from whatsapp_operator.api.models import SessionReport
from whatsapp_operator.api.reasons import MachineState, Reason
from whatsapp_operator.session import machine, report, wire
from whatsapp_operator.session.commands import Publish
from whatsapp_operator.session.events import DesiredChanged, VolumeFailed
from whatsapp_operator.session.kubernetes_api import ApiError
from whatsapp_operator.session.limits import LIMITS
from whatsapp_operator.session.model import Desired, PairingSpec
from whatsapp_operator.session.secrets import Publisher, patch_of

KEYS = {
    "podUID": None,
    "bootID": None,
    "machine": None,
    "reason": None,
    "message": None,
    "credentials": {"present", "valid", "registeredAt", "lastUsedAt"},
    "device": {"jid", "lid", "platform", "businessName", "pushName"},
    "connection": {"since", "lastConnectedAt", "disconnects", "lastReason", "replaced", "nextRetryAt"},
    "pairing": {
        "method",
        "state",
        "attempt",
        "id",
        "startedAt",
        "expiresAt",
        "seq",
        "succeeded",
        "failed",
        "history",
    },
    "desiredStateHash": None,
    "relinkRequestID": None,
    "relinkOutcome": None,
}


def built(session: Session) -> dict[str, Any]:
    return report.build(session.state, pod_uid="pod", boot_id="boot")


def test_has_every_key_in_every_situation() -> None:
    for session in (Session(), showing(), paired()):
        document = built(session)
        assert document.keys() == KEYS.keys()
        for key, inner in KEYS.items():
            if inner is not None and document[key] is not None:
                assert document[key].keys() == inner


def known(document: Any, schema: Any) -> Any:
    """The document without the keys that the schema does not have."""
    if isinstance(document, dict):
        return {key: known(value, schema[key]) for key, value in document.items() if key in schema}
    if isinstance(document, list):
        return [known(value, inner) for value, inner in zip(document, schema, strict=True)]
    return document


def test_fits_the_custom_resource() -> None:
    failed = showing()
    failed.after(200)
    long_name = paired()
    long_name.feed(wire.Connected(JID, "9:3@lid", "p" * 500, "b" * 5000, "n" * 5000))
    for session in (Session(), showing(), paired(), failed, long_name):
        document = {**built(session), "reportedAt": report.timestamp(START)}
        assert known(document, SessionReport.model_validate(document).model_dump(by_alias=True)) == document


def test_says_nothing_of_a_volume_that_could_not_be_read() -> None:
    """A session whose volume is held by another process for a moment is not thereby unpaired."""
    session = Session()
    session.state, _ = machine.begin()
    session.feed(VolumeFailed(Reason.CREDENTIALS_CONFLICT))
    document = built(session)
    assert document["machine"] == "Failed"
    assert set(document["credentials"].values()) == {None}
    assert [document["pairing"][key] for key in ("seq", "succeeded", "failed", "history")] == [None] * 4


def test_a_volume_that_fails_later_does_not_make_what_was_read_unknown() -> None:
    session = paired()
    session.feed(VolumeFailed(Reason.VOLUME_READ_ONLY))
    assert built(session)["credentials"]["present"] is True


def test_tells_of_a_window() -> None:
    session = showing()
    pairing = built(session)["pairing"]
    assert (pairing["state"], pairing["attempt"]) == ("Showing", 1)
    assert pairing["startedAt"] == "1970-01-12T13:46:40.000000Z"
    assert pairing["expiresAt"] == "1970-01-12T13:49:20.000000Z"
    assert built(session)["device"] is None


def test_a_new_qr_of_the_window_is_no_news() -> None:
    session = showing()
    before = built(session)
    session.now += 60
    session.feed(wire.QRCode("next", "png"))
    assert built(session) == before


def test_tells_of_a_connection() -> None:
    document = built(paired())
    assert document["machine"] == "Connected"
    assert document["device"]["jid"] == JID
    assert document["connection"]["since"] == report.timestamp(START)
    assert document["pairing"]["state"] == "Idle"


def test_that_a_connection_goes_on_is_no_news_and_known_afterwards() -> None:
    session = paired()
    before = built(session)
    assert before["credentials"]["lastUsedAt"] == report.timestamp(START)
    session.after(10 * 86_400.0)
    assert built(session) == before
    session.feed(VolumeFailed(Reason.VOLUME_FULL))
    assert built(session)["credentials"]["lastUsedAt"] == report.timestamp(START + 10 * 86_400.0)


def test_tells_of_a_device_left_on_the_phone_until_another_is_paired() -> None:
    session = paired()
    once = PairingSpec(attempts=1)
    session.feed(DesiredChanged(Desired(pairing=once, relink_request_id="r1")), wire.LogoutDone("timeout"))
    assert "may still be on the phone's list" in built(session)["message"]
    session.after(0.0)
    session.show()
    document = built(session)
    assert (document["relinkOutcome"], document["machine"]) == ("Failed", "ShowingQR")
    assert "may still be on the phone's list" in document["message"]
    session.after(200)
    assert built(session)["reason"] == "AttemptsExhausted"
    assert built(session)["message"] == "", "the reason's own remedy"
    session.feed(DesiredChanged(Desired(pairing=once, relink_request_id="r2")))
    session.after(0.0)
    assert "may still be on the phone's list" in built(session)["message"]
    session.pair()
    assert built(session)["message"] == ""


def test_tells_of_a_device_that_an_expiry_left_on_the_phone() -> None:
    for error, left in (("", False), ("timeout", True)):
        session = paired(Desired(expire=True))
        session.feed(wire.LogoutDone(error))
        session.after(LIMITS.patient_removal)
        document = built(session)
        assert (document["machine"], document["reason"]) == ("Held", "Expired")
        assert document["message"] == (report.LEFT_BEHIND if left else "")


def test_tells_the_history_as_in_the_contract() -> None:
    session = showing()
    session.after(200)
    (entry,) = built(session)["pairing"]["history"]
    assert entry.keys() == {
        "seq", "id", "method", "startedAt", "finishedAt", "result", "reason", "message", "secondsToQR", "secondsToScan",
        "secondsToConnected",
    }  # fmt: skip
    assert (entry["result"], entry["reason"], entry["secondsToScan"]) == ("Failed", "Expired", None)


@pytest.mark.parametrize(
    ("machine", "message", "accepted", "seconds"),
    [
        ("Starting", "", None, report.TRANSIENT_DELAY),
        ("Connecting", "", None, report.TRANSIENT_DELAY),
        ("Connecting", "It failed.", None, 0.0),
        ("Connecting", "It failed.", ("Connecting", "It failed."), report.TRANSIENT_DELAY),
        ("ShowingQR", "", None, 0.0),
        ("Authenticating", "", ("ShowingQR", ""), 0.0),
        ("Connected", "", ("Authenticating", ""), 0.0),
        ("Reconnecting", "", ("Connected", ""), 0.0),
        ("Reconnecting", "", ("Reconnecting", ""), report.TRANSIENT_DELAY),
        ("Connecting", "", ("Connected", ""), 0.0),
        ("Held", "", None, 0.0),
    ],
)
def test_what_may_wait(machine: str, message: str, accepted: tuple[str, str] | None, seconds: float) -> None:
    def made(machine: str, message: str) -> dict[str, Any]:
        return {**built(Session()), "machine": MachineState(machine), "message": message}

    assert report.delay(made(machine, message), made(*accepted) if accepted else None) == seconds


def test_another_desired_state_is_acknowledged_soon() -> None:
    """The operator must learn that it arrived, also while nothing else is worth a write."""
    before = {**built(Session()), "desiredStateHash": "one"}
    assert report.delay({**before, "desiredStateHash": "two"}, before) == report.FOLLOWED_DELAY


class Api:
    """Takes writes, or refuses them with a status."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.status = 200
        self.refused = 0

    async def __call__(self, document: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if self.status != 200:
            self.refused += 1
            raise ApiError(self.status, "refused")
        self.taken.append(document)


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """A deadline for what has no event of its own."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def running(work: Awaitable[None], body: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    try:
        await body
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_last_report_wins_and_equal_ones_are_not_written() -> None:
    api = Api()
    reporter = report.Reporter(api, lambda: START)
    shown, connected = built(showing()), built(paired())

    async def body() -> None:
        reporter.update(shown)
        reporter.update(connected)
        await until(lambda: api.taken)
        assert api.taken == [{**connected, "reportedAt": report.timestamp(START)}]
        reporter.update(connected)
        reporter.update(shown)
        await until(lambda: len(api.taken) == 2)

    await running(reporter.run(), body())


@pytest.mark.parametrize("lost", [False, True])
async def test_a_return_to_the_accepted_report_is_told_once_another_is_on_its_way(lost: bool) -> None:
    api = Api()
    shown, connected = built(showing()), built(paired())
    on_its_way, answered = asyncio.Event(), asyncio.Event()

    async def write(document: dict[str, Any]) -> None:
        await api(document)
        if document["machine"] == "Connected":
            on_its_way.set()
            await answered.wait()
            if lost:
                raise ApiError(0, "the answer was lost")

    reporter = report.Reporter(write, lambda: START)

    async def body() -> None:
        reporter.update(shown)
        await until(lambda: api.taken)
        reporter.update(connected)
        await on_its_way.wait()
        reporter.update(shown)
        answered.set()
        await until(lambda: len(api.taken) == 3)
        assert [document["machine"] for document in api.taken] == ["ShowingQR", "Connected", "ShowingQR"]

    await running(reporter.run(), body())


async def test_a_transient_state_waits_and_is_forgotten() -> None:
    api = Api()
    reporter = report.Reporter(api, lambda: START)

    async def body() -> None:
        reporter.update(built(Session()))
        reporter.update(built(showing()))
        await until(lambda: api.taken)
        assert [document["machine"] for document in api.taken] == ["ShowingQR"]

    await running(reporter.run(), body())


async def test_a_refused_report_is_sent_again_unless_there_is_a_newer_one() -> None:
    api = Api()
    api.status = 503
    reporter = report.Reporter(api, lambda: START)

    async def body() -> None:
        reporter.update(built(showing()))
        await until(lambda: api.refused)
        reporter.update(built(paired()))
        api.status = 200
        await until(lambda: api.taken)
        assert [document["machine"] for document in api.taken] == ["Connected"]

    await running(reporter.run(), body())


def test_the_secret_has_all_keys_in_every_patch() -> None:
    keys = {"qr", "qr.png", "code", "expiresAt"}
    for publish in (None, Publish(START, qr="qr", png="cG5n"), Publish(START, code="ABCD-EFGH")):
        assert patch_of(publish)["data"].keys() == keys
    assert set(patch_of(None)["data"].values()) == {None}
    assert patch_of(Publish(START, qr="qr", png="cG5n"))["data"] == {
        "qr": "cXI=",
        "qr.png": "cG5n",
        "code": None,
        "expiresAt": "MTk3MC0wMS0xMlQxMzo0Njo0MC4wMDAwMDBa",
    }


async def test_the_secret_is_retried_and_told_of() -> None:
    api = Api()
    api.status = 404
    told: list[object] = []
    publisher = Publisher(api, lambda: told.append("published"), lambda: told.append("cleared"), told.append)

    async def body() -> None:
        publisher.show(Publish(START, qr="qr1", png=""))
        await until(lambda: told == [404])
        api.status = 200
        publisher.show(Publish(START, qr="qr2", png=""))
        await until(lambda: "published" in told)
        publisher.show(None)
        await until(lambda: "cleared" in told)
        assert api.taken == [patch_of(Publish(START, qr="qr2", png="")), patch_of(None)]

    await running(publisher.run(), body())


async def test_nothing_is_to_be_cleared_in_a_secret_that_is_missing() -> None:
    api = Api()
    api.status = 404
    told: list[str] = []
    publisher = Publisher(api, lambda: None, lambda: told.append("cleared"), lambda _: None)

    async def body() -> None:
        publisher.show(None)
        await until(lambda: told == ["cleared"])
        api.status = 200
        await publisher.flush()
        assert api.taken == []

    await running(publisher.run(), body())
