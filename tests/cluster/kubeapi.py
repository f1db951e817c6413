"""The little of the Kubernetes API that bringing up a cluster needs, over the standard library."""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.errors import ClusterError
from tests.cluster.pki import KeyPair

FIELD_MANAGER = "whatsapp-operator-cluster"
_CLUSTER_SCOPED = {"Namespace", "ClusterRole", "ClusterRoleBinding", "StorageClass"}
_PLURALS = {"StorageClass": "storageclasses"}


class KubeApi:
    def __init__(self, server: str, authority: Path, client: KeyPair) -> None:
        self.server = server
        tls = ssl.create_default_context(cafile=str(authority))
        tls.load_cert_chain(client.certificate, client.key)
        # A proxy of the environment has no business between us and a loopback or link address.
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=tls), urllib.request.ProxyHandler({})
        )

    def get(self, path: str, timeout: float = 5.0) -> Any | None:
        """The JSON (or text) at `path`; None while the server does not answer, or does not have it."""
        try:
            return self._request("GET", path, timeout=timeout)
        except (urllib.error.URLError, OSError):
            return None

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Server-side apply. Raises ClusterError with the server's message if it is refused."""
        path = f"{object_path(manifest)}?fieldManager={FIELD_MANAGER}&force=true"
        try:
            self._request("PATCH", path, body=manifest, content_type="application/apply-patch+yaml")
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace")
            raise ClusterError(f"applying {manifest['kind']} {manifest['metadata']['name']}: {reason}") from error

    def _request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json", timeout: float = 10.0
    ) -> Any:
        request = urllib.request.Request(
            f"{self.server}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "Content-Type": content_type},
        )
        with self._opener.open(request, timeout=timeout) as response:
            text = response.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else text


def object_path(manifest: Mapping[str, Any]) -> str:
    """Where the API serves an object, for the kinds that the add-ons use."""
    version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = "" if kind in _CLUSTER_SCOPED else f"/namespaces/{metadata['namespace']}"
    return f"{root}{namespace}/{_PLURALS.get(kind, f'{kind.lower()}s')}/{metadata['name']}"


def wait_for(what: str, condition: Callable[[], bool], timeout: float, explain: Callable[[], str] = str) -> None:
    """Polls until the condition holds. Raises ClusterError, with what `explain` has to say, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {timeout:.0f} s\n{explain()}".rstrip())
        time.sleep(0.1)
