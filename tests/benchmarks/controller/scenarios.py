"""What is measured. Times are in seconds, of a client that watches the API server."""

import asyncio
import contextlib
import os
import statistics
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.apiserver import sessions_path
from tests.benchmarks.controller import audit, life, usage
from tests.benchmarks.controller.audit import RECORDED_NAMESPACE, Kind
from tests.benchmarks.controller.cluster import Cluster, manifest
from tests.benchmarks.controller.connection import Client
from tests.benchmarks.controller.observer import Event, condition, observing
from tests.benchmarks.controller.operators import Operators
from tests.benchmarks.controller.usage import Moment
from tests.integration.controller_stand_ins import Replica
from tests.waiting import eventually
from whatsapp_operator.api import names

NAMESPACE: Final = "bench"
RECORDED: Final = 10
PARALLEL: Final = 16
"""Requests of the user at the same time."""
QUIET_SECONDS: Final = 3.0
GIVE_UP_SECONDS: Final = 30.0
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

    async def each(self, numbers: range, do: Callable[[int], Awaitable[Any]]) -> None:
        left = iter(numbers)

        async def work() -> None:
            for number in left:
                await do(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(PARALLEL):
                group.create_task(work())

    async def create(self, namespace: str, numbers: range) -> None:
        path = sessions_path(namespace)
        await self.each(numbers, lambda number: self.client.create(path, manifest(number)))

    async def annotate(self, namespace: str, numbers: range, annotation: str, value: str) -> None:
        await self.each(numbers, lambda number: self.annotate_one(namespace, number, annotation, value))

    async def annotate_one(self, namespace: str, number: int, annotation: str, value: str | None) -> None:
        path = sessions_path(namespace, f"session-{number}")
        await self.client.patch(path, {"metadata": {"annotations": {annotation: value}}})

    async def quiet(self, *, seconds: float = 300) -> None:
        """Wait until neither the operator nor a pod has written anything for a while."""
        since, seen = time.monotonic(), self.cluster.audit_offset()
        async with asyncio.timeout(seconds):
            while time.monotonic() - since < QUIET_SECONDS:
                await asyncio.sleep(0.25)
                before, seen = seen, self.cluster.audit_offset()
                if audit.count(audit.entries(self.cluster.audit_log, after=before)):
                    since = time.monotonic()


class Measurement:
    """What everything uses, and who writes what, from its making on."""

    def __init__(self, bench: Bench, replica: Replica | None = None) -> None:
        self._bench = bench
        self._replica = replica
        self._offset = bench.cluster.audit_offset()
        self._writes = replica.writes() if replica is not None else 0.0
        self._load = round(os.getloadavg()[0], 2)
        self._before = Moment.now(bench.cluster.pids)

    def used(self) -> dict[str, float]:
        """CPU seconds by process until now."""
        return Moment.now(self._bench.cluster.pids).since(self._before)

    def kinds(self) -> Counter[Kind]:
        return audit.count(audit.entries(self._bench.cluster.audit_log, after=self._offset))

    def result(self, sessions: int, **more: Any) -> Result:
        used, kinds = self.used(), self.kinds()
        found: Result = {"sessions": sessions, "load_before": self._load, **more, "cpu": used, "kinds": kinds}
        found["writes"] = per_session(kinds, sessions)
        found["operator_writes_in_audit"] = sum(number for kind, number in kinds.items() if kind.actor == "operator")
        if self._replica is not None:
            cluster = self._bench.cluster
            own = next(name for name, pid in cluster.pids.items() if pid == self._replica.process.pid)
            found["operator_cpu_seconds"] = used[own]
            found["operator_cpu_ms_per_session"] = round(used[own] * 1000 / sessions, 2)
            found["memory"] = usage.memory(self._replica.process.pid)
            found["writes_by_metric"] = round((self._replica.writes() - self._writes) / sessions, 3)
        return found


def per_session(kinds: Mapping[Kind, int], count: int) -> dict[str, float]:
    """Writes per session: the operator's without its events, its events, and those of the pods."""
    tally: Counter[str] = Counter()
    for kind, number in kinds.items():
        if not audit.once_a_namespace(kind):
            tally["events" if kind.resource == "events" else kind.actor] += number
    return {name: round(tally[name] / count, 3) for name in ("operator", "events", "pod")}


async def _until(
    bench: Bench, numbers: range, match: Callable[[Event], str | None], act: Callable[[], Awaitable[None]], *, path: str
) -> tuple[float, float]:
    """Seconds from `act` until all objects, and until half of them, were seen to match."""
    async with observing(bench.client, path) as observer:
        started = time.monotonic()
        found = await observer.times(len(numbers), match, seconds=60 + len(numbers) * 0.5, act=act)
    return round(max(found.values()) - started, 2), round(statistics.median(found.values()) - started, 2)


async def converge(bench: Bench, replica: Replica, numbers: range, *, namespace: str = NAMESPACE) -> Result:
    """Create sessions at once, until all are Ready; then until nothing more is written."""
    bench.cluster.make_namespace(namespace)
    measured = Measurement(bench, replica)
    create = lambda: bench.create(namespace, numbers)  # noqa: E731
    seconds, median = await _until(bench, numbers, condition("Ready"), create, path=sessions_path(namespace))
    used = measured.used()
    await bench.quiet()
    return measured.result(len(numbers), seconds=seconds, median_seconds=median, cpu_until_ready=used)


async def storm(bench: Bench, replica: Replica, numbers: range, *, namespace: str = NAMESPACE) -> Result:
    """Ask all sessions at once to relink, until all are Ready with the request done."""
    measured = Measurement(bench, replica)
    relink = lambda: bench.annotate(namespace, numbers, names.ANNOTATION_FORCE_RELINK, "storm")  # noqa: E731
    seconds, median = await _until(bench, numbers, _relinked, relink, path=sessions_path(namespace))
    used = measured.used()
    await bench.quiet()
    return measured.result(len(numbers), seconds=seconds, median_seconds=median, cpu_until_ready=used)


def _relinked(event: Event) -> str | None:
    status = event["object"].get("status") or {}
    done = (status.get("relink") or {}).get("completedAt") is not None
    return condition("Ready")(event) if done and status["session"]["machine"] == "Connected" else None


async def record(bench: Bench, replica: Replica) -> tuple[life.Recording, life.Recording]:
    """A life and a relink of a few sessions, taken down with their bodies; it warms everything up, too."""
    log, numbers = bench.cluster.audit_log, range(9_000_000, 9_000_000 + RECORDED)
    begin = bench.cluster.audit_offset()
    await converge(bench, replica, numbers, namespace=RECORDED_NAMESPACE)
    end = bench.cluster.audit_offset()
    await storm(bench, replica, numbers, namespace=RECORDED_NAMESPACE)
    born, relinked = life.record(audit.entries(log, after=begin, until=end), audit.entries(log, after=end))
    return born, relinked


async def raw(bench: Bench, recording: life.Recording, kinds: Mapping[Kind, int], known: list[life.Known]) -> Result:
    """The writes that operator and pods made for so many sessions, by a dumb writer.

    It ends when they are made and, where there are new ones, all pods run.
    """
    count = len(known)
    means = {kind: number / count for kind, number in kinds.items()}
    lives = [(recording.scaled(means, number), each) for number, each in enumerate(known)]
    measured = Measurement(bench)
    wrote = 0

    async def write() -> None:
        nonlocal wrote
        wrote = await life.write_many(bench.client, lives)

    started = time.monotonic()
    if any(kind.resource == "pods" and kind.verb == "create" for kind in kinds):
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        await _until(bench, range(count), _running, write, path=pods)
    else:
        await write()
    return measured.result(count, seconds=round(time.monotonic() - started, 2), wrote=wrote)


async def prepare_raw(bench: Bench, count: int) -> list[life.Known]:
    """What a namespace has once, which the operator makes too."""
    bench.cluster.make_namespace(NAMESPACE)
    account = {"metadata": {"name": names.SESSION_SERVICE_ACCOUNT}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names.SESSION_CLUSTER_ROLE}
    subjects = [{"kind": "ServiceAccount", "name": names.SESSION_SERVICE_ACCOUNT, "namespace": NAMESPACE}]
    bindings = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings"
    await bench.client.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", account)
    await bench.client.create(bindings, {**account, "roleRef": role, "subjects": subjects})
    return [life.names_of(NAMESPACE, number) for number in range(count)]


def _running(event: Event) -> str | None:
    found = event["object"]
    return str(found["metadata"]["name"]) if found["status"].get("phase") == "Running" else None


async def alone(bench: Bench, replica: Replica, rounds: int) -> Result:
    """One session at a time: from the moment that a watch has brought it until another has brought its pod."""
    namespace = "alone"
    bench.cluster.make_namespace(namespace)
    measured = Measurement(bench, replica)
    from_event, from_apply = [], []
    sessions, pods = sessions_path(namespace), f"/api/v1/namespaces/{namespace}/pods"
    async with observing(bench.client, sessions) as observer, observing(bench.client, pods) as pod_observer:
        for number in range(8_000_000, 8_000_000 + rounds):
            name = f"session-{number}"
            pod = asyncio.create_task(
                pod_observer.times(1, _named(names.owned_name(name)), seconds=30), name="the pod is created"
            )
            session = asyncio.create_task(observer.times(1, _named(name), seconds=30), name="the session is seen")
            ready = asyncio.create_task(observer.times(1, _ready(name), seconds=30), name="the session is ready")
            await asyncio.sleep(0)
            started = time.monotonic()
            await bench.create(namespace, range(number, number + 1))
            [seen], [created] = (await session).values(), (await pod).values()
            from_event.append(created - seen)
            from_apply.append(created - started)
            await ready
    await bench.quiet()
    return measured.result(
        rounds,
        median_ms=round(statistics.median(from_event) * 1000, 1),
        worst_ms=round(max(from_event) * 1000, 1),
        median_from_apply_ms=round(statistics.median(from_apply) * 1000, 1),
    )


def _named(name: str) -> Callable[[Event], str | None]:
    return lambda event: name if event["object"]["metadata"]["name"] == name else None


def _ready(name: str) -> Callable[[Event], str | None]:
    return lambda event: name if condition("Ready")(event) == name else None


def _told(level: str) -> str:
    return f'"logLevel":"{level}"'


async def latency(bench: Bench, replica: Replica, sessions: int, *, rate: float, seconds: float) -> Result:
    """Changes at that rate, spread over the sessions: from their event until that of the pod that is told of it.

    A session whose turn comes again before that counts as `overtaken`, with the time so far; so does one that has not
    been told half a minute after the last change.
    """
    levels = names.LOG_LEVELS
    waiting: dict[str, tuple[str, float | None]] = {}
    sent: dict[str, float] = {}
    found: list[float] = []
    total, overtaken, done = int(rate * seconds), 0, asyncio.Event()

    def session_seen(event: Event, at: float) -> None:
        metadata = event["object"]["metadata"]
        level, seen = waiting.get(metadata["name"], ("", 0.0))
        if seen is None and (metadata.get("annotations") or {}).get(names.ANNOTATION_LOG_LEVEL) == level:
            waiting[metadata["name"]] = (level, at)

    def pod_seen(event: Event, at: float) -> None:
        metadata = event["object"]["metadata"]
        name = metadata["labels"][names.LABEL_SESSION]
        level, _ = waiting.get(name, ("", None))
        if level and _told(level) in metadata["annotations"][names.ANNOTATION_DESIRED_STATE]:
            # The pod may be seen first: they are two watches.
            end(name, at, unseen=at)

    def end(name: str, at: float, *, unseen: float) -> None:
        """`unseen`: what counts as the time of the session's event where it was not seen."""
        _, seen = waiting.pop(name)
        found.append(max(0.0, at - (unseen if seen is None else seen)))
        if len(found) == total:
            done.set()

    measured = Measurement(bench, replica)
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    async with (
        observing(bench.client, sessions_path(NAMESPACE)) as observer,
        observing(bench.client, pods) as pod_observer,
        asyncio.TaskGroup() as group,
    ):
        with observer.listening(session_seen), pod_observer.listening(pod_seen):
            started = time.monotonic()
            for number in range(total):
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                which, level = number % sessions, levels[number // sessions % len(levels)]
                name = f"session-{which}"
                if name in waiting:
                    overtaken += 1
                    end(name, time.monotonic(), unseen=sent[name])
                waiting[name], sent[name] = (level, None), time.monotonic()
                group.create_task(bench.annotate_one(NAMESPACE, which, names.ANNOTATION_LOG_LEVEL, level))
            took = time.monotonic() - started
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GIVE_UP_SECONDS):
                    await done.wait()
            overtaken += len(waiting)
            for name in list(waiting):
                end(name, time.monotonic(), unseen=sent[name])
    used = measured.used()
    await bench.quiet()
    ordered = sorted(found)
    return measured.result(
        total,
        among=sessions,
        rate=round(total / took, 1),
        p50_ms=round(ordered[len(ordered) // 2] * 1000, 1),
        p99_ms=round(ordered[len(ordered) * 99 // 100] * 1000, 1),
        worst_ms=round(ordered[-1] * 1000, 1),
        overtaken=overtaken,
        cpu_during=used,
    )


async def failover(bench: Bench, leader: Replica, sessions: int, rounds: int) -> tuple[Result, Replica]:
    """Kill the leader and change a session: until the other replica has told its pod. Returns the last leader, too."""
    times = []
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    standby = bench.operators.start_leader()
    await bench.annotate_one(NAMESPACE, 0, names.ANNOTATION_LOG_LEVEL, None)
    async with observing(bench.client, pods) as observer:
        for number in range(rounds):
            await bench.quiet()
            level = names.LOG_LEVELS[number % len(names.LOG_LEVELS)]

            def told(event: Event, level: str = level) -> str | None:
                metadata = event["object"]["metadata"]
                mine = metadata["name"] == names.owned_name("session-0")
                return (
                    "told" if mine and _told(level) in metadata["annotations"][names.ANNOTATION_DESIRED_STATE] else None
                )

            leader.process.kill()
            leader.process.wait()
            killed = time.monotonic()
            change = lambda level=level: bench.annotate_one(  # noqa: E731
                NAMESPACE, 0, names.ANNOTATION_LOG_LEVEL, level
            )
            found = await observer.times(1, told, seconds=60, act=change)
            times.append(round(found["told"] - killed, 2))
            leader, standby = standby, bench.operators.start_leader()
    bench.operators.stop(standby)
    return {"rounds": rounds, "among": sessions, "seconds": times, "worst_seconds": max(times)}, leader


async def restart(bench: Bench, replica: Replica, sessions: int, *arguments: str) -> tuple[Result, Replica]:
    """Stop the operator and start another with these arguments besides: until all sessions were looked at."""
    bench.operators.stop(replica)
    measured = Measurement(bench)
    started = time.monotonic()
    replica = bench.operators.start_leader(*arguments)
    synced = time.monotonic() - started

    def done() -> bool:
        looked_at = replica.metric("whatsapp_operator_reconcile_total") >= sessions
        return looked_at and replica.metric("whatsapp_operator_queue_depth") == 0

    eventually(done, "all sessions were looked at", seconds=300)
    observed = time.monotonic() - started
    await bench.quiet()
    found = measured.result(
        sessions,
        synced_seconds=round(synced, 2),
        seconds=round(observed, 2),
        operator_cpu_seconds=bench.operators.cpu(replica),
        memory=usage.memory(replica.process.pid),
        writes_in_all=replica.writes(),
    )
    found["writes_in_all"] = max(found["writes_in_all"], found["operator_writes_in_audit"])
    return found, replica


def metrics(replica: Replica, sessions: int, *, times: int = 5) -> Result:
    """The metrics page: seconds (median) and size."""
    took, size = [], 0
    for _ in range(times):
        started = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{replica.port}/metrics", timeout=60) as answer:
            size = len(answer.read())
        took.append(time.monotonic() - started)
    median = round(statistics.median(took), 3)
    return {"sessions": sessions, "seconds": median, "worst_seconds": round(max(took), 3), "bytes": size}


async def steady(bench: Bench, replica: Replica, sessions: int, seconds: float) -> Result:
    """Nothing happens."""
    measured = Measurement(bench, replica)
    before, writes = usage.memory(replica.process.pid), replica.writes()
    await asyncio.sleep(seconds)
    found = measured.result(sessions, seconds=seconds, memory_before=before, writes_in_all=replica.writes() - writes)
    found["writes_in_all"] = max(found["writes_in_all"], found["operator_writes_in_audit"])
    found["operator_millicores"] = round(found["operator_cpu_seconds"] / seconds * 1000, 1)
    return found
