"""The kubelet, the volume binder and the session pods of whole namespaces, played by a thread that needs no orders."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

from tests.apiserver import MERGE_PATCH, ApiServer, sessions_path
from tests.integration.controller_stand_ins import NODE, paired, report, running_status
from whatsapp_operator.api import names
from whatsapp_operator.controller.cache import SELECTOR

PROVISIONER: Final = "none.example.com"
PASSING: Final = (404, 409)


@dataclass
class Device:
    """What a session pod keeps on its volume."""

    phone: str | None = None
    relinked: str | None = None


@dataclass
class Kubelet:
    """Runs every pod of the namespaces whose volume is bound, and ends those that are deleted; a context manager.

    A session pod pairs at once, with the number that is declared, else with the one in `scanned_by`, and does what its
    desired state says. Volumes are bound for the sessions in `bindable` (namespace and name).
    """

    api: ApiServer
    namespaces: tuple[str, ...]
    bindable: set[tuple[str, str]] = field(default_factory=set)
    scanned_by: dict[tuple[str, str], str] = field(default_factory=dict)
    unlinked: set[tuple[str, str]] = field(default_factory=set)
    failure: BaseException | None = None

    def check(self) -> None:
        """Raises what has ended it, if anything has."""
        if self.failure is not None:
            raise AssertionError("the kubelet has failed") from self.failure

    def __post_init__(self) -> None:
        self._devices: dict[str, Device] = {}
        self._provided: set[str] = set()
        self._reported: dict[str, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet")
        self.last_act = time.monotonic()

    def __enter__(self) -> Self:
        url = urlsplit(self.api.url)
        context: ssl.SSLContext = self.api.context
        self._connection = http.client.HTTPSConnection(url.hostname or "", url.port, context=context, timeout=60)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.03):
                self._look()
        except Exception as error:  # noqa: BLE001 - raised where the test waits next
            self.failure = error

    def _look(self) -> None:
        volumes = {}
        for volume in self._listed("persistentvolumeclaims"):
            metadata = volume["metadata"]
            volumes[metadata["namespace"], metadata["name"]] = volume
            key = (metadata["namespace"], metadata["labels"].get(names.LABEL_SESSION, ""))
            waits = volume["status"].get("phase") == "Pending" and "deletionTimestamp" not in metadata
            if waits and key in self.bindable and metadata["uid"] not in self._provided:
                self._provide(volume)
        for pod in self._listed("pods"):
            metadata = pod["metadata"]
            claim = volumes.get((metadata["namespace"], metadata["name"]))
            if "deletionTimestamp" in metadata:
                self._end(pod)
            elif claim is None or claim["status"].get("phase") != "Bound":
                continue
            elif "nodeName" not in pod["spec"]:
                self._start(pod)
            elif metadata["annotations"][names.ANNOTATION_DESIRED_STATE] != self._reported.get(metadata["uid"]):
                self._follow(pod, self._devices.setdefault(claim["metadata"]["uid"], Device()))

    def _listed(self, plural: str) -> list[dict[str, Any]]:
        found = self._request("GET", f"/api/v1/{plural}?labelSelector={quote(SELECTOR)}")
        return [item for item in found["items"] if item["metadata"]["namespace"] in self.namespaces]

    def _provide(self, claim: dict[str, Any]) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        self._provided.add(metadata["uid"])
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "uid": metadata["uid"]}
        volume = {
            "metadata": {"name": f"for-{metadata['uid']}"},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": spec["accessModes"],
                "storageClassName": spec["storageClassName"],
                "persistentVolumeReclaimPolicy": "Retain",
                "csi": {"driver": PROVISIONER, "volumeHandle": metadata["uid"]},
                "claimRef": reference | {"namespace": metadata["namespace"], "name": metadata["name"]},
            },
        }
        self._act("POST", "/api/v1/persistentvolumes", volume)

    def _end(self, pod: dict[str, Any]) -> None:
        preconditions = {"uid": pod["metadata"]["uid"]}
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": preconditions}
        self._act("DELETE", self._path(pod), options)

    def _start(self, pod: dict[str, Any]) -> None:
        target = {"metadata": {"name": pod["metadata"]["name"]}, "target": {"kind": "Node", "name": NODE}}
        self._act("POST", self._path(pod, "/binding"), target)
        status = running_status()
        status["containerStatuses"][0]["image"] = pod["spec"]["containers"][0]["image"]
        self._act("PATCH", self._path(pod, "/status"), {"status": status})

    def _follow(self, pod: dict[str, Any], device: Device) -> None:
        metadata = pod["metadata"]
        key = (metadata["namespace"], metadata["labels"][names.LABEL_SESSION])
        text = metadata["annotations"][names.ANNOTATION_DESIRED_STATE]
        wish = json.loads(text)
        changes: dict[str, Any] = {}
        if wish["relinkRequestID"] not in (None, device.relinked):
            device.relinked = wish["relinkRequestID"]
        removed = "Unlinked" if wish["unlink"] else "Expired" if wish["expire"] else None
        if device.phone is not None and wish["rejectedPhone"] == device.phone:
            removed = "PhoneClaimConflict"
        if removed is not None:
            device.phone = None
            machine, reason = "Unlinked" if wish["unlink"] else "Held", removed
        else:
            device.phone = wish["phone"] or device.phone or self.scanned_by[key]
            machine, reason, changes = "Connected", "Connected", paired(device.phone)
        if wish["unlink"]:
            self.unlinked.add(key)
        body = report(metadata["uid"], machine, reason) | changes
        body["pairing"]["method"] = wish["pairing"]["method"]
        body["desiredStateHash"] = names.desired_state_hash(text)
        if device.relinked is not None:
            body |= {"relinkRequestID": device.relinked, "relinkOutcome": "Completed"}
        if self._act("PATCH", sessions_path(*key, "status"), {"status": {"session": body}}):
            self._reported[metadata["uid"]] = text

    def _path(self, pod: dict[str, Any], tail: str = "") -> str:
        metadata = pod["metadata"]
        return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}{tail}"

    def _act(self, method: str, path: str, body: dict[str, Any]) -> bool:
        """False where the object has changed or gone in the meantime."""
        self.last_act = time.monotonic()
        return self._request(method, path, body) is not None

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": MERGE_PATCH if method == "PATCH" else "application/json"}
        if self.api.token:
            headers["Authorization"] = f"Bearer {self.api.token}"
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status in PASSING:
            return None
        if answer.status >= 400:
            raise AssertionError(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)
