"""The simulator's command line, its files, its control API and its proxy, without a WhatsApp client."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.simulator_process import PYTHONPATH, SimulatorProcess
from whatsapp_simulator.trust import root_in

PHONE = "15551230001"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator") / "new" / "state") as running:
        running.add_phone(f"+{PHONE}")
        yield running


def test_the_files_that_others_need(simulator: SimulatorProcess) -> None:
    bundle = simulator.state / "trust.pem"
    assert root_in(bundle.read_text()).hex() == simulator.root
    for name in ("trust.pem", "ca.crt"):
        context = ssl.create_default_context(cafile=str(simulator.state / name))
        assert context.cert_store_stats()["x509_ca"] == 1
    assert {path.stat().st_mode & 0o777 for path in simulator.state.glob("state.db*")} == {0o600}


def test_it_ends_when_asked(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path / "state") as simulator:
        assert simulator.stop() == 0
        simulator.start()


@pytest.mark.parametrize("arguments", [[], ["--state", "x", "--refs", "0"], ["--state", "x", "--proxy-port", "no"]])
def test_a_wrong_command_line_is_explained(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "whatsapp_simulator", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_a_port_that_is_taken_is_named(simulator: SimulatorProcess, tmp_path: Path) -> None:
    arguments = ["--state", str(tmp_path), "--control-port", str(simulator.ports["control"])]
    done = subprocess.run(
        [sys.executable, "-m", "whatsapp_simulator", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    assert done.returncode != 0
    assert "address already in use" in done.stderr


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "title"),
    [
        ("GET", "/nothing", None, 404, "not-found"),
        ("PUT", "/phones", {}, 405, "method-not-allowed"),
        ("POST", "/phones", [], 400, "malformed-body"),
        ("POST", "/phones", {}, 422, "malformed-number"),
        ("POST", "/phones", {"number": "0123456789"}, 422, "malformed-number"),
        ("POST", "/phones", {"number": "123"}, 422, "malformed-number"),
        ("POST", "/phones", {"number": 15551230009}, 422, "malformed-number"),
        ("POST", "/phones", {"number": "15551230009", "name": ""}, 422, "malformed-body"),
        ("POST", "/phones", {"number": "15551230009", "scanAfterSeconds": -1}, 422, "malformed-body"),
        ("POST", "/phones", {"number": PHONE}, 409, "phone-exists"),
        ("GET", "/phones/15559999999", None, 404, "unknown-phone"),
        ("GET", "/phones/15559999999/devices", None, 404, "unknown-phone"),
        ("GET", "/phones/15559999999/inbox", None, 404, "unknown-phone"),
        ("POST", f"/phones/{PHONE}/scan", {}, 422, "malformed-body"),
        ("POST", f"/phones/{PHONE}/scan", {"qr": "x", "afterSeconds": "soon"}, 422, "malformed-body"),
        ("POST", f"/phones/{PHONE}/scan", {"qr": "x"}, 422, "malformed-qr"),
        ("POST", f"/phones/{PHONE}/enter-code", {"code": "x"}, 422, "malformed-code"),
        ("POST", f"/phones/{PHONE}/enter-code", {"code": "ABCD-EFGH"}, 404, "no-code-waiting"),
        ("POST", f"/phones/{PHONE}/messages", {"to": "15559999999", "text": "x"}, 404, "unknown-phone"),
        ("POST", f"/phones/{PHONE}/messages", {"to": PHONE}, 422, "malformed-body"),
        ("DELETE", f"/phones/{PHONE}/devices/1", None, 404, "unknown-device"),
        ("DELETE", f"/phones/{PHONE}/devices/first", None, 404, "not-found"),
        ("POST", "/faults", {"kind": "unknown"}, 422, "malformed-fault"),
        ("POST", "/faults", {"kind": "few-refs", "refs": 0}, 422, "malformed-fault"),
        ("DELETE", "/faults/1", None, 404, "unknown-fault"),
    ],
)
def test_what_cannot_be_done_is_named(
    simulator: SimulatorProcess, method: str, path: str, body: Any, status: int, title: str
) -> None:
    answer = simulator.call(method, path, body)
    assert (answer.status, answer.body["title"], answer.body["status"]) == (status, title, status)
    assert answer.body["type"] == f"urn:whatsapp-simulator:{title}"
    assert answer.body["detail"]


def test_phones_are_listed(simulator: SimulatorProcess) -> None:
    (phone,) = simulator.call("GET", "/phones").body["phones"]
    assert phone == simulator.call("GET", f"/phones/+{PHONE}").body
    assert phone["number"] == PHONE
    assert phone["lid"].endswith("@lid")
    assert phone["devices"] == []
    assert simulator.call("GET", "/healthz").body == {"status": "ok", "connections": 0}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET http://web.whatsapp.com/ HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"405"),
        (b"CONNECT web.whatsapp.com:80 HTTP/1.1\r\n\r\n", b"403"),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n", b"403"),
        (b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\nX: " + b"a" * 20_000, b"431"),
        (b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n", b"200"),
    ],
)
def test_the_proxy_leads_to_one_host_only(simulator: SimulatorProcess, request_: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", simulator.ports["proxy"]), timeout=10) as connection:
        connection.sendall(request_)
        assert connection.recv(12) == b"HTTP/1.1 " + status


def test_a_stream_that_is_no_tls_is_cut(simulator: SimulatorProcess) -> None:
    with socket.create_connection(("127.0.0.1", simulator.ports["proxy"]), timeout=10) as connection:
        connection.sendall(b"CONNECT web.whatsapp.com:443 HTTP/1.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.sendall(b"this is no TLS\r\n" * 10)
        connection.settimeout(10)
        received = b"x"
        while received:
            try:
                received = connection.recv(100)
            except ConnectionResetError:
                break
    assert simulator.call("GET", "/healthz").status == 200
