"""What is measured. Times are in seconds, of a client that watches the API server."""

import asyncio
import os
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.apiserver import sessions_path
from tests.benchmarks.controller import audit, life, usage
from tests.benchmarks.controller.audit import RECORDED_NAMESPACE, Kind
from tests.benchmarks.controller.cluster import Cluster, manifest
from tests.benchmarks.controller.connection import Client
from tests.benchmarks.controller.observer import condition, observing
from tests.benchmarks.controller.operators import Operators
from tests.benchmarks.controller.usage import Moment
from tests.integration.controller_stand_ins import Replica
from whatsapp_operator.api import names

RECORDED: Final = 10
CREATORS: Final = 16
QUIET_SECONDS: Final = 3.0
Result = dict[str, Any]


@dataclass
class Bench:
    """A cluster that is up, with a client of its own."""

    cluster: Cluster
    client: Client
    directory: Path
    operators: Operators = field(init=False)

    def __post_init__(self) -> None:
        self.operators = Operators(self.cluster, self.directory)

    async def create(self, namespace: str, prefix: str, count: int, *, first: int = 0) -> None:
        numbers = iter(range(first, first + count))

        async def work() -> None:
            for number in numbers:
                await self.client.create(sessions_path(namespace), manifest(f"{prefix}{number}", number))

        async with asyncio.TaskGroup() as group:
            for _ in range(CREATORS):
                group.create_task(work())

    async def quiet(self, *, seconds: float = 300) -> None:
        """Wait until nothing was written for a while."""
        async with asyncio.timeout(seconds):
            seen, since = -1, time.monotonic()
            while time.monotonic() - since < QUIET_SECONDS:
                # Other controllers and leases write a little all the time.
                now = (
                    sum(audit.count(audit.entries(self.cluster.audit_log, after=max(seen, 0))).values())
                    if seen >= 0
                    else 1
                )
                seen = self.cluster.audit_offset()
                if now:
                    since = time.monotonic()
                await asyncio.sleep(0.5)


def load() -> float:
    return round(os.getloadavg()[0], 2)


async def converge(
    bench: Bench, replica: Replica, namespace: str, prefix: str, count: int, *, first: int = 0
) -> Result:
    """Create so many sessions at once, until all are Ready; then until nothing more is written."""
    cluster = bench.cluster
    cluster.make_namespace(namespace)
    offset, before, writes, load_before = cluster.audit_offset(), Moment.now(cluster.pids), replica.writes(), load()
    async with observing(bench.client, sessions_path(namespace)) as observer:
        started = time.monotonic()
        ready = await observer.times(
            count,
            condition("Ready"),
            seconds=20 + count * 0.1,
            act=lambda: bench.create(namespace, prefix, count, first=first),
        )
    seconds = max(ready.values()) - started
    until_ready = Moment.now(cluster.pids).since(before)
    await bench.quiet()
    used = Moment.now(cluster.pids).since(before)
    kinds = audit.count(audit.entries(cluster.audit_log, after=offset))
    operator = next(name for name, pid in cluster.pids.items() if pid == replica.process.pid)
    return {
        "sessions": count,
        "seconds": round(seconds, 2),
        "median_seconds": round(statistics.median(ready.values()) - started, 2),
        "operator_cpu_ms_per_session": round(used[operator] * 1000 / count, 2),
        "cpu_until_ready": until_ready,
        "cpu": used,
        "memory": usage.memory(replica.process.pid),
        "operator_writes_counted": round((replica.writes() - writes) / count, 3),
        "writes": per_session(kinds, count),
        "load_before": load_before,
        "kinds": kinds,
    }


def per_session(kinds: Counter[Kind], count: int) -> dict[str, float]:
    """Writes per session: the operator's without its events, its events, and those of the pods."""
    tally: Counter[str] = Counter()
    for kind, number in kinds.items():
        if audit.once_a_namespace(kind):
            continue
        tally["operator events" if kind.resource == "events" else kind.actor] += number
    return {name: round(number / count, 3) for name, number in tally.items()}


async def record(bench: Bench, replica: Replica) -> life.Recording:
    """A few sessions whose writes are taken down with their bodies; they warm everything up, too."""
    offset = bench.cluster.audit_offset()
    await converge(bench, replica, RECORDED_NAMESPACE, "subject-", RECORDED, first=9_000_000)
    return life.record(audit.entries(bench.cluster.audit_log, after=offset))


async def raw(bench: Bench, recording: life.Recording, kinds: Counter[Kind], count: int) -> Result:
    """The same writes as the operator and the pods made for so many sessions, by a dumb writer; until all pods run."""
    cluster, namespace = bench.cluster, "bench"
    cluster.make_namespace(namespace)
    account = {"metadata": {"name": names.SESSION_SERVICE_ACCOUNT}}
    await bench.client.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.SESSION_CLUSTER_ROLE}
    subjects = [{"kind": "ServiceAccount", "name": names.SESSION_SERVICE_ACCOUNT, "namespace": namespace}]
    binding = {"metadata": {"name": names.SESSION_SERVICE_ACCOUNT}, "roleRef": role, "subjects": subjects}
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    await bench.client.create(bindings, binding)
    means = {kind: number / count for kind, number in kinds.items()}
    lives = [recording.scaled(means, number) for number in range(count)]
    offset, before, load_before = cluster.audit_offset(), Moment.now(cluster.pids), load()
    wrote = 0

    async def write() -> None:
        nonlocal wrote
        _, wrote = await life.write_many(bench.client, lives, namespace)

    def running(event: dict[str, Any]) -> str | None:
        found = event["object"]
        return str(found["metadata"]["name"]) if found["status"].get("phase") == "Running" else None

    async with observing(bench.client, f"/api/v1/namespaces/{namespace}/pods") as observer:
        started = time.monotonic()
        await observer.times(count, running, seconds=20 + count * 0.1, act=write)
        seconds = time.monotonic() - started
    used = Moment.now(cluster.pids).since(before)
    made = audit.count(audit.entries(cluster.audit_log, after=offset))
    return {
        "sessions": count,
        "seconds": round(seconds, 2),
        "cpu": used,
        "writes": per_session(made, count),
        "load_before": load_before,
        "wrote": wrote,
    }
