import dataclasses
import json

import pytest

from whatsapp_operator.session import wire

COMMANDS = [
    wire.Start("/x/credentials.db", "Chrome (Linux)", "http://user:hunter2@proxy:1", "15551230001", True),
    wire.Start("/x/credentials.db", "Chrome (Linux)"),
    wire.Logout(),
    wire.Send(1, "15551230001", "hello\nthere"),
    wire.Ping(7),
    wire.Quit(),
]
EVENTS = [
    wire.QRCode("2@secret", "cG5n"),
    wire.PairingCode("ABCD-EFGH"),
    wire.Connected("15551230001:1@s.whatsapp.net", "9:1@lid", "android", "Shop", "Ann"),
    wire.Disconnected(),
    wire.LoggedOut(True),
    wire.ConnectEnded("proxy", 407, "detail"),
    wire.MessageReceived("id", "+15551230001", "text", 1),
    wire.Pong(7, True, False),
    wire.Pong(8, True, True, 12.5, 0.04),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: type(c).__name__)
def test_commands_round_trip(command: wire.Command) -> None:
    line = wire.encode(command)
    assert line.count(b"\n") == 1
    assert wire.decode_command(line) == command


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_events_round_trip(event: wire.WorkerEvent) -> None:
    assert wire.decode_event(wire.encode(event)) == event


@pytest.mark.parametrize(
    "line",
    [
        b"not json 15551230001",
        b"[]",
        b"{}",
        b'{"type": "Nothing"}',
        b'{"type": "Ping"}',
        b'{"type": "Ping", "number": "15551230001"}',
        b'{"type": "Ping", "number": true}',
        b'{"type": "Ping", "number": 1, "more": 1}',
        b'{"type": "Pong", "number": 1, "connected": true, "logged_in": true}',
    ],
)
def test_what_is_no_command_is_refused_without_being_quoted(line: bytes) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.decode_command(line)
    assert "1555" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("message", [*COMMANDS, *EVENTS], ids=lambda m: type(m).__name__)
def test_repr_shows_no_secret(message: wire.Command | wire.WorkerEvent) -> None:
    shown = repr(message)
    for secret in ("1555", "hunter2", "2@secret", "ABCD-EFGH", "Ann", "hello", "detail"):
        assert secret not in shown


def test_every_message_can_be_decoded() -> None:
    classes = {cls for cls in vars(wire).values() if isinstance(cls, type) and dataclasses.is_dataclass(cls)}
    known: set[type] = set()
    for cls in classes:
        document = json.dumps({"type": cls.__name__}).encode()
        for decode in (wire.decode_command, wire.decode_event):
            try:
                decode(document)
                known.add(cls)
            except wire.WireError as error:
                if "unknown type" not in str(error):
                    known.add(cls)
    assert known == classes
