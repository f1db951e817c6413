from dataclasses import replace
from typing import Any

import pytest

from tests.unit.controller.builders import (
    OPTIONS,
    OTHER_PHONE,
    PHONE,
    claim,
    connected_report,
    lease,
    observed,
    report,
    session,
    told_pod,
)
from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.controller.actions import AcquireClaim, CheckHolder, ReleaseClaim, TakeOverClaim
from whatsapp_operator.controller.claims import decide, lease_name, phones_of
from whatsapp_operator.controller.desired import Wish
from whatsapp_operator.controller.observed import Holder, Observed
from whatsapp_operator.controller.settings import ClaimScope

THIRD_PHONE = "+15551230003"
NOT_PAIRED = report("ShowingQR", "QRAvailable")


def with_holder(holder: Holder, *, status: dict[str, Any] | None = None, **changes: Any) -> Observed:
    held = (lease(),) if holder is Holder.OURS else ()
    return observed(session(status=status), claims={PHONE: claim(holder)}, held=held, **changes)


@pytest.mark.parametrize(
    ("holder", "kind", "status", "may_run"),
    [
        (Holder.NOBODY, AcquireClaim, "False", False),
        (Holder.UNKNOWN, CheckHolder, "False", False),
        (Holder.GONE, TakeOverClaim, "False", False),
        (Holder.OTHER, None, "False", False),
        (Holder.PROVISIONAL, None, "False", False),
        (Holder.OURS, None, "True", True),
    ],
)
def test_a_declared_phone(holder: Holder, kind: type | None, status: str, may_run: bool) -> None:
    found = decide(with_holder(holder))
    assert [type(action) for action in found.actions] == ([kind] if kind else [])
    assert (found.condition.status, found.may_run) == (status, may_run)


def test_the_holder_is_named_only_in_the_same_namespace() -> None:
    near = with_holder(Holder.OTHER)
    assert decide(near).condition.text.startswith("Held by team/other. ")
    far = replace(near, claims={PHONE: replace(near.claims[PHONE], held_by=None)})
    assert "Held by" not in decide(far).condition.text


def test_who_has_paired_the_number_takes_it_from_who_has_not() -> None:
    found = decide(with_holder(Holder.PROVISIONAL, status={"session": connected_report()}))
    assert [type(action) for action in found.actions] == [TakeOverClaim]


def test_no_phone_at_all() -> None:
    found = decide(observed(session(phone=None)))
    assert (found.condition.reason, found.may_run, found.phone) == (Reason.NOT_DECLARED, True, None)


@pytest.mark.parametrize(
    ("holder", "kind", "reason", "rejected"),
    [
        (Holder.NOBODY, AcquireClaim, Reason.PHONE_CLAIM_CONFLICT, None),
        (Holder.OURS, None, Reason.CLAIMED, None),
        (Holder.PROVISIONAL, TakeOverClaim, Reason.PHONE_CLAIM_CONFLICT, None),
        (Holder.OTHER, None, Reason.PHONE_CLAIM_CONFLICT, PHONE),
    ],
)
def test_a_scanned_phone_is_claimed(holder: Holder, kind: type | None, reason: Reason, rejected: str | None) -> None:
    of = session(phone=None, status={"session": connected_report()})
    held = (lease(),) if holder is Holder.OURS else ()
    found = decide(observed(of, claims={PHONE: claim(holder)}, held=held))
    assert [type(action) for action in found.actions] == ([kind] if kind else [])
    assert (found.condition.reason, found.rejected_phone, found.may_run) == (reason, rejected, True)


def test_a_rejected_phone_stays_rejected_until_a_new_request() -> None:
    status = {"session": report("Held", "PhoneClaimConflict")}
    of = session(phone=None, status=status)
    held_back = observed(of, pod=told_pod(of, Wish(rejected_phone=PHONE)))
    assert decide(held_back).rejected_phone == PHONE
    assert decide(held_back).condition.reason is Reason.PHONE_CLAIM_CONFLICT
    of = session(phone=None, status=status | {"relink": {"requestID": "new", "tokenHash": "h"}})
    asked_again = observed(of, pod=told_pod(of, Wish(rejected_phone=PHONE)))
    assert decide(asked_again).rejected_phone is None


def test_a_new_number_is_claimed_before_the_old_one_is_given_up() -> None:
    of = session(phone=OTHER_PHONE, status={"session": connected_report(PHONE)})
    running = told_pod(of, Wish(phone=PHONE))
    old, new = claim(Holder.OURS, "phone-1"), claim(Holder.OTHER, "phone-2")
    refused = decide(observed(of, pod=running, claims={PHONE: old, OTHER_PHONE: new}, held=(lease("phone-1"),)))
    assert (refused.condition.reason, refused.phone, refused.may_run, refused.actions) == (
        Reason.HELD_BY_OTHER,
        PHONE,
        True,
        (),
    )
    both = (lease("phone-1"), lease("phone-2"))
    mine = {PHONE: old, OTHER_PHONE: claim(Holder.OURS, "phone-2")}
    granted = decide(observed(of, pod=running, claims=mine, held=both))
    assert (granted.phone, granted.actions) == (OTHER_PHONE, ())
    of = session(phone=OTHER_PHONE, status={"session": NOT_PAIRED})
    wiped = decide(observed(of, pod=told_pod(of), claims={OTHER_PHONE: mine[OTHER_PHONE]}, held=both))
    assert wiped.actions == (ReleaseClaim(lease("phone-1")),)


@pytest.mark.parametrize(
    ("told", "ours", "phone", "may_run"),
    [
        pytest.param(Wish(phone=PHONE), (PHONE,), PHONE, True, id="told the former number"),
        pytest.param(Wish(phone=None), (PHONE,), PHONE, True, id="told none, and the former one is linked"),
        pytest.param(Wish(phone=OTHER_PHONE), (PHONE,), PHONE, True, id="told the new one, whose claim was lost"),
        pytest.param(Wish(phone=THIRD_PHONE), (PHONE,), PHONE, True, id="told another one that is not ours"),
        pytest.param(None, (PHONE,), PHONE, True, id="its pod was evicted"),
        pytest.param(Wish(phone=PHONE), (), OTHER_PHONE, False, id="no claim is ours"),
    ],
)
def test_a_session_goes_on_with_its_former_number_while_the_new_one_is_held(
    told: Wish | None, ours: tuple[str, ...], phone: str, may_run: bool
) -> None:
    of = session(phone=OTHER_PHONE, status={"session": connected_report(PHONE)})
    claims = {
        number: claim(Holder.OURS if number in ours else Holder.OTHER, f"phone-{number}")
        for number in (PHONE, OTHER_PHONE, THIRD_PHONE)
    }
    found = decide(observed(of, pod=told_pod(of, told) if told is not None else None, claims=claims))
    assert (found.condition.reason, found.phone, found.may_run) == (Reason.HELD_BY_OTHER, phone, may_run)


def test_a_phone_taken_out_of_the_spec_stays_claimed_while_it_is_linked() -> None:
    of = session(phone=None, status={"session": connected_report()})
    found = decide(observed(of, claims={PHONE: claim(Holder.OURS)}, held=(lease(),)))
    assert (found.actions, found.condition.reason) == ((), Reason.CLAIMED)


@pytest.mark.parametrize(
    ("of", "pod_there", "reason"),
    [
        pytest.param(session(spec={"suspend": True}), False, Reason.SUSPENDED, id="suspended before it paired"),
        pytest.param(session(spec={"suspend": True}), True, Reason.CLAIMED, id="not before the pod is gone"),
        pytest.param(
            session(spec={"suspend": True}, status={"session": connected_report()}),
            False,
            Reason.CLAIMED,
            id="suspended, but paired",
        ),
        pytest.param(
            session(status={"session": report("Failed", "AttemptsExhausted", pairing={"state": "Exhausted"})}),
            True,
            Reason.ATTEMPTS_EXHAUSTED,
            id="nobody scanned",
        ),
        pytest.param(
            session(
                status={
                    "session": report("Failed", "AttemptsExhausted", pairing={"state": "Exhausted"}),
                    "relink": {"requestID": "r"},
                }
            ),
            True,
            Reason.CLAIMED,
            id="nobody scanned, but asked again",
        ),
    ],
)
def test_a_claim_that_never_paired_is_provisional(of: Any, pod_there: bool, reason: Reason) -> None:
    found = decide(observed(of, pod=told_pod(of) if pod_there else None))
    assert found.condition.reason is reason
    assert found.actions == (() if reason is Reason.CLAIMED else (ReleaseClaim(lease()),))


def test_credentials_that_are_not_reported_yet_keep_their_claim() -> None:
    starting = {"podUID": "new", "machine": "Starting"}
    of = session(phone=None, status={"session": starting, "authPaired": True, "phone": PHONE})
    assert phones_of(of, None) == {PHONE}
    assert decide(observed(of, claims={PHONE: claim(Holder.OURS)}, held=(lease(),))).actions == ()


def test_the_scope_is_part_of_the_name() -> None:
    of = session()
    other = session(spec={"tenant": "other"})
    cluster = replace(OPTIONS, claim_scope=ClaimScope.CLUSTER)
    assert lease_name(of, PHONE, OPTIONS) != lease_name(other, PHONE, OPTIONS)
    assert lease_name(of, PHONE, cluster) == lease_name(other, PHONE, cluster)
    assert lease_name(of, PHONE, OPTIONS) != lease_name(of, OTHER_PHONE, OPTIONS)
    assert "1555" not in lease_name(of, PHONE, OPTIONS)


NONSENSE = "+9991234567"


@pytest.mark.parametrize(
    ("status", "told", "phone", "may_run"),
    [
        pytest.param({}, None, None, False, id="new"),
        pytest.param({"session": connected_report()}, Wish(phone=PHONE), PHONE, True, id="linked"),
        pytest.param({"session": connected_report()}, None, PHONE, True, id="linked, its pod was evicted"),
        pytest.param({"session": NOT_PAIRED}, Wish(phone=PHONE), PHONE, True, id="shows a QR for the former number"),
        pytest.param({"session": NOT_PAIRED}, Wish(phone=NONSENSE), None, False, id="told by an earlier version"),
    ],
)
def test_a_number_that_cannot_exist_is_told_and_costs_nothing(
    status: dict[str, Any], told: Wish | None, phone: str | None, may_run: bool
) -> None:
    of = session(phone=NONSENSE, status=status)
    claims = {NONSENSE: claim(Holder.NOBODY, "phone-2"), PHONE: claim(Holder.OURS)}
    found = decide(observed(of, pod=told_pod(of, told) if told is not None else None, claims=claims, held=(lease(),)))
    assert (found.phone, found.may_run, found.actions) == (phone, may_run, ())
    assert (found.condition.status, found.condition.reason) == ("False", Reason.INVALID_SPEC)
    assert "spec.phone: " in found.condition.text
    assert NONSENSE[1:] not in found.condition.text


def test_a_linked_number_is_one_whatever_the_library_knows() -> None:
    of = session(phone=NONSENSE, status={"session": connected_report(NONSENSE)})
    found = decide(observed(of, claims={NONSENSE: claim(Holder.OURS)}))
    assert (found.condition.reason, found.may_run) == (Reason.CLAIMED, True)


@pytest.mark.parametrize(
    ("declared", "jid"), [("+5511987654321", "+551187654321"), ("+5215512345678", "+525512345678")]
)
def test_another_spelling_of_the_linked_number_is_the_same_claim(declared: str, jid: str) -> None:
    of = session(phone=declared, status={"session": connected_report(jid)})
    assert lease_name(of, declared, OPTIONS) == lease_name(of, jid, OPTIONS)
    theirs = {declared: claim(Holder.PROVISIONAL), jid: claim(Holder.PROVISIONAL)}
    assert [type(action) for action in decide(observed(of, claims=theirs, held=())).actions] == [TakeOverClaim]
    ours = {declared: claim(Holder.OURS), jid: claim(Holder.OURS)}
    found = decide(observed(of, claims=ours, held=(lease(),)))
    assert (found.condition.reason, found.phone, found.actions) == (Reason.CLAIMED, declared, ())


@pytest.mark.parametrize(
    ("of", "pod_there", "released"),
    [
        pytest.param(session(phone=NONSENSE, spec={"suspend": True}), False, True, id="suspended before it paired"),
        pytest.param(session(phone=NONSENSE, spec={"suspend": True}), True, False, id="not before the pod is gone"),
        pytest.param(
            session(phone=NONSENSE, spec={"suspend": True}, status={"session": connected_report()}),
            False,
            False,
            id="suspended, but paired",
        ),
    ],
)
def test_a_number_that_cannot_exist_keeps_no_claim_that_never_paired(of: Any, pod_there: bool, released: bool) -> None:
    claims = {NONSENSE: claim(Holder.NOBODY, "phone-2"), PHONE: claim(Holder.OURS)}
    running = told_pod(of, Wish(phone=NONSENSE)) if pod_there else None
    found = decide(observed(of, pod=running, claims=claims, held=(lease(),)))
    assert found.condition.reason is Reason.INVALID_SPEC
    assert found.actions == ((ReleaseClaim(lease()),) if released else ())


def test_a_lease_named_after_the_other_spelling_is_exchanged() -> None:
    declared, jid = "+5511987654321", "+551187654321"
    former, new = lease("phone-former"), lease("phone-new")
    of = session(phone=declared, status={"session": connected_report(jid)})
    free = {number: claim(Holder.NOBODY, "phone-new") for number in (declared, jid)}
    assert decide(observed(of, claims=free, held=(former,))).actions == (AcquireClaim("phone-new"),)
    ours = {number: claim(Holder.OURS, "phone-new") for number in (declared, jid)}
    found = decide(observed(of, claims=ours, held=(former, new)))
    assert (found.actions, found.condition.reason) == ((ReleaseClaim(former),), Reason.CLAIMED)


@pytest.mark.parametrize("declared", ["+5511987654321", None])
def test_who_loses_the_exchange_keeps_nothing(declared: str | None) -> None:
    jid = "+551187654321"
    former = lease("phone-former")
    of = session(phone=declared, status={"session": connected_report(jid)})
    theirs = {number: claim(Holder.OTHER, "phone-new") for number in (declared, jid) if number is not None}
    found = decide(observed(of, claims=theirs, held=(former,)))
    assert (found.actions, found.condition.status) == ((ReleaseClaim(former),), "False")
