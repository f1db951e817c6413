"""An operator behind a gateway, started again whenever it ends, and the life that a test leads a session through."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.apiserver import ApiServer, conditions
from tests.integration.api_gateway import Gateway
from tests.integration.controller_process import OperatorProcess
from tests.integration.controller_stand_ins import PATIENCE, Stage, operator_arguments, release_lease
from tests.ports import free_port
from tests.waiting import eventually
from whatsapp_operator.api import names


class Operator:
    """One replica behind a gateway, which is started again whenever it has ended, as the kubelet does.

    `starts` tells how often.
    """

    def __init__(self, api: ApiServer, gateway: Gateway, namespace: str, directory: Path, *arguments: str) -> None:
        self._api = api
        self.gateway = gateway
        self.log = directory / "log"
        self._port = free_port()
        told = operator_arguments(
            directory,
            api=api,
            server=gateway.url,
            ca=gateway.ca.read_bytes(),
            namespaces=namespace,
            port=self._port,
            identity="operator",
        )
        self._arguments = [*told, *arguments]
        self._ended = threading.Event()
        self.starts = 0
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep_alive)
        self._keeper.start()

    @property
    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def quiet(self) -> bool:
        """It is there, has known everything for a second, and has written nothing in it."""
        if not self.ready:
            self._unready = time.monotonic()
        return time.monotonic() - max(self.gateway.last_write, self._unready) > 1.0

    def kill(self) -> None:
        self._process.kill()

    def restart(self, *arguments: str) -> None:
        """Kill it, and wait until the next one, with further arguments, is ready."""
        before = self._process
        self._arguments += arguments
        before.kill()
        eventually(lambda: self._process is not before and self.ready, "the next operator is ready", seconds=60)

    def close(self) -> None:
        self._ended.set()
        self._process.kill()
        self._keeper.join()
        release_lease(self._api)

    def _start(self) -> OperatorProcess:
        self.starts += 1
        self._unready = time.monotonic()
        return OperatorProcess(self._arguments, self.log)

    def _keep_alive(self) -> None:
        while True:
            self._process.wait()
            if self._ended.is_set():
                return
            release_lease(self._api)
            self._process = self._start()


@contextmanager
def running(api: ApiServer, stage: Stage, directory: Path, *arguments: str) -> Iterator[Operator]:
    """An operator that serves the stage alone; its log is in what fails."""
    directory.mkdir()
    with Gateway(api, directory) as gateway:
        operator = Operator(api, gateway, stage.namespace, directory, *arguments)
        try:
            eventually(lambda: operator.ready, "the operator is ready", seconds=PATIENCE)
            yield operator
        except AssertionError as error:
            raise AssertionError(f"{error}\n{operator.log.read_text()[-6000:]}") from error
        finally:
            operator.close()


class Life:
    """The steps of a session's life, each with what it ends in."""

    name = "front"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._pod = ""

    def create(self) -> None:
        stage = self._stage
        stage.create(self.name)
        eventually(lambda: stage.find_pod(self.name), "the first pod", seconds=120)
        self._pod = stage.start_pod(self.name)
        stage.report(self.name, "ShowingQR", "QRAvailable")
        stage.condition(self.name, "QRReady", status="True")

    def pair(self) -> None:
        self._stage.report_connected(self.name)
        self._ready()

    def relink(self) -> None:
        stage = self._stage
        stage.annotate(self.name, "please")
        request = eventually(lambda: stage.desired(self.name)["relinkRequestID"], "the pod is told to relink")
        done = {"relinkRequestID": request, "relinkOutcome": "Completed"}
        stage.report(self.name, "ShowingQR", "QRAvailable", **done)
        stage.condition(self.name, "QRReady", status="True")
        stage.report_connected(self.name, **done)
        eventually(lambda: stage.status(self.name)["relink"].get("outcome") == "Completed", "the relink is done")
        self._ready()

    def change(self) -> None:
        stage = self._stage
        stage.patch(self.name, {"spec": {"template": {"nodeSelector": {"disk": "fast"}}}})
        self.replaced()

    def replaced(self) -> None:
        """The pod goes, as the operator wants another one."""
        self._stage.end_pod(self.name)
        self._connect()

    def suspend(self) -> None:
        self._stage.patch(self.name, {"spec": {"suspend": True}})
        self._stage.end_pod(self.name)
        self._stage.condition(self.name, "Ready", status="True", reason="Suspended")

    def resume(self) -> None:
        self._stage.patch(self.name, {"spec": {"suspend": False}})
        self._connect()

    def delete(self) -> None:
        self._stage.delete(self.name)
        self._stage.unlink(self.name)
        self._stage.gone(self.name)
        eventually(lambda: self._stage.claims(self.name) == [], "the claim is released")

    def _connect(self) -> None:
        stage = self._stage
        request = stage.status(self.name)["relink"]["requestID"]
        self._pod = stage.start_pod(self.name, other_than=self._pod)
        stage.report_connected(self.name, relinkRequestID=request, relinkOutcome="Completed")
        self._ready()

    def _ready(self) -> None:
        self._stage.condition(self.name, "Ready", status="True", reason="Connected")


STEPS = ("create", "pair", "relink", "change", "suspend", "resume", "delete")


def outcome(stage: Stage, name: str) -> dict[str, Any]:
    """Everything that there is of a session, without what is another thing each time."""
    session = stage.find_session(name)
    pod, volume, secret = (
        stage.api.find(path) for path in (stage.pod_path(name), stage.volume_path(name), stage.secret_path(name))
    )
    status = session["status"] if session else {}
    return {
        "conditions": {kind: (c["status"], c["reason"], c["message"]) for kind, c in conditions(session or {}).items()},
        "status": {
            key: status.get(key) for key in ("phase", "sessionState", "authPaired", "primary", "phone", "rollout")
        },
        "relink": (status.get("relink") or {}).get("outcome"),
        "pairing": {key: (status.get("pairing") or {}).get(key) for key in ("succeeded", "failed", "lastCountedSeq")},
        "finalizers": session and session["metadata"].get("finalizers"),
        "pod": pod
        and {
            "labels": sorted(pod["metadata"]["labels"]),
            "primary": pod["metadata"]["labels"].get(names.LABEL_PRIMARY),
            "nodeSelector": pod["spec"].get("nodeSelector"),
            "image": pod["spec"]["containers"][0]["image"],
        },
        "volume": volume and sorted(volume["metadata"]["labels"]),
        "secret": secret and sorted(secret["metadata"]["labels"]),
        "claims": len(stage.claims(name)),
    }
