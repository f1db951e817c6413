import re
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest

from tests.documentation.troubleshooting import ALSO, REASONS
from tests.unit.controller.builders import (
    PHONE,
    claim,
    connected_report,
    linked,
    observed,
    pod,
    report,
    session,
    told_pod,
    volume,
)
from whatsapp_operator.api.reasons import EXPLANATIONS, ConditionType, MachineState, Reason, sentence
from whatsapp_operator.controller import conditions, plan
from whatsapp_operator.controller.claims import decide
from whatsapp_operator.controller.conditions import Draft
from whatsapp_operator.controller.observed import Holder, Problem

# What was found comes before the sentence; so much of the 512 bytes is left for it.
LONGEST_SENTENCE = 320


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_says_what_it_means_and_what_is_done_in_plain_sentences(reason: Reason) -> None:
    explanation = EXPLANATIONS[reason]
    assert explanation.meaning
    assert explanation.doing
    for text in (explanation.meaning, explanation.doing, explanation.remedy):
        assert re.fullmatch(r"(?:[A-Z][^`|<>*]*\.)?", text), "one paragraph for a condition and for Markdown alike"
        assert not re.search(r"\d{4}", text), "no value of a session"


@pytest.mark.parametrize("reason", Reason)
def test_a_sentence_leaves_room_for_what_was_found(reason: Reason) -> None:
    said = sentence(reason)
    explanation = EXPLANATIONS[reason]
    assert said == " ".join(text for text in (explanation.meaning, explanation.doing, explanation.remedy) if text)
    assert len(said.encode()) <= LONGEST_SENTENCE
    assert conditions.bounded(said) == said


@pytest.mark.parametrize("failed", [reason for reason in Reason if reason is not Reason.NOT_PAIRED])
def test_what_the_last_attempt_failed_with_fits_beside_not_paired(failed: Reason) -> None:
    history = {"pairing": {"history": [{"seq": 1, "result": "Failed", "reason": failed.value}]}}
    status = {"session": report("Connecting", "Connecting", **history)}
    text = conditions.auth_paired(observed(session(status=status), pod=pod())).text
    assert text.endswith(sentence(failed))


# What these two can say; they stall the session whatever it is.
HALTED = {
    MachineState.FAILED: (
        Reason.VOLUME_FULL,
        Reason.VOLUME_READ_ONLY,
        Reason.VOLUME_FOREIGN,
        Reason.CREDENTIALS_CONFLICT,
    ),
    MachineState.HELD: (
        Reason.ATTEMPTS_EXHAUSTED,
        Reason.PASSKEY_REQUIRED,
        Reason.INVALID_SPEC,
        Reason.LOGGED_OUT,
        Reason.MAIN_DEVICE_GONE,
        Reason.EXPIRED,
        Reason.PHONE_CLAIM_CONFLICT,
        Reason.RATE_LIMITED,
        Reason.TEMPORARY_BAN,
        Reason.STREAM_REPLACED,
        Reason.CLIENT_OUTDATED,
    ),
}


def stalled_by() -> dict[Reason, Draft]:
    """Every Stalled=True there can be: by the claim, by a write that was refused, and by each report of a pod."""
    claimed = Draft("True", Reason.CLAIMED)
    cases = [(observed(), Draft("False", reason)) for reason in Reason]
    cases += [(observed(problems=(Problem(reason, ""),)), claimed) for reason in Reason]
    for machine, choice, device in product(MachineState, ("Relink", "Hold"), ({}, linked())):
        for reason in HALTED.get(machine, tuple(Reason)):
            status = {"session": report(machine.value, reason.value, **device)}
            reported = session(spec={"recovery": {"onLoggedOut": choice}}, status=status)
            cases.append((observed(reported, pod=pod()), claimed))
    found = [conditions.compute(o, phone_claimed)[ConditionType.STALLED] for o, phone_claimed in cases]
    return {draft.reason: draft for draft in found if draft is not None}


def problems() -> set[Reason]:
    """The reasons of all writes that the operator's code knows to be refused for good."""
    code = Path(plan.__file__).parent.glob("*.py")
    return {Reason[name] for path in code for name in re.findall(r"Problem\(\s*Reason\.(\w+)", path.read_text())}


def given() -> dict[ConditionType, set[Reason]]:
    """The reasons of each condition, by all that can be seen of a pod, a claim and a report."""
    found: dict[ConditionType, set[Reason]] = {kind: set() for kind in ConditionType}
    claimed = Draft("True", Reason.CLAIMED)
    waiting = ("ErrImagePull", "CreateContainerConfigError", "CrashLoopBackOff", "StartError")
    pods = (
        *(None, pod(), pod(node_lost=True), pod(phase="Failed"), pod(running=False)),
        *(pod(running=False, waiting_reason=reason) for reason in waiting),
    )
    cases = [observed(problems=(Problem(reason, ""),)) for reason in problems()]
    cases += [observed(session(deleting=True)), observed(invalid="spec.phone: wrong")]
    cases += [
        observed(pod=pod(running=False, unschedulable="full"), pod_age=60, volume=volume(bound=bound))
        for bound in (True, False)
    ]
    for machine, suspend, device in product(MachineState, (True, False), ({}, linked())):
        for reason in (*HALTED.get(machine, tuple(Reason)), "OfLater"):
            status = {"session": report(machine.value, str(reason), **device)}
            cases += [observed(session(spec={"suspend": suspend}, status=status), pod=there) for there in pods]
    for o in cases:
        for kind, draft in conditions.compute(o, claimed).items():
            found[kind] |= {draft.reason} if draft is not None else set()
    statuses: tuple[dict[str, Any], ...] = (
        *({}, {"session": connected_report()}, {"session": report("Held", "PhoneClaimConflict")}),
        {"session": report("Held", "AttemptsExhausted", pairing={"state": "Exhausted"})},
    )
    for phone, state, suspend, holder in product((PHONE, "+9991234567", None), statuses, (True, False), Holder):
        of = session(phone=phone, spec={"suspend": suspend}, status=state)
        claims = dict.fromkeys(("+9991234567", PHONE), claim(holder))
        for there in (None, told_pod(of)):
            found[ConditionType.PHONE_CLAIMED].add(decide(observed(of, pod=there, claims=claims)).condition.reason)
    return found


def test_the_page_has_every_reason_that_a_condition_can_have_and_no_other() -> None:
    found = given()
    shown = {kind: {*reasons, *ALSO.get(kind, ())} for kind, reasons in REASONS.items()}
    # These two sum up the others.
    summary = {ConditionType.READY, ConditionType.STALLED}
    assert {kind: found[kind] for kind in found.keys() - summary} == {
        kind: shown[kind] for kind in shown.keys() - summary
    }
    for kind in summary:
        assert shown[kind] <= found[kind] <= set().union(*shown.values())


def test_whoever_must_act_is_told_how() -> None:
    drafts = stalled_by()
    assert drafts.keys() >= {Reason.HELD_BY_OTHER, Reason.POD_REJECTED, *chain(*HALTED.values())}
    for reason, draft in drafts.items():
        assert EXPLANATIONS[reason].remedy, f"{reason} stalls, and nobody is told what to do"
        assert draft.text.endswith(EXPLANATIONS[reason].remedy)
