"""Stands in for session pods, the phones that scan their QRs, and what binds volumes; a process of its own.

It writes what a real pod writes from its start to Connected, with a pod's identity: three reports, the QR, and its
removal. A phone scans as soon as the session's status says that the QR is there. A pod that is told of another desired
state says that it follows, and relinks if that was asked for.
"""

import asyncio
import base64
import json
import random
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.apiserver import ApiServer, secrets_path, sessions_path
from tests.benchmarks.controller.cluster import VOLUME
from tests.benchmarks.controller.connection import Client, RefusedError, impersonate
from tests.integration.controller_stand_ins import now
from whatsapp_operator.api import names

CONNECTIONS: Final = 16
BOUND: Final = {
    "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
    "spec": {"volumeName": VOLUME},
}
NO_QR: Final = {"data": dict.fromkeys(names.SECRET_KEYS)}


@dataclass
class Pod:
    """One session's pod, over all its lives: what is on its volume stays."""

    namespace: str
    session: str
    uid: str = ""
    document: str = ""
    machine: str = "Starting"
    attempt: str | None = None
    """Id of the attempt whose QR is showing."""
    finished: int = 0
    connected_since: str | None = None
    registered_at: str | None = None
    relink_request: str | None = None
    boot: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def headers(self) -> dict[str, str]:
        account = f"system:serviceaccount:{self.namespace}:{names.SESSION_SERVICE_ACCOUNT}"
        return impersonate(account, names.owned_name(self.session))

    def report(self, reason: str) -> dict[str, Any]:
        """All of status.session, as docs/architecture.md has it."""
        desired = json.loads(self.document)
        linked = self.machine == "Connected"
        jid = f"{(desired['phone'] or '+15550000000').removeprefix('+')}:3@s.whatsapp.net"
        # `Scanned` while it logs in.
        state = {"ShowingQR": "Showing", "Authenticating": "Scanned", "Connected": "Succeeded"}.get(
            self.machine, "Idle"
        )
        window = {"startedAt": now(), "expiresAt": _LATER} if self.attempt else {"startedAt": None, "expiresAt": None}
        return {
            "podUID": self.uid,
            "bootID": self.boot,
            "reportedAt": now(),
            "machine": self.machine,
            "reason": reason,
            "message": "",
            "credentials": {
                "present": linked or self.machine == "Authenticating",
                "valid": linked,
                "registeredAt": self.registered_at,
                "lastUsedAt": self.connected_since,
            },
            "device": {"jid": jid, "lid": "", "platform": "android", "businessName": "", "pushName": "Phone"}
            if linked
            else None,
            "connection": {
                "since": self.connected_since,
                "lastConnectedAt": self.connected_since,
                "disconnects": 0,
                "lastReason": None,
                "replaced": 0,
                "nextRetryAt": None,
            },
            "pairing": {
                "method": "QRCode",
                "state": state,
                "attempt": 1 if self.attempt else 0,
                "id": self.attempt,
                **window,
                "seq": self.finished,
                "succeeded": self.finished,
                "failed": 0,
                "history": [self._finished(number) for number in range(max(0, self.finished - 10), self.finished)],
            },
            "desiredStateHash": names.desired_state_hash(self.document),
            "relinkRequestID": self.relink_request,
            "relinkOutcome": "Completed" if self.relink_request else None,
        }

    def _finished(self, number: int) -> dict[str, Any]:
        return {
            "seq": number + 1,
            "id": f"{number:016x}",
            "method": "QRCode",
            "startedAt": self.registered_at,
            "finishedAt": self.registered_at,
            "result": "Succeeded",
            "reason": "Paired",
            "message": "",
            "secondsToQR": 0.4,
            "secondsToScan": 8.1,
            "secondsToConnected": 1.2,
        }


_LATER: Final = "2099-01-01T00:00:00.000000Z"


def qr() -> dict[str, Any]:
    """As large as a real one: a text of about 240 characters and its picture."""
    values = {
        names.SECRET_KEY_QR: random.randbytes(180).hex().encode()[:240],
        names.SECRET_KEY_QR_PNG: random.randbytes(1500),
        names.SECRET_KEY_EXPIRES_AT: _LATER.encode(),
    }
    return {"data": {key: base64.b64encode(value).decode() for key, value in values.items()}}


class Pods:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._pods: dict[tuple[str, str], Pod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        selector = f"labelSelector={names.LABEL_SESSION}"
        self._spawn(self._follow(f"/api/v1/persistentvolumeclaims?{selector}", self._volume))
        self._spawn(self._follow(f"/api/v1/pods?{selector}", self._pod))
        self._spawn(self._follow(f"/apis/{names.API_VERSION}/{names.PLURAL}", self._session))
        await self._failed

    async def _follow(self, path: str, see: Callable[[str, dict[str, Any]], None]) -> None:
        async for event in self._client.watch(path):
            see(event["type"], event["object"])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # What is gone meanwhile is nobody's fault.
        if (
            error is not None
            and not (isinstance(error, RefusedError) and error.status == 404)
            and not self._failed.done()
        ):
            self._failed.set_exception(error)

    def _volume(self, kind: str, claim: dict[str, Any]) -> None:
        if kind == "ADDED" and "volumeName" not in claim["spec"]:
            self._spawn(self._bind(claim))

    async def _bind(self, claim: dict[str, Any]) -> None:
        metadata = claim["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/persistentvolumeclaims/{metadata['name']}"
        await self._client.patch(path, BOUND)
        capacity = claim["spec"]["resources"]["requests"]
        status = {"phase": "Bound", "capacity": capacity, "accessModes": claim["spec"]["accessModes"]}
        await self._client.patch(f"{path}/status", {"status": status})

    def _pod(self, kind: str, found: dict[str, Any]) -> None:
        metadata = found["metadata"]
        if kind == "DELETED" or "deletionTimestamp" in metadata or found["status"]["phase"] != "Running":
            return
        name = metadata["labels"][names.LABEL_SESSION]
        document = metadata["annotations"][names.ANNOTATION_DESIRED_STATE]
        pod = self._pods.setdefault((metadata["namespace"], name), Pod(metadata["namespace"], name))
        if pod.uid != metadata["uid"]:
            pod.uid, pod.boot, pod.document = metadata["uid"], random.randbytes(8).hex(), document
            self._spawn(self._show_qr(pod) if pod.registered_at is None else self._connect(pod))
        elif pod.document != document:
            pod.document = document
            self._spawn(self._obey(pod))

    def _session(self, _: str, found: dict[str, Any]) -> None:
        metadata, status = found["metadata"], found.get("status") or {}
        pod = self._pods.get((metadata["namespace"], metadata["name"]))
        if pod is None or pod.machine != "ShowingQR" or "session" not in status:
            return
        shown = any(c["type"] == "QRReady" and c["status"] == "True" for c in status.get("conditions", ()))
        if shown and status["session"]["pairing"]["id"] == pod.attempt:
            self._spawn(self._scan(pod))

    async def _show_qr(self, pod: Pod) -> None:
        async with pod.lock:
            pod.machine, pod.attempt, pod.connected_since = "ShowingQR", random.randbytes(8).hex(), None
            await self._secret(pod, qr())
            await self._tell(pod, "QRAvailable")

    async def _scan(self, pod: Pod) -> None:
        async with pod.lock:
            if pod.machine != "ShowingQR":
                return
            pod.machine = "Authenticating"
            await self._tell(pod, "Authenticating")
            await self._secret(pod, NO_QR)
            pod.finished, pod.registered_at = pod.finished + 1, now()
        await self._connect(pod)

    async def _connect(self, pod: Pod) -> None:
        async with pod.lock:
            pod.machine, pod.attempt, pod.connected_since = "Connected", None, now()
            await self._tell(pod, "Connected")

    async def _obey(self, pod: Pod) -> None:
        desired = json.loads(pod.document)
        if desired["relinkRequestID"] not in (None, pod.relink_request):
            pod.relink_request = desired["relinkRequestID"]
            await self._show_qr(pod)
            return
        async with pod.lock:
            if desired["unlink"]:
                pod.machine, pod.attempt = "Unlinked", None
            reasons = {"ShowingQR": "QRAvailable"}
            await self._tell(pod, reasons.get(pod.machine, pod.machine))

    async def _tell(self, pod: Pod, reason: str) -> None:
        path = f"{sessions_path(pod.namespace, pod.session, 'status')}?fieldManager={names.FIELD_MANAGER_SESSION}"
        await self._client.patch(path, {"status": {"session": pod.report(reason)}}, pod.headers)

    async def _secret(self, pod: Pod, data: dict[str, Any]) -> None:
        path = secrets_path(pod.namespace, names.owned_name(pod.session))
        await self._client.patch(f"{path}?fieldManager={names.FIELD_MANAGER_SESSION}", data, pod.headers)


async def main(kubeconfig: Path) -> None:
    async with Client(ApiServer.from_kubeconfig(kubeconfig), CONNECTIONS) as client:
        await Pods(client).run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
