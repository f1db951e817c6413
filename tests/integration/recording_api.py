"""An API server that only records what a session pod writes."""

from __future__ import annotations

import base64
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "a-token-of-the-service-account"


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
