"""The thin edges: HTTP pages, the message socket, the desired-state file, the API client, the environment."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.recording_api import make_certificate
from whatsapp_operator.api import names
from whatsapp_operator.session import desired, http, messages, wire
from whatsapp_operator.session.kubernetes_api import ApiError, KubernetesAPI
from whatsapp_operator.session.metrics import HELP, Metrics
from whatsapp_operator.session.model import Desired
from whatsapp_operator.session.settings import Settings, SettingsError

ENVIRONMENT = {
    "WHATSAPP_NAMESPACE": "shop",
    "WHATSAPP_SESSION": "front",
    "WHATSAPP_TENANT": "acme",
    "WHATSAPP_POD_UID": "uid",
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
}


def test_settings_of_the_pod() -> None:
    settings = Settings.from_environment({**ENVIRONMENT, "WHATSAPP_PROXY_URL": "http://user:hunter2@proxy:1"})
    assert settings.data_dir == Path(names.DATA_DIR)
    assert settings.api_port == 443
    assert settings.proxy_url == "http://user:hunter2@proxy:1"
    assert "hunter2" not in repr(settings)
    assert settings.session_uid is None, "an older operator does not tell it"
    assert Settings.from_environment({**ENVIRONMENT, "WHATSAPP_SESSION_UID": "u"}).session_uid == "u"
    assert Settings.from_environment(ENVIRONMENT).proxy_url is None
    empty = Settings.from_environment({**ENVIRONMENT, "WHATSAPP_PROXY_URL": ""})
    assert empty.proxy_url == "", "a Secret without a URL does not mean to go without a proxy"


@pytest.mark.parametrize("missing", ENVIRONMENT)
def test_settings_name_what_is_missing(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        Settings.from_environment({name: value for name, value in ENVIRONMENT.items() if name != missing})


@pytest.mark.parametrize(("name", "value"), [("WHATSAPP_LOG_LEVEL", "loud"), ("KUBERNETES_SERVICE_PORT", "tcp://")])
def test_settings_name_what_cannot_be_used(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({**ENVIRONMENT, name: value})


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        ("GET /healthz HTTP/1.1", "HTTP/1.1 200 OK"),
        ("GET /healthz?verbose HTTP/1.1", "HTTP/1.1 200 OK"),
        ("GET /readyz HTTP/1.1", "HTTP/1.1 503 Unavailable"),
        ("POST /healthz HTTP/1.1", "HTTP/1.1 405 Method Not Allowed"),
        ("GET /secrets HTTP/1.1", "HTTP/1.1 404 Not Found"),
        ("nonsense", "HTTP/1.1 400 Bad Request"),
    ],
)
async def test_http_pages(request_line: str, answer: str) -> None:
    pages: dict[str, http.Page] = {"/healthz": lambda: (200, "ok\n"), "/readyz": lambda: (503, "not yet\n")}
    server = await http.serve("127.0.0.1", 0, pages)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(f"{request_line}\r\n\r\n".encode())
        lines = (await reader.read()).decode().split("\r\n")
        writer.close()
        await writer.wait_closed()
    assert lines[0] == answer


def test_metrics_have_help_and_type_and_escape_nothing() -> None:
    metrics = Metrics()
    metrics.add("whatsapp_session_connections_lost_total", 2, reason="Reconnecting")
    metrics.set("whatsapp_session_connected", 1)
    lines = metrics.render().splitlines()
    assert 'whatsapp_session_connections_lost_total{reason="Reconnecting"} 2' in lines
    assert "whatsapp_session_connected 1" in lines
    assert sum(line.startswith("# TYPE") for line in lines) == len(HELP)
    assert "whatsapp_session_undecryptable_messages_total 0" in lines, "before the first"
    metrics.clear("whatsapp_session_connected")
    assert "whatsapp_session_connected 1" not in metrics.render().splitlines()


def test_metrics_are_named_as_prometheus_asks() -> None:
    for name, (kind, text, _) in HELP.items():
        assert name.startswith("whatsapp_session_")
        assert name.endswith("_total") is (kind == "counter")
        assert text.endswith(".")


@asynccontextmanager
async def message_socket(tmp_path: Path, sender: messages.Sender) -> AsyncIterator[tuple[messages.MessageServer, Path]]:
    path = tmp_path / "m.sock"
    server = messages.MessageServer(sender)
    async with await server.serve(path):
        yield server, path


async def ask(path: Path, *requests: str) -> list[dict[str, object]]:
    reader, writer = await asyncio.open_unix_connection(path)
    answers = []
    for request in requests:
        writer.write(request.encode() + b"\n")
        answers.append(json.loads(await reader.readline()))
    writer.close()
    await writer.wait_closed()
    return answers


async def taken(to: str, text: str) -> wire.SendDone:
    if text == "refuse":
        raise messages.SendError("the session is not connected")
    return wire.SendDone(1, f"id-{to}-{text}", 5, "")


async def test_message_socket_sends(tmp_path: Path) -> None:
    async with message_socket(tmp_path, taken) as (_, path):
        answers = await ask(
            path,
            '{"op": "send", "to": "+15551230001", "text": "hi"}',
            '{"op": "send", "to": "+15551230001", "text": "refuse"}',
            '{"op": "send", "to": "15551230001", "text": "hi"}',
            '{"op": "send", "to": "+15551230001", "text": ""}',
            '{"op": "dance"}',
            "nonsense",
        )
    assert answers[0] == {"id": "id-15551230001-hi", "timestamp": 5}
    assert answers[1] == {"error": "the session is not connected"}
    for answer in answers[2:]:
        assert answer.keys() == {"error"}
        assert "1555123" not in str(answer["error"]) or "+15551230002" in str(answer["error"])


async def test_message_socket_keeps_what_nobody_received_yet(tmp_path: Path) -> None:
    async with message_socket(tmp_path, taken) as (server, path):
        for number in range(messages.BACKLOG + 5):
            server.deliver(wire.MessageReceived(f"id{number}", "+15551230001", "text", number))
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"op": "receive"}\n')
        received = [json.loads(await reader.readline())["id"] for _ in range(messages.BACKLOG)]
        server.deliver(wire.MessageReceived("live", "+15551230001", "text", 0))
        received.append(json.loads(await reader.readline())["id"])
        writer.close()
        await writer.wait_closed()
    assert received == [f"id{number}" for number in range(5, messages.BACKLOG + 5)] + ["live"]


DOCUMENT = {
    "phone": None,
    "pairing": {"method": "QRCode", "attempts": 3, "displayName": "Chrome (Linux)"},
    "recovery": {"onLoggedOut": "Relink", "inactiveExpirySeconds": 1},
}


async def test_desired_state_is_watched_as_the_kubelet_swaps_it(tmp_path: Path) -> None:
    """Directories behind a symbolic link `..data`, swapped by rename."""

    def swap(version: int, text: str) -> None:
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "desired-state.json").write_text(text)
        (tmp_path / "..new").symlink_to(f"..{version}")
        (tmp_path / "..new").replace(tmp_path / "..data")

    path = tmp_path / "desired-state.json"
    path.symlink_to("..data/desired-state.json")
    watching = desired.watch(path, interval=0.005)

    async def following() -> Desired:
        async with asyncio.timeout(10):
            return await anext(watching)

    first = asyncio.ensure_future(following())
    swap(1, json.dumps(DOCUMENT))
    assert (await first).unlink is False
    swap(2, json.dumps({**DOCUMENT}, indent=2))  # the same, written otherwise
    swap(3, "{half")
    swap(4, json.dumps({**DOCUMENT, "unlink": True}))
    assert (await following()).unlink is True
    await watching.aclose()  # type: ignore[attr-defined]


async def test_an_api_server_that_is_away_is_status_0(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    (tmp_path / "ca.crt").write_text("")
    with pytest.raises(ApiError) as caught:
        await KubernetesAPI("127.0.0.1", 1, tmp_path).merge_patch("/x", {})
    assert caught.value.status == 0


async def test_a_silent_api_server_is_not_waited_for(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    (tmp_path / "token").write_text("token")
    make_certificate(tmp_path)
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        api = KubernetesAPI("127.0.0.1", server.sockets[0].getsockname()[1], tmp_path, timeout=0.1)
        with pytest.raises(ApiError) as caught:
            await api.merge_patch("/x", {})
    assert caught.value.status == 0
