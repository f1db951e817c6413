"""A session pod without Kubernetes: the supervisor as a process, and an API server that only records."""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.server
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.simulator_process import ROOT, SimulatorProcess
from tests.waiting import eventually

TOKEN = "a-token-of-the-service-account"
POD_UID = "00000000-0000-4000-8000-000000000001"
QR_CODE = {"method": "QRCode", "attempts": 3, "displayName": "Chrome (Linux)"}
PAIRING_CODE = {**QR_CODE, "method": "PairingCode"}
RELINK = {"onLoggedOut": "Relink", "inactiveExpirySeconds": 7776000}
HOLD = {**RELINK, "onLoggedOut": "Hold"}
SESSION_VARIANT = ROOT / "tests" / "simulator" / "whatsapp_simulator" / "session_variant"


@dataclass(frozen=True)
class Write:
    """One accepted PATCH; `at` in monotonic seconds."""

    at: float
    body: dict[str, Any] = field(repr=False)


class RecordingApi:
    """HTTPS on a free port; takes the two patches of a session, records and merges them.

    `refuse` maps "status" or "secret" to the code it answers with instead, quoting what it was sent; a code of 0 is
    answered by what is no HTTP.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reports: list[Write] = []
        self.secret_writes: list[Write] = []
        self.secret: dict[str, str] = {}
        self.refuse: dict[str, int] = {}
        self.refused = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        certificate = make_certificate(self.directory)
        (self.directory / "token").write_text(TOKEN)
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = api.take(self.path, self.headers, json.loads(body))
                if code == 0:
                    self.wfile.write(b"garbage: " + body + b"\r\n\r\n")
                    return
                text = json.dumps({"kind": "Status", "message": f"not taken: {body.decode()}"}).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the client aborts its connection once it has the status

        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def take(self, path: str, headers: Any, body: dict[str, Any]) -> int:
        """Record one patch; returns the status to answer with."""
        what = {
            "/apis/whatsapp-operator.io/v1alpha1/namespaces/shop/whatsappsessions/front/status": "status",
            "/api/v1/namespaces/shop/secrets/wa-front": "secret",
        }.get(path.partition("?")[0])
        if headers["Authorization"] != f"Bearer {TOKEN}":
            return 401
        if what is None or headers["Content-Type"] != "application/merge-patch+json":
            return 400
        if "fieldManager=whatsapp-session" not in path:
            return 400
        with self._lock:
            if what in self.refuse:
                self.refused += 1
                return self.refuse[what]
            if what == "status":
                assert body.keys() == {"status"}
                assert body["status"].keys() == {"session"}
                self.reports.append(Write(time.monotonic(), body["status"]["session"]))
            else:
                assert body.keys() == {"data"}
                self.secret_writes.append(Write(time.monotonic(), body["data"]))
                merged = {**self.secret, **body["data"]}
                self.secret = {key: value for key, value in merged.items() if value is not None}
        return 200

    @property
    def report(self) -> dict[str, Any]:
        """The last report; empty before the first."""
        return self.reports[-1].body if self.reports else {}

    @property
    def machines(self) -> list[str]:
        return [write.body["machine"] for write in self.reports]

    def shown(self, key: str) -> str | None:
        """A value of the Secret, decoded."""
        value = self.secret.get(key)
        return None if value is None else base64.b64decode(value).decode()


def seconds_to_retry(report: dict[str, Any]) -> float:
    """From the report to the next try that it names."""
    at = [datetime.datetime.fromisoformat(text) for text in (report["connection"]["nextRetryAt"], report["reportedAt"])]
    return (at[0] - at[1]).total_seconds()


def make_certificate(directory: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 as `ca.crt`; returns the file with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "recording API server")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (directory / "ca.crt").write_bytes(pem)
    chain = directory / "server.pem"
    chain.write_bytes(
        pem
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain


class SessionProcess:
    """The supervisor on a volume below `directory`, until the `with` block ends.

    `limits` are those of machine.Limits that differ, in seconds; `desired` what differs in the desired state;
    `volume_size` (as in mount options) puts the volume on a file system of its own, which goes with the process;
    `in_mounts` runs mount and umount there.
    """

    def __init__(
        self,
        directory: Path,
        simulator: SimulatorProcess,
        api: RecordingApi,
        *,
        limits: dict[str, float] | None = None,
        desired: dict[str, Any] | None = None,
        volume_size: str | None = None,
        **settings: Any,
    ) -> None:
        self.directory = directory
        self._simulator = simulator
        self.api = api
        self._settings = {**settings, "limits": limits or {}}
        self._volume_size = volume_size
        self._volume = directory / "volume"
        self.socket = directory / "messages.sock"
        self.desired: dict[str, Any] = {
            "phone": None,
            "pairing": QR_CODE,
            "recovery": RELINK,
            "relinkRequestID": None,
            "rejectedPhone": None,
            "unlink": False,
            "expire": False,
            "logLevel": None,
            **(desired or {}),
        }

    def __enter__(self) -> Self:
        self._volume.mkdir(parents=True)
        (self.directory / "desired").mkdir()
        ca = self.directory / "ca"
        ca.mkdir()
        (ca / "ca.crt").write_text((self._simulator.state / "trust.pem").read_text())
        self.ask()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._log.close()

    def ask(self, **changes: Any) -> None:
        """Change the desired state as the kubelet does: by an atomic swap."""
        self.desired.update(changes)
        new = self.directory / "desired" / "new"
        new.write_text(json.dumps(self.desired))
        new.replace(self.directory / "desired" / "desired-state.json")

    def start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.http_port = free.getsockname()[1]
        settings = {
            "namespace": "shop",
            "session": "front",
            "tenant": "acme",
            "pod_uid": POD_UID,
            "api_host": "127.0.0.1",
            "api_port": self.api.port,
            "proxy_url": self._simulator.proxy_url,
            "log_level": "DEBUG",
            "data_dir": str(self._volume),
            "desired_file": str(self.directory / "desired" / "desired-state.json"),
            "ca_dir": str(self.directory / "ca"),
            "service_account_dir": str(self.api.directory),
            "message_socket": str(self.socket),
            "http_host": "127.0.0.1",
            "http_port": self.http_port,
            **self._settings,
        }
        self._log = (self.directory / "log").open("a")
        self._process = subprocess.Popen(
            [*self._mounted(), sys.executable, "-m", "tests.integration.session_main", json.dumps(settings)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(
                    map(str, (SESSION_VARIANT, ROOT / "operator", ROOT / "tests" / "simulator", ROOT))
                ),
            },
        )

    def _mounted(self) -> list[str]:
        """What makes the volume a file system in a mount namespace of the session alone, and becomes the session."""
        if self._volume_size is None:
            return []
        mount = f'mount -t tmpfs -o size={self._volume_size} volume "$0" && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, str(self._volume)]

    def in_mounts(self, *command: str) -> None:
        """Run a command among the mounts that only the session sees."""
        subprocess.run(["nsenter", "-t", str(self.pid), "-m", *command], check=True)

    @property
    def volume(self) -> Path:
        """The volume as the session sees it."""
        return self._volume if self._volume_size is None else Path(f"/proc/{self.pid}/root{self._volume}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def worker_pids(self) -> list[int]:
        workers = []
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"session.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    workers.append(int(pid))
        return workers

    def kill_worker(self) -> None:
        """SIGKILL to the worker, which runs."""
        (worker,) = self.worker_pids
        os.kill(worker, signal.SIGKILL)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout=20)
        self._log.close()
        return status

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, series: str) -> float:
        """The value of a series, as in `name{label="value"}`; 0 where there is none."""
        values = dict(line.rsplit(" ", 1) for line in self.get("/metrics").splitlines() if not line.startswith("#"))
        return float(values.get(series, 0))

    def reported(
        self, what: str, probe: Callable[[dict[str, Any]], bool], *, since: int | None = None, seconds: float = 60
    ) -> dict[str, Any]:
        """The last report once it fits; with `since`, the first that fits of all but so many."""

        def found() -> dict[str, Any] | None:
            ended = self._process.poll()
            candidates = self.api.reports[-1:] if since is None else self.api.reports[since:]
            fitting = next((write.body for write in candidates if probe(write.body)), None)
            assert fitting or ended is None, f"{what}: the session has ended with status {ended}"
            return fitting

        try:
            return eventually(found, what, seconds=seconds, every=0.02)
        except AssertionError as error:
            told = [(write.body["machine"], write.body["reason"]) for write in self.api.reports]
            raise AssertionError(f"{error}; reported: {told}\n{self.log[-4000:]}") from None

    def machine(self, machine: str, *, since: int | None = None, seconds: float = 60) -> dict[str, Any]:
        return self.reported(machine, lambda report: report["machine"] == machine, since=since, seconds=seconds)

    def told(self, machine: str, reason: str, *, since: int | None = None, seconds: float = 60) -> dict[str, Any]:
        what = (machine, reason)
        return self.reported(str(what), lambda r: (r["machine"], r["reason"]) == what, since=since, seconds=seconds)

    def attempt(self, number: int) -> dict[str, Any]:
        """The report that shows the QR or code of this attempt of the round."""
        return self.reported(
            f"attempt {number}",
            lambda r: r["machine"] in ("ShowingQR", "ShowingCode") and r["pairing"]["attempt"] == number,
        )

    def back(self, before: dict[str, Any]) -> dict[str, Any]:
        """The report of the connection that follows the one that `before` tells of."""
        since = before["connection"]["since"]
        return self.reported("connected again", lambda r: (r["connection"]["since"] or "") > since)

    def qr(self) -> str:
        """The QR text that is shown now."""
        return eventually(lambda: self.api.shown("qr"), "a QR in the Secret", seconds=60, every=0.02)

    def code(self) -> str:
        """The pairing code that is shown now."""
        return eventually(lambda: self.api.shown("code"), "a code in the Secret", seconds=60, every=0.02)

    def pair(self, number: str) -> dict[str, Any]:
        """Scan the QR that is shown or comes, and wait for the report of the connection."""
        self.machine("ShowingQR")
        answer = self._simulator.scan(number, self.qr())
        assert answer.status == 201, answer.body
        return self.machine("Connected")

    def message(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line that `kubectl exec` runs."""
        return subprocess.run(
            [sys.executable, "-m", "whatsapp_operator.session.messages", "--socket", str(self.socket), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator")},
        )
