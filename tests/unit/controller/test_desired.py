import pytest

from tests.unit.controller.builders import PHONE, session, wish_of
from whatsapp_operator.api import names
from whatsapp_operator.controller.desired import Wish, document, duration_seconds, parse_wish, wrong_log_level


def test_the_document_is_the_contract_of_the_architecture_page() -> None:
    of = session(spec={"pairing": {"attempts": 5}, "recovery": {"onLoggedOut": "Hold", "inactiveExpiry": "1h30m"}})
    assert wish_of(document(of, Wish(phone=PHONE, relink_request_id="r"))) == {
        "phone": PHONE,
        "pairing": {"method": "QRCode", "attempts": 5, "displayName": "Chrome (Linux)"},
        "recovery": {"onLoggedOut": "Hold", "inactiveExpirySeconds": 5400},
        "relinkRequestID": "r",
        "rejectedPhone": None,
        "unlink": False,
        "expire": False,
        "logLevel": None,
    }


def test_the_default_expiry_is_ninety_days() -> None:
    assert wish_of(document(session(), Wish()))["recovery"]["inactiveExpirySeconds"] == 90 * 86400


def test_what_was_told_is_read_back() -> None:
    wish = Wish(PHONE, "+15551230009", "r", unlink=True, expire=True)
    assert parse_wish(document(session(), wish)) == wish


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", '"x"', "{}", '{"phone":5}', '{"rejectedPhone":[],"relinkRequestID":{}}', '{"unlink":"true"}'],
)
def test_an_unreadable_annotation_is_no_wish(text: str | None) -> None:
    assert parse_wish(text) == Wish()


@pytest.mark.parametrize(
    ("text", "seconds"), [("2160h", 7776000), ("90m", 5400), ("1h0.5s", 3600.5), ("250ms", 0.25), ("1h1m1s", 3661)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("asked", "told", "wrong"),
    [
        (None, None, False),
        ("", None, False),
        ("DEBUG", "DEBUG", False),
        ("warning", "WARNING", False),
        ("trace", None, True),
        ("10", None, True),
    ],
)
def test_a_log_level_is_asked_for_by_annotation(asked: str | None, told: str | None, wrong: bool) -> None:
    of = session(annotations={names.ANNOTATION_LOG_LEVEL: asked} if asked is not None else {})
    assert wish_of(document(of, Wish()))["logLevel"] == told
    found = wrong_log_level(of)
    assert (found is not None) is wrong
    if found is not None:
        assert names.ANNOTATION_LOG_LEVEL in found
        assert "DEBUG, INFO, WARNING, ERROR" in found
