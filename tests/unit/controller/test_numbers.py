import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_operator.controller.numbers import fault


@pytest.mark.parametrize(
    "phone",
    [
        pytest.param("+15551230001", id="never assigned"),
        pytest.param("+4917012345678", id="Germany"),
        pytest.param("+5511987654321", id="Brazil"),
        pytest.param("+551187654321", id="Brazil, as before 2012"),
        pytest.param("+5215512345678", id="Mexico, as before 2019"),
        pytest.param("+525512345678", id="Mexico"),
        pytest.param("+5491123456789", id="Argentina, mobile"),
        pytest.param("+541123456789", id="Argentina"),
        pytest.param("+393123456789", id="Italy, mobile"),
        pytest.param("+390612345678", id="Italy, with the 0 that belongs to the number"),
        pytest.param("+2250712345678", id="Ivory Coast, likewise"),
        pytest.param("+447911123456", id="United Kingdom"),
        pytest.param("+919876543210", id="India"),
        pytest.param("+6281234567890", id="Indonesia"),
        pytest.param("+79161234567", id="Russia"),
        pytest.param("+85251234567", id="Hong Kong"),
        pytest.param("+2348012345678", id="Nigeria"),
    ],
)
def test_numbers_that_may_exist(phone: str) -> None:
    assert fault(phone) is None


@pytest.mark.parametrize(
    ("phone", "told"),
    [
        pytest.param("+9991234567", "the calling code of no country", id="no such country"),
        pytest.param("+2101234567", "the calling code of no country", id="an unassigned code"),
        pytest.param("+1555123", "too short for a number of the country calling code +1", id="too short"),
        pytest.param("+15551230", "too short for a number of the country calling code +1", id="without area code"),
        pytest.param("+155512300011", "too long for a number of the country calling code +1", id="too long"),
        pytest.param("+115551230001", "too long for a number of the country calling code +1", id="calling code twice"),
        pytest.param("+49017012345678", "a 0 after +49", id="trunk 0 of Germany"),
        pytest.param("+4407911123456", "a 0 after +44", id="trunk 0 of the United Kingdom"),
        pytest.param(
            "+8525123456789", "longer or shorter than a number of the country calling code +852", id="Hong Kong"
        ),
    ],
)
def test_numbers_that_cannot_exist(phone: str, told: str) -> None:
    found = fault(phone)
    assert found is not None
    assert told in found
    assert phone[4:] not in found


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_every_number_of_that_form_can_be_judged_and_is_never_told(phone: str) -> None:
    found = fault(phone)
    assert found is None or (phone not in found and phone[1:] not in found)
