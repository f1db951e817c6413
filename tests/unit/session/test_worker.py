import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.waiting import eventually
from whatsapp_operator.session import process, wire, worker
from whatsapp_operator.session.process import WorkerProcess, worker_environment
from whatsapp_operator.session.worker import Channel, Worker, classify_code_error, classify_connect_error

DIAL = (
    "failed to dial whatsapp web websocket: failed to WebSocket dial: failed to send handshake request: "
    'Get "https://web.whatsapp.com/ws/chat": '
)


@pytest.mark.parametrize(
    ("text", "with_proxy", "kind", "status"),
    [
        (DIAL + "proxyconnect tcp: dial tcp 10.0.0.1:3128: connect: connection refused", True, "proxy", 0),
        (DIAL + "socks connect tcp 10.0.0.1:1080->web.whatsapp.com:443: EOF", True, "proxy", 0),
        (DIAL + "Proxy Authentication Required", True, "proxy", 407),
        (DIAL + "Forbidden", True, "proxy", 403),
        (DIAL + "tls: failed to verify certificate: x509: certificate signed by unknown authority", True, "tls", 0),
        (DIAL + "dial tcp: lookup web.whatsapp.com on 10.0.0.2:53: no such host", False, "dns", 0),
        (DIAL + "dial tcp 31.13.0.1:443: i/o timeout", False, "network", 0),
        ("unable to open database file: no such file or directory", False, "storage", 0),
        ("required field Reason not set", False, "other", 0),
        ("proto: required field neonize.TemporaryBan.Code not set", False, "ban", 0),
        ("proto: required field neonize.ConnectFailure.Reason not set", False, "refused", 0),
        (
            DIAL + "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
            True,
            "clock",
            0,
        ),
        ("noise handshake failed: failed to verify server cert: leaf cert cert certificate expired", True, "clock", 0),
    ],
)
def test_connect_errors_are_told_apart(text: str, with_proxy: bool, kind: str, status: int) -> None:
    ended = classify_connect_error(text, with_proxy=with_proxy)
    assert (ended.kind, ended.status) == (kind, status)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("info query returned status 429: rate-overlimit", "rate_limited"),
        ("phone number too short", "invalid_phone"),
        ("international phone number required (must not start with 0)", "invalid_phone"),
        ("websocket not connected", "other"),
    ],
)
def test_code_errors_are_told_apart(text: str, kind: str) -> None:
    assert classify_code_error(text).kind == kind


def test_the_worker_gets_little_of_the_environment(tmp_path: Path) -> None:
    given = {"PATH": "/bin", "PYTHONPATH": "/app", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "HTTPS_PROXY": "http://x"}
    expected = {"PATH": "/bin", "PYTHONPATH": "/app", "NEONIZE_BOT_TAG": "off"}
    assert worker_environment(tmp_path / "absent", given) == expected
    assert worker_environment(tmp_path, given) == {**expected, "SSL_CERT_DIR": str(tmp_path)}


class DialingLibrary:
    """It answers once it has dialled."""

    is_logged_in = True

    def __init__(self) -> None:
        self.dialled = threading.Event()

    @property
    def is_connected(self) -> bool:
        return self.dialled.wait(30)


def test_a_library_that_dials_keeps_no_pong_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PROBE_TIMEOUT", 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lines = ours.makefile("rb")
        asked = Worker(Channel(theirs), wire.Start("db", "Chrome (Linux)"))
        asked._client = library = DialingLibrary()
        asked._opened = True

        def pong() -> wire.Pong:
            asked.handle(wire.Ping(1))
            answer = wire.decode_event(lines.readline())
            assert isinstance(answer, wire.Pong)
            return answer

        for _ in range(3):
            assert (pong().connected, pong().logged_in) == (False, False)
        library.dialled.set()
        eventually(lambda: pong().connected, "the end of the dial")
        lines.close()


def test_a_log_out_waits_for_no_message() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        lines = ours.makefile("rb")
        asked = Worker(Channel(theirs), wire.Start("db", "Chrome (Linux)"))
        asked._client = SimpleNamespace(logout=lambda: None)
        sending = threading.Event()
        threading.Thread(target=asked._run_calls, daemon=True).start()
        asked._calls.put(sending.wait)
        asked.handle(wire.Logout())
        assert wire.decode_event(lines.readline()) == wire.LogoutDone("")
        sending.set()
        lines.close()


async def test_a_worker_is_watched_from_when_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PONG_TIMEOUT", 0.001)
    watched = WorkerProcess(lambda _: None, ping=0.001)
    watching = asyncio.ensure_future(watched._watch())
    assert await asyncio.wait({watching}, timeout=0.1) == (set(), {watching}), "it loads its library"
    watched._started.set()
    await asyncio.wait_for(watching, 10)


async def test_an_answer_that_is_read_as_its_time_is_over_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PONG_TIMEOUT", 0.0)
    watched = WorkerProcess(lambda _: None, ping=0.0)
    watched._started.set()
    answers = iter(range(3))

    def send(_: wire.Command) -> None:
        if next(answers, None) is not None:
            asyncio.get_running_loop().call_soon(watched._pong.set)

    monkeypatch.setattr(watched, "send", send)
    await watched._watch()
    assert list(answers) == []


async def test_a_worker_that_the_kernel_cannot_end_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "END_TIMEOUT", 0.01)
    stuck = WorkerProcess(lambda _: None, ping=5.0)
    monkeypatch.setattr(stuck._exited, "set", lambda: None)
    async with asyncio.timeout(30):
        await stuck.run(wire.Start(str(tmp_path / "db"), "Chrome (Linux)"), {})


def in_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_the_supervisor_needs_the_standard_library_only() -> None:
    code = """
import sys
sys.path.insert(0, "operator")
before = set(sys.modules)
import whatsapp_operator.session.__main__
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - sys.stdlib_module_names))
"""
    assert in_python(code) == "['whatsapp_operator']"


def test_unused_modules_are_loaded_on_first_use_only() -> None:
    code = """
import io, sys
sys.path.insert(0, "operator")
from whatsapp_operator.session import slim
slim.install()
import neonize
from neonize.utils import calc
heavy = {"bs4", "urllib3", "rich", "PIL._imaging", "segno.encoder", "phonenumbers.data"}
print(sorted(heavy & sys.modules.keys()), neonize.client.Image)
from PIL import Image
image = Image.new("RGB", (4, 2))
print(calc.crop_image(image).size)
from phonenumbers import parse
print(parse("+15551230001").country_code)
"""
    lines = in_python(code).splitlines()
    assert lines[0].startswith("[] <whatsapp_operator.session.slim.")
    assert lines[1:] == ["(2, 2)", "1"]
