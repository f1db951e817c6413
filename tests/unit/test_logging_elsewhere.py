"""What leaves a process besides its log: reprs in tracebacks, conditions, events, reports and metrics."""

import logging
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from tests.unit.controller.builders import NOW, linked, observed, pod, report, session
from tests.unit.samples import SECRETS, Secret
from whatsapp_operator.api import reasons
from whatsapp_operator.api.masking import mask
from whatsapp_operator.api.models import PairingAttempt, WhatsAppSessionStatus
from whatsapp_operator.api.reasons import ConditionType, MachineState, PairingMethod, Reason, RelinkOutcome
from whatsapp_operator.controller import claims, conditions, desired, events
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.conditions import Draft
from whatsapp_operator.controller.metrics import Metrics, Step
from whatsapp_operator.controller.observed import Observed, Problem
from whatsapp_operator.controller.status import Counts
from whatsapp_operator.session import commands, identity, logs, model, settings, wire
from whatsapp_operator.session import events as session_events
from whatsapp_operator.session import state as session_state
from whatsapp_operator.session.commands import Publish
from whatsapp_operator.session.state import Phase, State
from whatsapp_operator.session.supervisor import Supervisor

every_secret = pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)

# Text fields of the session's messages and state that a repr shows: names, ids, words of ours, codes of the protocol.
SHOWN = {
    "Attempt": {"id"},
    "ConnectEnded": {"kind"},
    "ConnectFailure": {"reason"},
    "Connected": {"platform"},
    "Credentials": {"platform"},
    "Desired": {"relink_request_id", "log_level", "hash"},
    "DisplayName": {"browser", "system"},
    "FinishedAttempt": {"id", "message"},
    "Journal": {"relink_request_id"},
    "MessageReceived": {"message_id"},
    "Moment": {"token"},
    "Paired": {"platform"},
    "PairingCodeRefused": {"kind"},
    "PairingEnded": {"status"},
    "PairingSpec": {"display_name"},
    "Removal": {"request_id"},
    "SendDone": {"message_id"},
    "Settings": {"namespace", "session", "tenant", "pod_uid", "api_host", "session_uid", "log_level", "http_host"},
    "Start": {"database", "display_name"},
    "StartWorker": {"display_name"},
    "State": {"detail"},
    "StreamError": {"code"},
    "WorkerStarted": {"library_version"},
}


def text_fields(module: ModuleType) -> Iterator[tuple[type, set[str], set[str]]]:
    """The data classes of a module, with the names of their text fields and of those that a repr shows."""
    for cls in vars(module).values():
        if isinstance(cls, type) and is_dataclass(cls) and cls.__module__ == module.__name__:
            texts = [f for f in fields(cls) if f.type is str or str in get_args(f.type)]
            yield cls, {f.name for f in texts}, {f.name for f in texts if f.repr}


@pytest.mark.parametrize(
    "module",
    [wire, commands, session_events, session_state, model, settings, identity],
    ids=lambda module: module.__name__,
)
def test_a_repr_shows_no_text_that_may_be_personal(module: ModuleType) -> None:
    found = {cls.__name__: shown for cls, _, shown in text_fields(module) if shown}
    assert found == {name: SHOWN[name] for name in found}, "a new field is kept out of repr, or is added above"


def test_what_is_personal_is_in_no_repr() -> None:
    hidden = {
        name
        for module in (wire, commands, model, settings)
        for _, all_, shown in text_fields(module)
        for name in all_ - shown
    }
    assert hidden >= {"jid", "lid", "phone", "rejected_phone", "pair_phone", "push_name", "business_name", "proxy_url"}
    assert hidden >= {"qr", "png", "code", "text", "to", "sender", "detail", "error"}
    seen = repr(wire.Connected(*("5551230001",) * 5)) + repr(Publish(1.0, "5551230001", "5551230001", "5551230001"))
    assert seen.count("5551230001") == 1, "the platform"


@every_secret
def test_reprs_of_the_operator_are_masked_where_they_are_logged(secret: Secret) -> None:
    phone = "+15551230001"
    told = session(status={"session": report("Connected", "Connected", **linked(phone))})
    wish = desired.Wish(phone=phone, rejected_phone=secret.text)
    for value in (wish, claims.ClaimPlan((), Draft("True", Reason.CLAIMED), phone, secret.text), observed(told)):
        line = mask(f"failed with {value!r}")
        assert "1555123" not in line
        assert not secret.found_in(line)


def hostile(secret: str) -> Iterator[tuple[Observed, Draft]]:
    """Observations in which everything that others have written is the secret."""
    claimed = Draft("True", Reason.CLAIMED)
    for problem in (Reason.POD_REJECTED, Reason.EXPANSION_REFUSED, Reason.INVALID_SPEC):
        yield observed(problems=(Problem(problem, conditions.told(problem, f"Pod: {secret} is refused")),)), claimed
    for code in ("ImagePullBackOff", "CreateContainerConfigError", "CrashLoopBackOff", "RunContainerError"):
        waits = pod(running=False, ready=False, started_at=None, waiting_reason=code, waiting_message=secret)
        yield observed(pod=waits), claimed
    yield observed(pod=pod(phase="Failed", running=False, status_reason=secret, status_message=secret)), claimed
    yield observed(pod=pod(phase="Pending", running=False, ready=False, unschedulable=secret), pod_age=11.0), claimed
    yield observed(invalid=f"spec.phone: {secret}"), claimed
    yield observed(), Draft("False", Reason.HELD_BY_OTHER, secret)
    for state in MachineState:
        for reason in (Reason.VOLUME_FULL, Reason.LOGGED_OUT, Reason.RATE_LIMITED, Reason.PROXY_FAILED):
            history = [
                {"seq": 1, "id": secret[:64], "result": "Failed", "reason": "NotPaired", "message": secret[:256]}
            ]
            pairing = {"id": secret[:64], "seq": 1, "history": history}
            body = report(state.value, reason.value, message=secret, pairing=pairing)
            yield observed(session(status={"session": body}), pod=pod()), claimed


@every_secret
def test_no_condition_and_no_event_lets_a_secret_through(secret: Secret) -> None:
    for o, phone_claimed in hostile(secret.text):
        drafts = conditions.compute(o, phone_claimed)
        merged = conditions.merge([], drafts, generation=1, now=NOW)
        for condition in merged:
            assert not secret.found_in(condition.message), condition
        paired = [c.model_copy(update={"status": "True"}) for c in merged if c.type == ConditionType.AUTH_PAIRED]
        pairing = o.report.pairing if o.report is not None else None
        attempts = (pairing.history if pairing is not None else None) or []
        before, after = WhatsAppSessionStatus(conditions=paired), WhatsAppSessionStatus(conditions=merged)
        told = events.of_transition(before, after, attempt=pairing.id if pairing is not None else None)
        for event in [*told, *map(events.of_attempt, attempts)]:
            assert not secret.found_in(event.note), event


def label_values(text: str) -> set[str]:
    return set(re.findall(r'="([^"]*)"', text))


@cache
def words() -> frozenset[str]:
    """All that a label may say without being a name of an object: the words of the API."""
    enums = [kind for kind in vars(reasons).values() if isinstance(kind, type) and issubclass(kind, StrEnum)]
    return frozenset(member.value for kind in enums for member in kind)


@every_secret
def test_labels_of_the_operator_are_words_of_the_api(secret: Secret) -> None:
    cache = Cache()
    status: dict[str, Any] = {"phase": secret.text, "phone": secret.text}
    status["conditions"] = [
        {"type": secret.text, "status": "True"},
        {"type": "Ready", "status": "False", "reason": secret.text},
    ]
    metadata = {"namespace": "team", "name": "shop", "uid": "u", "resourceVersion": "1"}
    cache.put_session({"metadata": metadata, "spec": {"tenant": "acme"}, "status": status})
    metrics = Metrics(cache, per_object=True)
    attempts = tuple(
        PairingAttempt(seq=1, id=secret.text[:64], method=method, result="Failed", reason=secret.text[:64])
        for method in PairingMethod
    )
    for outcome in RelinkOutcome:
        metrics.count(Counts(attempts=attempts, disconnects=1, disconnect_reason=secret.text, relink=outcome.value))
    text = metrics.render().decode()
    numbers = {value for value in label_values(text) if re.fullmatch(r"[0-9.]+|\+Inf", value)}
    ours = {"team", "shop", "acme", "True", "False", "Unknown", "Succeeded", "Failed", *Step}
    assert label_values(text) - numbers <= words() | ours
    assert not secret.found_in(text)


def events_of_a_worker(secret: str) -> Iterator[wire.WorkerEvent]:
    """One of each, with the secret in every text."""
    for cls in get_args(wire.WorkerEvent):
        values: dict[object, Any] = {str: secret, int: 1, float: 1.0, bool: True}
        yield cls(**{f.name: values.get(f.type) for f in fields(cls)})


@every_secret
async def test_reports_labels_and_logs_of_a_session_hold_only_words_of_ours(
    secret: Secret, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor(
        settings.Settings(
            "team", "shop", "acme", "u", "127.0.0.1", 1, data_dir=tmp_path, desired_file=tmp_path / "none"
        )
    )
    monkeypatch.setattr(supervisor, "_start_worker", lambda *_: None)
    monkeypatch.setattr(supervisor._volume, "save", lambda _: None)
    caplog.set_level(logging.DEBUG)
    attempt = model.Attempt("fd73aa9f0ead6661", PairingMethod.QR_CODE, 1, 0.0, 0.0, 160.0)
    for phase in Phase:
        for event in events_of_a_worker(secret.text):
            journal = model.Journal(attempt=attempt, registered_at=1.0, disconnects=1)
            credentials = model.Credentials(True, True, "15551230001:3@s.whatsapp.net")
            supervisor._state = State(
                phase, None, model.Desired(), opened=True, journal=journal, credentials=credentials
            )
            await supervisor._feed(event)
            told = supervisor._report(supervisor._state)
            assert not secret.found_in(told["message"])
            assert told["reason"] in words()
            assert told["connection"]["lastReason"] in (*words(), None)
            assert all(entry["reason"] in words() for entry in told["pairing"]["history"] or ())
    _, text = supervisor._render_metrics()
    ours = {"in", "out", "report", "secret", "accepted", "failed", "supervisor", "worker", "Succeeded", "Failed"}
    assert label_values(text) <= words() | ours
    assert not secret.found_in(text)
    form = logs.JsonFormatter("shop", "acme", lambda: None)
    assert len(caplog.records) > 20
    for record in caplog.records:
        assert not secret.found_in(form.format(record))
