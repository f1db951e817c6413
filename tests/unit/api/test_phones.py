import pytest

from whatsapp_operator.api.phones import canonical, same_account


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+5511987654321", "+551187654321"),
        ("+5215512345678", "+525512345678"),
        ("+5491123456789", "+541123456789"),
        ("+15551230001", "+15551230001"),
    ],
    ids=["Brazil", "Mexico", "Argentina", "elsewhere"],
)
def test_spellings_of_one_account(one: str, other: str) -> None:
    assert same_account(one, other)
    assert canonical(canonical(one)) == canonical(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+5511932345678", "+551132345678"),  # a mobile number, and a landline that lacks the 9
        ("+15551230001", "+15551230002"),
        ("+4915512345678", "+495512345678"),
        (None, None),
        ("+15551230001", None),
    ],
)
def test_other_accounts(one: str | None, other: str | None) -> None:
    assert not same_account(one, other)
