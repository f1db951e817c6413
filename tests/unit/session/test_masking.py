import io
import json
import logging
import secrets

import pytest

from whatsapp_operator.session import logs
from whatsapp_operator.session.masking import MASK, mask

QR = (
    "https://wa.me/settings/linked_devices#2@OfllebC2GwdJ1kJjM0nBWgy7GaeY0c6eIds7NfQTt+bapf0sNNbcWfrV0FbcaNhI,"
    "4ZbiWHSz+EHMCbbMUupf5owviz9sQN88VhWz5eipR2o=,te8unM+zt+sMo9dYuHUwkJjkX5rZOCzy8fXD52xXURg=,"
    "cWOa0xHQ6vJDwFP260ytu77q7rosidA6lsjFwITifiY=,6"
)
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZXNzaW9uIn0.c2lnbmF0dXJl-_"

SECRETS = {
    "number": "15551230001",
    "E.164 number": "+15551230001",
    "grouped number": "+1 555 123-0001",
    "short number": "+1234567",
    "JID": "15551230001@s.whatsapp.net",
    "device JID": "15551230001:3@s.whatsapp.net",
    "LID": "915551230001:1@lid",
    "group": "120363041234567890@g.us",
    "QR": QR,
    "bare QR": QR.split("#")[1],
    "key in base64": "4ZbiWHSz+EHMCbbMUupf5owviz9sQN88VhWz5eipR2o=",
    "key in hex": "142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b",
    "pairing code": "K7QF-2MZX",
    "token": TOKEN,
    "bearer": f"Bearer {'x' * 12}",
    "password in a URL": "hunter2",
}
AROUND = [
    "{}",
    "Successfully paired {}",
    "dial {}: refused",
    "jid={}",
    '"{}"',
    "({})",
    "<{}>",
    "to {}, then on",
    "id={}&x",
    "{}.",
    "phone:{}",
]


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("around", AROUND)
def test_masks(kind: str, around: str) -> None:
    secret = SECRETS[kind]
    if kind == "password in a URL":
        secret, text = "hunter2", around.format("http://user:hunter2@proxy:8080")
    else:
        text = around.format(secret)
    masked = mask(text)
    assert secret not in masked
    assert MASK in masked
    for part in secret.replace("Bearer ", "").split("#")[-1].split(","):
        if len(part) > 1:
            assert part not in masked


@pytest.mark.parametrize(
    "text",
    [
        "Connected: Connected",
        "the worker ended by itself, status -9",
        "the proxy refuses the connection with status 403",
        "pairing attempt fd73aa9f0ead6661: Failed, Expired",
        "dial tcp 127.0.0.1:9480: connect: connection refused",
        "client version: 2.3000.1047769893",
        "the key wa-front/session-uid 5f2c9a1e77d04b1c",
        "took 1.234567 s",
        "2026-11-21T09:57:10.558+00:00",
    ],
)
def test_leaves_what_is_no_secret(text: str) -> None:
    assert mask(text) == text


def test_log_lines_are_masked_json_with_the_session() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    attempt = secrets.token_hex(8)
    handler.setFormatter(logs.JsonFormatter("front", "acme", lambda: attempt))
    logger = logging.Logger("whatsapp_operator.session.test")
    logger.addHandler(handler)

    try:
        raise ValueError(f"cannot reach {SECRETS['JID']} with {TOKEN}")
    except ValueError:
        logger.exception("for %s", SECRETS["QR"])

    entry = json.loads(stream.getvalue())
    assert entry["session"] == "front"
    assert entry["tenant"] == "acme"
    assert entry["attempt"] == attempt
    assert entry["level"] == "error"
    assert entry["logger"] == "session.test"
    for secret in (SECRETS["JID"], TOKEN, SECRETS["QR"]):
        assert secret not in stream.getvalue()
