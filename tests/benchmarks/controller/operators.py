"""The operator as a process, as in production: its own command line and account."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.apiserver import ROOT
from tests.benchmarks.controller import usage
from tests.benchmarks.controller.cluster import Cluster
from tests.integration.controller_stand_ins import Replica, operator_arguments
from tests.ports import free_port
from tests.waiting import eventually


@dataclass
class Operators:
    """Operators of one cluster. `python`: options of the interpreter, for a profiler."""

    cluster: Cluster
    directory: Path
    python: tuple[str, ...] = ()
    started: list[Replica] = field(default_factory=list)

    def start(self, *arguments: str) -> Replica:
        number = len(self.started)
        port, api = free_port(), self.cluster.api
        told = operator_arguments(
            self.directory,
            api=api,
            server=api.url,
            ca=api.ca,
            namespaces="",
            port=port,
            identity=f"operator-{number}",
        )
        name = f"operator-{number}"
        command = [sys.executable, *self.python, "-m", "whatsapp_operator.controller"]
        options = (*told, "--log-level", "info", *arguments)
        environment = f"PYTHONPATH={ROOT / 'operator'}"
        process = self.cluster.start(name, ["env", environment, *command, *options])
        replica = Replica(process, port, self.cluster.plane.directory / f"{name}.log")
        self.started.append(replica)
        return replica

    def start_leader(self, *arguments: str) -> Replica:
        replica = self.start(*arguments)
        self.wait_until_ready(replica)
        return replica

    def wait_until_ready(self, replica: Replica, *, seconds: float = 120) -> None:
        """A leader is ready once it has seen everything. Its metrics are not asked for, they cost it time."""

        def ready() -> bool:
            if replica.process.poll() is not None:
                raise AssertionError(f"the operator has ended:\n{replica.text()[-4000:]}")
            return replica.get("/readyz")[0] == 200

        eventually(ready, "the operator is ready", seconds=seconds, every=0.05)

    def stop(self, replica: Replica) -> None:
        replica.process.terminate()
        try:
            replica.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            replica.process.kill()
            raise

    def close(self) -> None:
        for replica in self.started:
            if replica.process.poll() is None:
                replica.process.kill()
                replica.process.wait()

    def cpu(self, replica: Replica) -> float:
        return usage.cpu_seconds(replica.process.pid)
