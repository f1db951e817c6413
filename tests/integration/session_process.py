"""A session pod without Kubernetes: the supervisor as a process."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.integration.recording_api import RecordingApi
from tests.integration.simulator_process import ROOT, SimulatorProcess
from tests.ports import free_port
from tests.waiting import eventually

POD_UID = "00000000-0000-4000-8000-000000000001"
QR_CODE = {"method": "QRCode", "attempts": 3, "displayName": "Chrome (Linux)"}
PAIRING_CODE = {**QR_CODE, "method": "PairingCode"}
RELINK = {"onLoggedOut": "Relink", "inactiveExpirySeconds": 7776000}
HOLD = {**RELINK, "onLoggedOut": "Hold"}
SESSION_VARIANT = ROOT / "tests" / "simulator" / "whatsapp_simulator" / "session_variant"


def retry_at(report: dict[str, Any]) -> float:
    """When it says that the next try is, in seconds since the epoch."""
    return datetime.datetime.fromisoformat(report["connection"]["nextRetryAt"]).timestamp()


def seconds_to_retry(report: dict[str, Any]) -> float:
    """From the report to the next try that it names."""
    at = [datetime.datetime.fromisoformat(text) for text in (report["connection"]["nextRetryAt"], report["reportedAt"])]
    return (at[0] - at[1]).total_seconds()


class SessionProcess:
    """The supervisor on a volume below `directory`, until the `with` block ends.

    `limits` are those of limits.Limits that differ, in seconds; `desired` what differs in the desired state;
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
        self.http_port = free_port()
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

    def rests(self) -> None:
        """Nothing is shown any more, and no worker runs."""
        eventually(lambda: self.api.secret == {}, "the Secret is cleared")
        assert self.worker_pids == []

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


MakeSession = Callable[..., SessionProcess]
