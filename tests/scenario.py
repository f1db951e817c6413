"""What a person does with the product, for the demo, the end-to-end tests and the benchmarks: apply, scan, look."""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.apiserver import ApiError, ApiServer, Seen, Watch, conditions, secrets_path, session, sessions_path
from tests.waiting import eventually
from whatsapp_operator.api import names

SIMULATOR_NAMESPACE = "whatsapp-simulator"
TRUST = "whatsapp-simulator-trust"
PROXY_URL = f"http://whatsapp-simulator.{SIMULATOR_NAMESPACE}.svc:9480"


@dataclass(frozen=True)
class Kubectl:
    """The command line, bound to one kubeconfig and context."""

    program: Path
    kubeconfig: str
    context: str | None

    def run(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Standard output of `kubectl ARGUMENTS`.

        Raises:
            AssertionError: kubectl failed; with what it said.
        """
        command = [str(self.program), *([f"--context={self.context}"] if self.context else []), *arguments]
        environment = {**os.environ, "KUBECONFIG": self.kubeconfig}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False, env=environment
        )
        if done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def python(self, namespace: str, pod: str, script: str) -> str:
        """Runs a Python script inside the container of a pod."""
        return self.run("exec", "-i", f"--namespace={namespace}", pod, "--", "python", "-", stdin=script)


@dataclass(frozen=True)
class Simulator:
    """The control API of the simulator in the cluster, through the API server's proxy to its Service."""

    api: ApiServer

    def call(self, method: str, path: str, body: Any = None) -> Any:
        service = f"/api/v1/namespaces/{SIMULATOR_NAMESPACE}/services/whatsapp-simulator:control/proxy"
        return self.api.request(method, service + path, body)

    def add_phone(self, number: str) -> None:
        try:
            self.call("POST", "/phones", {"number": number})
        except ApiError as error:
            if error.status != 409:  # it exists already: a repeated run
                raise

    def scan(self, number: str, qr: str) -> Any:
        return self.call("POST", f"/phones/{number}/scan", {"qr": qr})

    def enter_code(self, number: str, code: str) -> Any:
        return self.call("POST", f"/phones/{number}/enter-code", {"code": code})

    def devices(self, number: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/phones/{number}/devices")["devices"])

    def unlink(self, number: str, device: int) -> None:
        self.call("DELETE", f"/phones/{number}/devices/{device}")

    def send(self, number: str, to: str, text: str) -> Any:
        return self.call("POST", f"/phones/{number}/messages", {"to": to, "text": text})

    def inbox(self, number: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/phones/{number}/inbox")["messages"])


def has_condition(kind: str, status: str = "True", reason: str | None = None) -> Callable[[Seen], bool]:
    """A predicate over watched objects."""

    def check(seen: Seen) -> bool:
        found = conditions(seen.object).get(kind)
        return bool(found and found["status"] == status and reason in (None, found["reason"]))

    return check


@dataclass(frozen=True)
class Scenario:
    """A namespace with what its sessions need to reach the simulator."""

    api: ApiServer
    kubectl: Kubectl
    namespace: str

    @property
    def simulator(self) -> Simulator:
        return Simulator(self.api)

    def prepare(self) -> None:
        """Makes the namespace, with Pod Security restricted, and the trust in the simulator; may be repeated."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.api.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        )
        self.trust()

    def trust(self) -> None:
        """Lets sessions of the namespace trust the simulator, which runs; may be repeated."""
        trust = self.kubectl.run(
            "exec", f"--namespace={SIMULATOR_NAMESPACE}", "deployment/whatsapp-simulator", "--",
            "python", "-c", "print(open('/state/trust.pem').read())",
        )  # fmt: skip
        bundle = {"name": TRUST, "namespace": self.namespace}
        self.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": bundle, "data": {"ca.crt": trust}})

    def remove(self, *, wait: bool = True) -> None:
        """Deletes the namespace and waits until it is gone."""
        self.api.delete(f"/api/v1/namespaces/{self.namespace}")
        if wait:
            self.removed()

    def removed(self) -> None:
        """Waits until the namespace is gone."""
        path = f"/api/v1/namespaces/{self.namespace}"
        eventually(partial(self._absent, path), f"namespace {self.namespace} is gone", seconds=120)

    def manifest(self, name: str, **spec: Any) -> dict[str, Any]:
        egress = {"proxy": {"url": PROXY_URL}, "caBundle": {"configMapRef": {"name": TRUST, "key": "ca.crt"}}}
        return session(name, **{**egress, **spec})

    def apply(self, manifest: dict[str, Any]) -> None:
        self.kubectl.run("apply", f"--namespace={self.namespace}", "--filename=-", stdin=json.dumps(manifest))

    @contextmanager
    def watching(self, name: str) -> Iterator[Watch]:
        with self.api.watch(sessions_path(self.namespace, name)) as watch:
            yield watch

    def get(self, name: str) -> Any:
        return self.api.get(sessions_path(self.namespace, name))

    def exists(self, name: str) -> Any:
        """The session, or None where there is none."""
        return self.api.find(sessions_path(self.namespace, name))

    def beside(self, namespace: str) -> "Scenario":
        """The same in another namespace."""
        return replace(self, namespace=namespace)

    def secret(self, name: str) -> dict[str, str]:
        """What the session shows now: qr, code, expiresAt; without the picture."""
        found = self.api.find(secrets_path(self.namespace, names.owned_name(name))) or {}
        data = found.get("data") or {}
        return {key: base64.b64decode(data[key]).decode() for key in data if key != names.SECRET_KEY_QR_PNG}

    def qr(self, name: str, *, other_than: str | None = None) -> str:
        """The QR text that is shown, once there is one."""

        def shown() -> str | None:
            text = self.secret(name).get(names.SECRET_KEY_QR)
            return text if text and text != other_than else None

        return eventually(shown, "the Secret holds a QR")

    def force_relink(self, name: str, token: str) -> None:
        annotation = f"{names.ANNOTATION_FORCE_RELINK}={token}"
        self.kubectl.run("annotate", "--overwrite", f"--namespace={self.namespace}", names.PLURAL, name, annotation)

    def pair(self, name: str, phone: str, watch: Watch) -> Seen:
        """Scans the QR as the phone does, and returns the first sight of Connected after it."""
        self.simulator.add_phone(phone)
        watch.wait(has_condition("QRReady"), "QRReady")
        qr = self.qr(name)
        before = watch.events[-1].at if watch.events else None
        self.simulator.scan(phone, qr)
        return watch.wait(has_condition("Connected"), "Connected", since=before)

    def send_message(self, name: str, to: str, text: str) -> None:
        """Sends a text from the session, by its message socket."""
        self.kubectl.run(
            "exec", f"--namespace={self.namespace}", names.owned_name(name), "--",
            "python", "-m", "whatsapp_operator.session.messages", "send", "--to", to, "--text", text,
        )  # fmt: skip

    def running_pod(self, name: str) -> Any:
        """The session's pod if it runs and is not on its way out."""
        pod = self.api.find(f"/api/v1/namespaces/{self.namespace}/pods/{names.owned_name(name)}")
        up = pod and pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        return pod if up else None

    def pairings(self, name: str, succeeded: int) -> None:
        """Waits until so many pairings are counted as succeeded; one counts when it has lasted for 30 s."""
        eventually(
            lambda: self.get(name)["status"].get("pairing", {}).get("succeeded") == succeeded,
            f"{succeeded} succeeded pairings",
            seconds=60,
        )

    def delete_if_there(self, name: str) -> None:
        """Deletes what an earlier run left, and waits until it is gone."""
        if self.exists(name):
            self.delete(name)
            self.gone(name)

    def delete(self, name: str, *, propagation: str = "Background") -> None:
        self.api.delete(sessions_path(self.namespace, name), propagation=propagation)

    def gone(self, name: str, *, seconds: float = 60) -> None:
        """Waits until the session and everything named after it are gone."""
        owned = names.owned_name(name)
        core = f"/api/v1/namespaces/{self.namespace}"
        for path in (
            sessions_path(self.namespace, name),
            f"{core}/pods/{owned}",
            f"{core}/persistentvolumeclaims/{owned}",
            f"{core}/secrets/{owned}",
        ):
            eventually(partial(self._absent, path), f"{path} is gone", seconds=seconds)

    def _absent(self, path: str) -> bool:
        return self.api.find(path) is None
