import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_operator.api.names import desired_state_hash
from whatsapp_operator.api.reasons import PairingMethod, Reason, RelinkOutcome
from whatsapp_operator.session.identity import DisplayName, parse_display_name, phone_of
from whatsapp_operator.session.model import (
    Attempt,
    Cause,
    Desired,
    DocumentError,
    FinishedAttempt,
    Hold,
    Journal,
    PairingSpec,
    Removal,
    dump_journal,
    load_journal,
    parse_desired,
)

DOCUMENT = {
    "phone": "+15551230001",
    "pairing": {"method": "PairingCode", "attempts": 5, "displayName": "Edge (Windows)"},
    "recovery": {"onLoggedOut": "Hold", "inactiveExpirySeconds": 3600},
    "relinkRequestID": "5f2c9a1e77d04b1c",
    "rejectedPhone": None,
    "unlink": False,
}


def test_reads_the_document_of_the_contract() -> None:
    assert parse_desired(json.dumps(DOCUMENT)) == Desired(
        phone="+15551230001",
        pairing=PairingSpec(PairingMethod.PAIRING_CODE, 5, "Edge (Windows)"),
        relink_on_logout=False,
        inactive_expiry=3600.0,
        relink_request_id="5f2c9a1e77d04b1c",
        rejected_phone=None,
        unlink=False,
        hash=desired_state_hash(json.dumps(DOCUMENT)),
    )


def test_leaves_what_a_newer_operator_says() -> None:
    newer = parse_desired(json.dumps({**DOCUMENT, "later": {}}))
    known = parse_desired(json.dumps(DOCUMENT))
    assert replace(newer, hash=known.hash) == known
    assert newer.hash != known.hash


@pytest.mark.parametrize(
    "change",
    [
        {"pairing": None},
        {"pairing": {"method": "Smoke", "attempts": 1, "displayName": "x"}},
        {"recovery": {"onLoggedOut": "Maybe", "inactiveExpirySeconds": 1}},
        {"phone": 15551230001},
    ],
)
def test_refuses_what_it_cannot_understand_without_quoting_it(change: dict[str, object]) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_desired(json.dumps({**DOCUMENT, **change}))
    assert "1555" not in str(caught.value)


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    for parse in (parse_desired, load_journal):
        with pytest.raises(DocumentError):
            parse(text)


def test_the_journal_begins_empty_and_round_trips() -> None:
    assert load_journal(dump_journal(Journal())) == Journal()


FULL = Journal(
    seq=1,
    failed=1,
    history=(FinishedAttempt(1, "a", PairingMethod.QR_CODE, 1.0, 2.0, False, Reason.EXPIRED, 0.4, None, None),),
    attempt=Attempt("b", PairingMethod.QR_CODE, 2, 3.0, 4.0, 5.0),
    relink_request_id="r1",
    relink_outcome=RelinkOutcome.COMPLETED,
    removal=Removal(Cause.RELINK, 6.0, request_id="r2"),
    hold=Hold(Reason.TEMPORARY_BAN, 7.0),
)


def test_the_journal_of_a_newer_image_is_read() -> None:
    newer = json.loads(dump_journal(FULL))
    for part in (newer, newer["history"][0], newer["attempt"], newer["removal"], newer["hold"]):
        part["later"] = {"any": "thing"}
    assert load_journal(json.dumps(newer)) == FULL


def test_the_journal_of_an_older_image_is_read() -> None:
    older = json.loads(dump_journal(FULL))
    del older["replaced"], older["last_reason"], older["hold"], older["attempt"]["logins"]
    assert load_journal(json.dumps(older)) == replace(FULL, hold=None)
    assert load_journal('{"version": 1}') == Journal()


def test_a_journal_of_another_version_is_not_guessed_at() -> None:
    text = dump_journal(Journal()).replace('"version": 1', '"version": 2')
    with pytest.raises(DocumentError):
        load_journal(text)


@pytest.mark.parametrize(
    ("text", "name", "code_system"),
    [
        ("Chrome (Linux)", DisplayName("Chrome", "Linux"), "Linux"),
        ("edge (Windows)", DisplayName("Edge", "Windows"), "Windows"),
        ("Safari (Mac OS)", DisplayName("Safari", "Mac OS"), "Mac OS"),
        ("Firefox (Front desk)", DisplayName("Firefox", "Front desk"), "Linux"),
        ("Front desk", DisplayName("Chrome", "Front desk"), "Linux"),
        ("Netscape (Linux)", DisplayName("Chrome", "Netscape (Linux)"), "Linux"),
    ],
)
def test_display_names(text: str, name: DisplayName, code_system: str) -> None:
    assert parse_display_name(text) == name
    assert parse_display_name(text).pairing_code_system == code_system


@pytest.mark.parametrize(
    ("jid", "phone"),
    [
        ("15551230001:3@s.whatsapp.net", "+15551230001"),
        ("15551230001.0:3@s.whatsapp.net", "+15551230001"),
        ("15551230001@s.whatsapp.net", "+15551230001"),
        ("915551230001:3@lid", None),
        ("", None),
    ],
)
def test_the_phone_of_a_jid(jid: str, phone: str | None) -> None:
    assert phone_of(jid) == phone
