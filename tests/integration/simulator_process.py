"""The simulator and unmodified clients as processes of their own, for tests."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT / "tests" / "simulator"), str(ROOT)])


@dataclass(frozen=True)
class Answer:
    """What the control API answered; `body` is None where there is none."""

    status: int
    body: Any


class SimulatorProcess:
    """`python -m whatsapp_simulator` on free ports, until the `with` block ends."""

    def __init__(self, state: Path, *arguments: str) -> None:
        self.state = state
        self._arguments = arguments
        self._numbers = itertools.count(1230001)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def start(self, *arguments: str) -> None:
        """Start it, and wait for its ready line."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "whatsapp_simulator", "--state", str(self.state), *self._arguments, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
        )
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        assert line.startswith("ready:"), f"the simulator did not start: {line!r}"
        self.ports = json.loads((self.state / "ports.json").read_text())

    def stop(self) -> int:
        """End it as a supervisor would; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=10)
        self._process.stdout.close()  # type: ignore[union-attr]
        return code

    def restart(self) -> None:
        """End it and start it again on the same ports."""
        assert self.stop() == 0
        self.start("--proxy-port", str(self.ports["proxy"]), "--control-port", str(self.ports["control"]))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['proxy']}"

    @property
    def root(self) -> str:
        return (self.state / "root.pub").read_text().strip()

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """One request to the control API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['control']}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                text = response.read()
                return Answer(response.status, json.loads(text) if text else None)
        except urllib.error.HTTPError as error:
            problem = error
        with problem:
            assert problem.headers["Content-Type"].startswith("application/problem+json")
            return Answer(problem.code, json.loads(problem.read()))

    def add_phone(self, number: str, name: str = "Simulated Phone") -> None:
        assert self.call("POST", "/phones", {"number": number, "name": name}).status == 201

    def new_phone(self) -> str:
        """A phone with a number that no other has."""
        number = f"+1555{next(self._numbers):07}"
        self.add_phone(number)
        return number

    def scan(self, number: str, qr: str) -> Answer:
        return self.call("POST", f"/phones/{number}/scan", {"qr": qr})

    def enter_code(self, number: str, code: str) -> Answer:
        return self.call("POST", f"/phones/{number}/enter-code", {"code": code})

    def devices(self, number: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/phones/{number}/devices").body["devices"])

    def send(self, number: str, to: str, text: str) -> Answer:
        return self.call("POST", f"/phones/{number}/messages", {"to": to, "text": text})

    def texts(self, number: str) -> list[str | None]:
        """The texts in a phone's inbox."""
        return [message["text"] for message in self.call("GET", f"/phones/{number}/inbox").body["messages"]]

    def fault(self, **fault: Any) -> Answer:
        return self.call("POST", "/faults", fault)

    def strike(self, kind: str, **fault: Any) -> None:
        """A fault that is described rightly."""
        answer = self.fault(kind=kind, **fault)
        assert answer.status == 201, answer.body

    def faults(self) -> list[dict[str, Any]]:
        """Those still in force."""
        return list(self.call("GET", "/faults").body["faults"])

    def pairings(self) -> list[dict[str, Any]]:
        """The clients that wait to be linked."""
        return list(self.call("GET", "/pairings").body["pairings"])

    def refuse_login(self, number: str, reason: str, **fault: Any) -> None:
        """The next login is refused, and of a phone that is connected there is one soon."""
        self.strike("failure", phone=number, reason=reason, **fault)
        self.strike("drop", phone=number)

    def unlink(self, number: str, device: int) -> None:
        """Remove a device on the phone."""
        assert self.call("DELETE", f"/phones/{number}/devices/{device}").status == 204


class NeonizeClient:
    """An unmodified neonize in a child process; see `neonize_client`."""

    def __init__(self, simulator: SimulatorProcess, database: Path, root: str | None = None) -> None:
        """`root` is the root key to trust in hexadecimal, the simulator's unless given."""
        self._simulator = simulator
        self._root = root or simulator.root
        self._database = database
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._log = self._database.with_suffix(".log").open("a")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.neonize_client", str(self._database), self._root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": PYTHONPATH,
                "HTTPS_PROXY": self._simulator.proxy_url,
                "SSL_CERT_FILE": str(self._simulator.state / "ca.crt"),
            },
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        output = self._process.stdout if self._process else None
        for line in output or ():
            self.events.append(json.loads(line))

    def kill(self) -> None:
        """End it at once; nothing happens where it was never started."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                stream.close()

    def named(self, name: str) -> list[dict[str, Any]]:
        """All events of this name so far."""
        return [event for event in list(self.events) if event["event"] == name]

    def wait_for(self, name: str, *, count: int = 1, seconds: float = 30, **fields: Any) -> dict[str, Any]:
        """The count-th event of this name with these fields."""

        def found() -> list[dict[str, Any]] | None:
            matching = [event for event in self.named(name) if fields.items() <= event.items()]
            return matching if len(matching) >= count else None

        return eventually(found, f"event {name} {fields}", seconds=seconds, every=0.02)[count - 1]

    def do(self, command: str, **arguments: Any) -> Any:
        """Run a command in the client; returns its value.

        Raises:
            AssertionError: the client answered with an error.
        """
        answered = len(self.named("answer"))
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = self.wait_for("answer", count=answered + 1, seconds=90)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def qr(self) -> str:
        """The QR text that is shown now."""
        self.wait_for("qr")
        return str(self.named("qr")[-1]["text"])

    def pair(self, number: str) -> None:
        """Show a QR to the phone, and wait until the client has logged in."""
        answer = self._simulator.scan(number, self.qr())
        assert answer.status == 201, answer.body
        self.wait_for("Connected")
