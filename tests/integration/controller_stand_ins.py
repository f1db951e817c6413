"""The operator as a process on a real API server, with the test in the place of the kubelet and of the session pods."""

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.apiserver import ApiError, ApiServer, conditions, older, secrets_path, sessions_path
from tests.cluster.control_plane import ControlPlane
from tests.integration.api_gateway import Gateway
from tests.integration.controller_process import OperatorProcess
from tests.ports import free_port
from tests.waiting import eventually
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import EXPLANATIONS, Reason

OPERATOR_NAMESPACE = "whatsapp-operator-system"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/whatsapp-operator-leader"
NODE = "stand-in"
PHONE = "+15551230001"
# Seconds; an operator that is killed again and again on a slow machine needs many of them.
PATIENCE = 120.0


@dataclass
class Replica:
    """One operator process."""

    process: subprocess.Popen[bytes] | OperatorProcess
    port: int
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of one of the replica's own endpoints; 0 while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        """All samples of the metric, each with its labels."""
        found = []
        for line in self.get("/metrics")[1].splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line) if line.startswith(name) else None
            if match and match[1] == name:
                found.append((dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")), float(match[3])))
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the metric over all label sets that hold the given labels."""
        return sum(value for found, value in self.samples(name) if labels.items() <= found.items())

    def writes(self) -> float:
        """Requests that changed something, or tried to, without those of the leader election."""
        found = self.samples("whatsapp_operator_api_requests_total")
        return sum(value for labels, value in found if labels["verb"] in ("create", "patch", "delete"))

    @property
    def leading(self) -> bool:
        return self.metric("whatsapp_operator_leader") == 1 and self.get("/readyz")[0] == 200

    def text(self) -> str:
        return self.log.read_text()


@dataclass
class Operators:
    """Starts operators as the ServiceAccount that the manifests give them, and ends them."""

    api: ApiServer
    directory: Path
    namespaces: str
    replicas: list[Replica] = field(default_factory=list)

    def start(self, *arguments: str, gateway: Gateway | None = None) -> Replica:
        """Another replica, which reaches the API server through the gateway, if there is one."""
        number = len(self.replicas)
        log, port, directory = self.directory / f"operator-{number}.log", free_port(), self.directory / str(number)
        directory.mkdir()
        told = operator_arguments(
            directory,
            api=self.api,
            server=gateway.url if gateway is not None else self.api.url,
            ca=gateway.ca.read_bytes() if gateway is not None else self.api.ca,
            namespaces=self.namespaces,
            port=port,
            identity=f"operator-{number}",
        )
        replica = Replica(OperatorProcess([*told, *arguments], log), port, log)
        self.replicas.append(replica)
        return replica

    def start_leader(self, *arguments: str, gateway: Gateway | None = None) -> Replica:
        replica = self.start(*arguments, gateway=gateway)
        eventually(lambda: self._alive(replica) and replica.leading, "the operator leads and is ready")
        return replica

    def stop(self, replica: Replica) -> int:
        """End it as the kubelet does; returns its exit code."""
        replica.process.terminate()
        return replica.process.wait(timeout=20)

    def close(self) -> None:
        for replica in self.replicas:
            if replica.process.poll() is None:
                replica.process.kill()
                replica.process.wait()
        release_lease(self.api)

    def _alive(self, replica: Replica) -> bool:
        if replica.process.poll() is not None:
            raise AssertionError(f"the operator has ended:\n{replica.text()}")
        return True


def release_lease(api: ApiServer) -> None:
    """So that nobody waits until the lease of the dead has run out."""
    if api.find(LEASE) is not None:
        api.patch(LEASE, {"spec": {"holderIdentity": ""}})


def operator_arguments(
    directory: Path, *, api: ApiServer, server: str, ca: bytes, namespaces: str, port: int, identity: str
) -> list[str]:
    """The command line of an operator that reaches the API at `server` with the account of the manifests.

    Its kubeconfig and claim key are written to the directory.
    """
    key, authority, kubeconfig = directory / "claim-key", directory / "ca.crt", directory / "kubeconfig"
    key.write_bytes(b"k" * 32)
    authority.write_bytes(ca)
    token = api.account_token(OPERATOR_NAMESPACE, "whatsapp-operator")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    return [
        *("--kubeconfig", str(kubeconfig), "--namespace", OPERATOR_NAMESPACE),
        *("--session-image", "example/session:1", "--claim-key-file", str(key)),
        *("--watch-namespaces", namespaces, "--http-host", "127.0.0.1", "--http-port", str(port)),
        *("--identity", identity, "--log-level", "debug"),
    ]


@contextmanager
def operators(api: ApiServer, directory: Path, namespaces: str) -> Iterator[Operators]:
    found = Operators(api, directory, namespaces)
    try:
        yield found
    finally:
        found.close()


@dataclass
class Stage:
    """One namespace, in which the test plays the user, the kubelet and the session pods.

    The clock of its node, which the kubelet and the session pods go by, is `ahead` of the operator's.
    """

    api: ApiServer
    namespace: str
    ahead: timedelta = timedelta(0)

    def create(self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"tenant": "acme", "phone": PHONE, **spec},
        }
        created: dict[str, Any] = self.api.create(sessions_path(self.namespace), body)
        return created

    def session(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(sessions_path(self.namespace, name))
        return found

    def find_session(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.api.find(sessions_path(self.namespace, name))
        return found

    def patch(self, name: str, patch: dict[str, Any]) -> None:
        self.api.patch(sessions_path(self.namespace, name), patch)

    def annotate(self, name: str, value: str | None, annotation: str = names.ANNOTATION_FORCE_RELINK) -> None:
        self.patch(name, {"metadata": {"annotations": {annotation: value}}})

    def delete(self, name: str, *, propagation: str = "Background") -> None:
        self.api.delete(sessions_path(self.namespace, name), propagation=propagation)

    def condition(self, name: str, kind: str, *, status: str | None = None, reason: str | None = None) -> Any:
        """Wait until the condition has that status and reason."""

        def probe() -> Any:
            found = conditions(self.session(name)).get(kind)
            if found is None or (status or found["status"]) != found["status"]:
                return None
            return found if (reason or found["reason"]) == found["reason"] else None

        try:
            return eventually(probe, f"{name}: {kind}={status} {reason}", every=0.02, seconds=PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{yaml.safe_dump(self.session(name))}") from error

    def fails(self, name: str, reason: str, *, stalled: bool, detail: str = "", **expected: str) -> None:
        """Wait until a session is seen to fail for that reason, with the detail, and with the remedy.

        Where it is `stalled` a person must act; else it is on its way. `expected` has the status and reason of further
        conditions, such as "False PodFailed".
        """
        abnormal = "Stalled" if stalled else "Reconciling"

        def found() -> list[str]:
            seen = conditions(self.session(name))
            missing = [
                f"{kind}={wanted}"
                for kind, wanted in expected.items()
                if (kind not in seen or f"{seen[kind]['status']} {seen[kind]['reason']}" != wanted)
            ]
            ready = seen.get("Ready", {})
            if ready.get("status") == "True" or ready.get("reason") != reason:
                missing.append(f"Ready={reason}")
            if seen.get("Connected", {}).get("status") == "True":
                missing.append("no phantom Connected")
            if {"Stalled", "Reconciling"} & seen.keys() != {abnormal} or seen[abnormal]["status"] != "True":
                missing.append(abnormal)
            if stalled and "Stalled" in seen and seen["Stalled"]["message"] != ready.get("message"):
                missing.append("one message")
            # What passes by itself and says how needs no remedy.
            remedy = EXPLANATIONS[Reason(reason)].remedy if stalled or not detail else ""
            for part in (detail, remedy):
                if part not in ready.get("message", ""):
                    missing.append(f"the message {part}")
            return missing

        try:
            eventually(lambda: not found(), f"{name} fails for {reason}", every=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}\nmissing: {found()}\n{yaml.safe_dump(self.status(name))}") from error

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.session(name).get("status", {})
        return found

    def age(self, name: str, by: timedelta) -> None:
        """Make everything that status tells older than it is; the session is at rest."""
        self.api.patch(sessions_path(self.namespace, name, "status"), {"status": older(self.status(name), by)})

    # The kubelet's part.

    def pod_path(self, name: str, subresource: str = "") -> str:
        tail = f"/{subresource}" if subresource else ""
        return f"/api/v1/namespaces/{self.namespace}/pods/{names.owned_name(name)}{tail}"

    def find_pod(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.api.find(self.pod_path(name))
        return found

    def pod(self, name: str, *, other_than: str | None = None) -> dict[str, Any]:
        """Wait for the session's pod, or for the one after that of the given uid."""

        def probe() -> dict[str, Any] | None:
            found = self.find_pod(name)
            return found if found is not None and found["metadata"]["uid"] != other_than else None

        return eventually(probe, f"a pod of {name}", every=0.02, seconds=PATIENCE)

    def start_pod(self, name: str, *, other_than: str | None = None) -> str:
        """Bind the pod to a node and run its container; returns its uid."""
        pod = self.pod(name, other_than=other_than)
        target = {"metadata": {"name": names.owned_name(name)}, "target": {"kind": "Node", "name": NODE}}
        self.api.create(self.pod_path(name, "binding"), target)
        self.set_pod_status(name, running_status())
        return str(pod["metadata"]["uid"])

    def set_pod_status(self, name: str, status: dict[str, Any]) -> None:
        self.api.patch(self.pod_path(name, "status"), {"status": older(status, -self.ahead)})

    def end_pod(self, name: str) -> None:
        """Let a pod that is being deleted go, as the kubelet does when its containers have ended."""
        deleting = eventually(
            lambda: (self.find_pod(name) or {}).get("metadata", {}).get("deletionTimestamp"),
            "the pod is deleted",
            seconds=PATIENCE,
        )
        assert deleting
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        self.api.request("DELETE", self.pod_path(name), options)

    def desired(self, name: str) -> dict[str, Any]:
        """What the pod is told."""
        annotations = self.pod(name)["metadata"]["annotations"]
        found: dict[str, Any] = json.loads(annotations[names.ANNOTATION_DESIRED_STATE])
        return found

    # The session pod's part.

    def report(self, name: str, machine: str, reason: str, **changes: Any) -> None:
        """Write status.session as the session's pod does."""
        pod = self.pod(name)
        body = older(report(pod["metadata"]["uid"], machine, reason) | changes, -self.ahead)
        self.api.patch(sessions_path(self.namespace, name, "status"), {"status": {"session": body}})

    def report_connected(self, name: str, phone: str = PHONE, **changes: Any) -> None:
        self.report(name, "Connected", "Connected", **(paired(phone) | changes))

    def connect(self, name: str, phone: str = PHONE, *, other_than: str | None = None) -> str:
        """Take a session all the way to Connected; returns the pod's uid."""
        uid = self.start_pod(name, other_than=other_than)
        self.report_connected(name, phone)
        self.condition(name, "Ready", status="True", reason="Connected")
        return uid

    def unlink(self, name: str) -> None:
        """Play the pod's part in a deletion: it is told, says that it is done, and ends."""
        eventually(lambda: self.desired(name)["unlink"], "the pod is told to unlink", every=0.02, seconds=PATIENCE)
        self.report(name, "Unlinked", "Unlinked")
        self.end_pod(name)

    def gone(self, name: str) -> None:
        """Wait until nothing is left of the session."""
        eventually(lambda: self.find_session(name) is None, f"{name} is gone", every=0.02, seconds=PATIENCE)
        for path in (self.pod_path(name), self.volume_path(name), self.secret_path(name)):
            # The garbage collector may not know the definition yet: it looks every 30 s for new ones.
            eventually(partial(self._absent, path), f"{path} is gone", every=0.02, seconds=PATIENCE)

    def _absent(self, path: str) -> bool:
        return self.api.find(path) is None

    def volume_path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/{names.owned_name(name)}"

    def secret_path(self, name: str) -> str:
        return secrets_path(self.namespace, names.owned_name(name))

    def claims(self, name: str) -> list[dict[str, Any]]:
        """The Leases that the session holds."""
        leases = self.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases")["items"]
        holder = f"{self.namespace}/{name}/"
        return [lease for lease in leases if (lease["spec"].get("holderIdentity") or "").startswith(holder)]

    def events(self, name: str) -> list[str]:
        """Reasons of the events about the session."""
        return [event["reason"] for event in self.events_in_full(name)]

    def events_in_full(self, name: str) -> list[dict[str, Any]]:
        found = self.api.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return [event for event in found if event["regarding"]["name"] == name]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def running_status() -> dict[str, Any]:
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "phase": "Running",
        "conditions": [{"type": kind, "status": "True"} for kind in ("PodScheduled", "ContainersReady", "Ready")],
        "containerStatuses": [
            {
                "name": names.SESSION_CONTAINER,
                "image": "example/session:1",
                "imageID": "",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": started}},
            }
        ],
    }


def report(pod_uid: str, machine: str, reason: str) -> dict[str, Any]:
    """A report of a pod whose volume is empty."""
    return {
        "podUID": pod_uid,
        "bootID": "b",
        "reportedAt": now(),
        "machine": machine,
        "reason": reason,
        "message": "",
        "credentials": {"present": False, "valid": False, "registeredAt": None, "lastUsedAt": None},
        "device": None,
        "connection": {
            "since": None,
            "lastConnectedAt": None,
            "disconnects": 0,
            "lastReason": None,
            "nextRetryAt": None,
        },
        "pairing": {
            "method": "QRCode",
            "state": "Showing" if machine == "ShowingQR" else "Idle",
            "attempt": 1 if machine == "ShowingQR" else 0,
            "id": None,
            "startedAt": None,
            "expiresAt": None,
            "seq": 0,
            "succeeded": 0,
            "failed": 0,
            "history": [],
        },
        "relinkRequestID": None,
        "relinkOutcome": None,
    }


def paired(phone: str) -> dict[str, Any]:
    """The parts of a report that tell of a linked device."""
    jid = f"{phone.removeprefix('+')}:3@s.whatsapp.net"
    return {
        "credentials": {"present": True, "valid": True, "registeredAt": now(), "lastUsedAt": now()},
        "device": {"jid": jid, "lid": None, "platform": "android", "businessName": None, "pushName": None},
    }


def make_namespace(api: ApiServer, name: str) -> Stage:
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return Stage(api, name)


@contextmanager
def live_api(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The API server with everything installed and a node to bind pods to."""
    server = ApiServer.from_kubeconfig(control_plane.kubeconfig)
    server.install()
    wait_until_served(server)
    with live_node(server):
        yield server


@contextmanager
def live_node(api: ApiServer) -> Iterator[None]:
    """A node to bind pods to, whose heartbeat keeps the node controller from declaring its pods lost."""
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    beat: dict[str, Any] = {"holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": now()}
    api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now(), "lastTransitionTime": now()}
    api.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"conditions": [ready]}})
    api.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NODE, "namespace": "kube-node-lease"},
            "spec": beat,
        }
    )
    ended = threading.Event()

    def keep_alive() -> None:
        while not ended.wait(5):
            api.patch(f"{leases}/{NODE}", {"spec": {"renewTime": now()}})

    heart = threading.Thread(target=keep_alive)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()


def wait_until_served(api: ApiServer) -> None:
    """The definition was applied a moment ago and is not served at once."""

    def probe() -> bool:
        try:
            return api.find(sessions_path("default")) is not None
        except ApiError:
            return False

    eventually(probe, "sessions are served")


def settled(replica: Replica, *, seconds: float = 1.0) -> float:
    """The number of writes, once none was made for that long."""
    last, since = replica.writes(), time.monotonic()

    def quiet() -> bool:
        nonlocal last, since
        found = replica.writes()
        if found != last:
            last, since = found, time.monotonic()
        return time.monotonic() - since >= seconds

    eventually(quiet, "no more writes")
    return last
