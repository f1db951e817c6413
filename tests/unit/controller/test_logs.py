import asyncio
import json
import logging

import pytest

from whatsapp_operator.api.masking import mask
from whatsapp_operator.controller import logs
from whatsapp_operator.controller.logs import ConsoleForm, JsonForm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linked 15551230001:3@s.whatsapp.net now", "linked <jid> now"),
        ("from 99887766554433@lid", "from <jid>"),
        ("phone +15551230001 is held", "phone <phone> is held"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer <token>"),
        ("token eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln", "token <token>"),
        ("http://user:secret@proxy:3128/", "http://<userinfo>@proxy:3128/"),
        ("qr 2@AbCdEfGhIjKlMnOpQrStUvWxYz0123456789,aa=,bb=", "qr <qr>"),
        ("session team/shop, version 15551230001, 3 pods", "session team/shop, version 15551230001, 3 pods"),
    ],
)
def test_what_is_masked(text: str, expected: str) -> None:
    assert mask(text) == expected


def record(message: str, **extra: object) -> logging.LogRecord:
    found = logging.LogRecord("test", logging.INFO, __file__, 1, message, (), None)
    found.__dict__.update(extra)
    return found


def test_json_holds_the_extra_fields_and_no_number() -> None:
    entry = json.loads(JsonForm().format(record("claimed +15551230001", session="team/shop", retry=1.5)))
    assert (entry["message"], entry["session"], entry["retry"], entry["level"]) == (
        "claimed <phone>",
        "team/shop",
        1.5,
        "info",
    )


def test_a_traceback_is_masked_too() -> None:
    try:
        raise ValueError("+15551230001")
    except ValueError as error:
        found = record("failed")
        found.exc_info = (type(error), error, error.__traceback__)
    for form in (JsonForm(), ConsoleForm()):
        text = form.format(found)
        assert "ValueError: <phone>" in text
        assert "15551230001" not in text


async def test_what_a_task_is_about_is_in_its_entries_and_in_no_others() -> None:
    async def work(session: str, attempt: str) -> list[str]:
        logs.about(session=session, attempt=attempt)
        await asyncio.sleep(0)
        return [form.format(record("done", code=500)) for form in (JsonForm(), ConsoleForm())]

    (first, console), (second, _) = await asyncio.gather(
        asyncio.create_task(work("team/shop", "4be1")), asyncio.create_task(work("team/bar", ""))
    )
    assert [json.loads(text).get("session") for text in (first, second)] == ["team/shop", "team/bar"]
    assert [json.loads(text).get("attempt") for text in (first, second)] == ["4be1", None]
    assert console.endswith("done session=team/shop attempt=4be1 code=500")
    assert "session" not in json.loads(JsonForm().format(record("started")))
