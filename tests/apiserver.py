"""A plain JSON client of a Kubernetes API server for tests: what is sent and answered is seen as it is."""

import base64
import json
import re
import select
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from charts.render import NAMESPACE_OBJECT, render
from whatsapp_operator.api import names

ROOT = Path(__file__).parents[1]
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

# The operator itself runs beside the API server, as a process of the test.
_NOT_INSTALLED = frozenset({"Deployment", "Service", "PodDisruptionBudget"})

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


def older(value: Any, by: timedelta) -> Any:
    """The document with every RFC 3339 time in it set back."""
    if isinstance(value, dict):
        return {key: older(part, by) for key, part in value.items()}
    if isinstance(value, list):
        return [older(part, by) for part in value]
    moment = isinstance(value, str) and _MOMENT.fullmatch(value)
    return (datetime.fromisoformat(value) - by).isoformat().replace("+00:00", "Z") if moment else value


class ApiError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True)
class ApiServer:
    """Requests as the administrator of a kubeconfig, or as the bearer of a token."""

    url: str
    context: ssl.SSLContext
    ca: bytes
    token: str | None = None
    _idle: threading.local = field(default_factory=threading.local, init=False, repr=False, compare=False)

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "ApiServer":
        return cls.from_kubeconfig_text(Path(path).read_text())

    @classmethod
    def from_kubeconfig_text(cls, text: str) -> "ApiServer":
        """The current context of a kubeconfig that authenticates by client certificate or by token."""
        config = yaml.safe_load(text)
        chosen = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == chosen["cluster"])
        user = next(u["user"] for u in config["users"] if u["name"] == chosen["user"])
        ca = _material(cluster, "certificate-authority")
        context = ssl.create_default_context(cadata=ca.decode())
        if "token" in user:
            return cls(cluster["server"], context, ca, user["token"])
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(_material(user, "client-certificate") + b"\n" + _material(user, "client-key"))
            pair.flush()
            context.load_cert_chain(pair.name)
        return cls(cluster["server"], context, ca)

    def bearer(self, token: str) -> "ApiServer":
        return replace(self, context=ssl.create_default_context(cadata=self.ca.decode()), token=token)

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Sends JSON and returns the JSON (or text) of the answer.

        Raises:
            ApiError: the server answered with a status of 400 or above.
        """
        # A handshake costs more than most requests.
        connection = self._idle.__dict__.pop("connection", None)
        if connection is None or select.select([connection.sock], [], [], 0)[0]:  # the server has closed it
            connection = self._connect(60)
        answer = self._send(connection, method, path, body, content_type)
        text = answer.read().decode()
        if connection.sock is not None:
            self._idle.connection = connection
        if answer.status >= 400:
            raise ApiError(answer.status, _message(text))
        return json.loads(text) if text.startswith(("{", "[")) else text

    def open(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", timeout: float = 60
    ) -> HTTPResponse:
        """As `request`, with the answer as a stream, on a connection of its own."""
        answer = self._send(self._connect(timeout), method, path, body, content_type)
        if answer.status >= 400:
            raise ApiError(answer.status, _message(answer.read().decode()))
        return answer

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def watch(self, path: str) -> "Watch":
        """Follows the one object at the path, or with a slash at its end all objects below it, from now on."""
        return Watch(self, path)

    def find(self, path: str) -> Any:
        """The object, or None where there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, path: str, body: Any) -> Any:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        return self.request("PATCH", path, body, MERGE_PATCH)

    def delete(self, path: str, *, propagation: str = "Background") -> Any:
        return self.request(
            "DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        )

    def apply(self, manifest: dict[str, Any]) -> Any:
        """Server-side apply of a whole object, as `kubectl apply --server-side --force-conflicts`."""
        path = f"{self.path_of(manifest)}?fieldManager=tests&force=true"
        return self.request("PATCH", path, manifest, APPLY_PATCH)

    def install(self) -> None:
        """Applies the definition, RBAC and admission policies of the chart; may be repeated."""
        for manifest in (NAMESPACE_OBJECT, *render()):
            if manifest["kind"] not in _NOT_INSTALLED:
                self.apply(manifest)

    def pod_token(self, namespace: str, account: str, pod: str) -> str:
        """A token bound to the pod, as the kubelet projects it."""
        uid = self.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]["uid"]
        return self.account_token(namespace, account, {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid})

    def account_token(self, namespace: str, account: str, bound: dict[str, str] | None = None) -> str:
        spec = {"expirationSeconds": 3600, **({"boundObjectRef": bound} if bound else {})}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        created = self.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", request)
        return str(created["status"]["token"])

    def _connect(self, timeout: float) -> HTTPSConnection:
        return HTTPSConnection(urlsplit(self.url).netloc, context=self.context, timeout=timeout)

    def _send(self, connection: HTTPSConnection, method: str, path: str, body: Any, content_type: str) -> HTTPResponse:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        return connection.getresponse()

    def path_of(self, manifest: dict[str, Any]) -> str:
        group = manifest["apiVersion"]
        base = f"/api/{group}" if "/" not in group else f"/apis/{group}"
        resource = next(
            r["name"] for r in self.get(base)["resources"] if r["kind"] == manifest["kind"] and "/" not in r["name"]
        )
        namespace = manifest["metadata"].get("namespace")
        return f"{base}/{f'namespaces/{namespace}/' if namespace else ''}{resource}/{manifest['metadata']['name']}"


@dataclass(frozen=True)
class Seen:
    """An object as a watch brought it, and when (time.monotonic, seconds)."""

    at: float
    type: str
    object: dict[str, Any]

    @property
    def status(self) -> dict[str, Any]:
        """Empty before the first write of it."""
        return self.object.get("status") or {}


class Watch:
    """Records every event of a watch, so that nothing that lasts but a moment is missed; a context manager."""

    def __init__(self, api: ApiServer, path: str) -> None:
        self.events: list[Seen] = []
        self._changed = threading.Condition()
        self._closed = False
        self._failure: Exception | None = None
        collection, _, name = path.rpartition("/")
        # A watch of one object is a watch of its collection by name; it begins with the object as it is, if it is.
        selected = f"&fieldSelector=metadata.name%3D{name}" if name else ""
        self._response = api.open("GET", f"{collection}?watch=true{selected}&timeoutSeconds=3600", timeout=3600)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        # Closing the response alone would wait for the reader's lock.
        connection = self._response.fp.raw._sock if self._response.fp else None  # type: ignore[attr-defined]
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=10)

    def _follow(self) -> None:
        try:
            for line in self._response:
                event = json.loads(line)
                with self._changed:
                    self.events.append(Seen(time.monotonic(), event["type"], event["object"]))
                    self._changed.notify_all()
            failure: Exception = ConnectionError("the server ended the watch")
        except (OSError, ValueError, HTTPException) as error:
            failure = error
        with self._changed:
            self._failure = None if self._closed else failure
            self._changed.notify_all()

    def wait(
        self, predicate: Callable[[Seen], bool], what: str, *, seconds: float = 60, since: float | None = None
    ) -> Seen:
        """The first event, from the monotonic time `since` on, for which the predicate holds.

        Raises:
            AssertionError: none came within the deadline, or the watch broke.
        """
        deadline = time.monotonic() + seconds
        seen = 0
        with self._changed:
            while True:
                for event in self.events[seen:]:
                    if (since is None or event.at >= since) and predicate(event):
                        return event
                seen = len(self.events)
                if self._failure is not None:
                    raise AssertionError(f"the watch broke while waiting for {what}: {self._failure}")
                if not self._changed.wait(timeout=max(0.0, deadline - time.monotonic())):
                    last = self.events[-1].object.get("status") if self.events else None
                    raise AssertionError(f"not within {seconds} s: {what}; last status:\n{yaml.safe_dump(last)}")


def sessions_path(namespace: str, name: str = "", subresource: str = "") -> str:
    parts = [f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}", name, subresource]
    return "/".join(part for part in parts if part)


def secrets_path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/secrets" + (f"/{name}" if name else "")


def session(name: str, **spec: Any) -> dict[str, Any]:
    """A WhatsAppSession of the tenant acme."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {"tenant": "acme", **spec},
    }


def conditions(obj: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in obj.get("status", {}).get("conditions", [])}


def owned_fields(obj: dict[str, Any], manager: str) -> set[str]:
    """The fields that a manager owns, as paths of two names, such as "spec.phone"."""
    return {
        f"{top.removeprefix('f:')}.{part.removeprefix('f:')}"
        for entry in obj["metadata"]["managedFields"]
        if entry["manager"] == manager
        for top, parts in entry["fieldsV1"].items()
        for part in parts
        if part != "."
    }


def _material(holder: dict[str, Any], name: str) -> bytes:
    if inline := holder.get(f"{name}-data"):
        return base64.b64decode(inline)
    return Path(holder[name]).read_bytes()


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message", text))
    except ValueError:
        return text
