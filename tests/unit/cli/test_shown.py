"""Of the Secret only what is valid now is taken, whatever else is in it."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from whatsapp_operator.cli.shown import read

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LATER = (NOW + timedelta(seconds=1)).isoformat()


def secret(**texts: str) -> dict[str, dict[str, str]]:
    return {"data": {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}}


def test_a_qr_and_a_code_are_read() -> None:
    for key in ("qr", "code"):
        found = read(secret(expiresAt=LATER, **{key: "text"}), NOW)
        assert found is not None
        assert getattr(found, key) == "text"
        assert "text" not in repr(found)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        secret(expiresAt=LATER),
        secret(qr="text"),
        secret(qr="text", expiresAt=NOW.isoformat()),
        secret(qr="text", expiresAt="soon"),
        secret(qr="", expiresAt=LATER),
        {"data": {"qr": "%%%", "expiresAt": base64.b64encode(LATER.encode()).decode()}},
    ],
    ids=["empty", "no data", "nothing", "without expiry", "expired", "odd expiry", "blank", "no base64"],
)
def test_anything_else_is_nothing(body: dict[str, dict[str, str]]) -> None:
    assert read(body, NOW) is None
