"""Where a session stands on its way to Connected, and when that way is at an end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import EXPLANATIONS, Reason, sentence
from whatsapp_operator.cli import linking
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.cli.exits import CliError, Exit
from whatsapp_operator.cli.linking import Asked, Stage, judge
from whatsapp_operator.cli.output import Output
from whatsapp_operator.cli.reading import Session

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def condition(kind: str, status: str, reason: Reason) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": sentence(reason)}


def session(*conditions: dict[str, str], **status: Any) -> Session:
    body = {"observedGeneration": 1, "conditions": list(conditions), **status}
    metadata = {"name": "support", "namespace": "shop", "generation": 1}
    return Session({"metadata": metadata, "spec": {"tenant": "acme"}, "status": body})


def changed(found: Session, **parts: Any) -> Session:
    raw = {**found.raw}
    for key, value in parts.items():
        raw[key] = {**raw.get(key, {}), **value}
    return Session(raw)


SHOWS = session(condition("QRReady", "True", Reason.QR_AVAILABLE), condition("Ready", "False", Reason.WAITING_FOR_SCAN))
READY = session(condition("Connected", "True", Reason.CONNECTED), condition("Ready", "True", Reason.CONNECTED))
EXHAUSTED = session(
    condition("Stalled", "True", Reason.ATTEMPTS_EXHAUSTED), condition("Ready", "False", Reason.ATTEMPTS_EXHAUSTED)
)


@pytest.mark.parametrize(
    ("found", "stage", "text"),
    [
        (Session({"metadata": {"name": "support", "generation": 1}}), Stage.WAIT, "operator"),
        (changed(READY, metadata={"generation": 2}), Stage.WAIT, "operator"),
        (session(condition("Ready", "False", Reason.VOLUME_PENDING)), Stage.WAIT, "not provisioned"),
        (SHOWS, Stage.SHOW, ""),
        (session(phase="Authenticating"), Stage.WAIT, "logging in"),
        (session(condition("Connected", "True", Reason.CONNECTED)), Stage.WAIT, ""),
        (READY, Stage.DONE, "Connected"),
    ],
)
def test_where_it_stands(found: Session, stage: Stage, text: str) -> None:
    sight = judge(found, NOW, None)
    assert sight.stage is stage
    assert text in sight.text


def test_a_failed_attempt_is_told_while_the_next_one_is_shown() -> None:
    last = {"result": "Failed", "reason": "PhoneMismatch", "message": "another phone has scanned"}
    found = changed(SHOWS, status={**SHOWS.status, "pairing": {"attempt": 2, "last": last}})
    assert "another phone has scanned" in judge(found, NOW, None).text


@pytest.mark.parametrize("reason", [Reason.ATTEMPTS_EXHAUSTED, Reason.HELD_BY_OTHER, Reason.CLIENT_OUTDATED])
def test_a_stall_ends_it_with_the_remedy(reason: Reason) -> None:
    with pytest.raises(CliError) as raised:
        judge(session(condition("Stalled", "True", reason), condition("Ready", "False", reason)), NOW, None)
    assert raised.value.code is Exit.PERSON_MUST_ACT
    assert EXPLANATIONS[reason].meaning in raised.value.message
    assert EXPLANATIONS[reason].remedy in raised.value.remedies
    relinks = "forceRelink" in EXPLANATIONS[reason].remedy
    assert ("  kubectl wa relink support -n shop" in raised.value.remedies) == relinks


def test_what_was_wrong_before_a_relink_does_not_end_it() -> None:
    assert judge(EXHAUSTED, NOW, Asked(None)).stage is Stage.WAIT
    requested = NOW.isoformat()
    taken = changed(EXHAUSTED, status={**EXHAUSTED.status, "relink": {"requestID": "r", "requestedAt": requested}})
    assert judge(taken, NOW, Asked(None)).stage is Stage.WAIT
    with pytest.raises(CliError, match="AttemptsExhausted"):
        judge(taken, NOW + timedelta(minutes=1), Asked(None))


def test_a_session_that_was_connected_before_the_relink_is_not_done() -> None:
    assert judge(READY, NOW, Asked(None)).stage is Stage.WAIT
    done = {"requestID": "new", "requestedAt": NOW.isoformat(), "completedAt": NOW.isoformat(), "outcome": "Completed"}
    assert judge(changed(READY, status={**READY.status, "relink": done}), NOW, Asked("old")).stage is Stage.DONE
    with pytest.raises(CliError, match="has failed"):
        judge(changed(READY, status={**READY.status, "relink": {**done, "outcome": "Failed"}}), NOW, Asked("old"))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"spec": {"suspend": True}}, "suspended"),
        ({"metadata": {"annotations": {names.ANNOTATION_PAUSED: "true"}}}, "leaves session support alone"),
        ({"metadata": {"deletionTimestamp": NOW.isoformat()}}, "being deleted"),
    ],
)
def test_what_will_never_be_linked_ends_it(parts: dict[str, Any], text: str) -> None:
    with pytest.raises(CliError, match=text):
        judge(changed(SHOWS, **parts), NOW, None)


async def test_a_relink_that_nobody_looks_at_tells_of_the_doctor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Left(Cluster):
        def __init__(self) -> None:
            self.namespace = "shop"
            self.clock = NOW

        async def session(self, name: str) -> Any:
            return EXHAUSTED.raw

        async def now(self) -> datetime:
            self.clock += timedelta(seconds=5)
            return self.clock

    monkeypatch.setattr(linking, "EVERY", 0)
    follower = linking.Follower(Left(), Output(), seconds=60, light_background=False)
    with pytest.raises(CliError) as raised:
        await follower.follow("support", Asked(None))
    assert raised.value.code is Exit.TIMED_OUT
    assert "kubectl wa doctor" in capsys.readouterr().out
