"""The writes of one session's life, recorded from the audit log and made again for others with no controller at all."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tests.benchmarks.controller import audit
from tests.benchmarks.controller.audit import OPERATOR, RECORDED_NAMESPACE, Kind
from tests.benchmarks.controller.connection import APPLY, JSON, MERGE, Client, impersonate
from whatsapp_operator.api import names

CONCURRENCY: Final = 32
"""Sessions that a raw writer works on at the same time: it keeps the API server busy with fewer already."""
_METHODS: Final = {"create": "POST", "patch": "PATCH", "delete": "DELETE"}
_VERSION: Final = "<version>"


@dataclass(frozen=True)
class Write:
    """One request; path and body hold the marks that `Recording` tells of."""

    kind: Kind
    method: str
    path: str
    body: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Recording:
    """A session's writes in their order. Its own names stand as marks: <name>, <phone>, <tenant>, <uid>, <pod> ..."""

    writes: tuple[Write, ...]

    def scaled(self, means: Mapping[Kind, float], number: int) -> "Recording":
        """The recording for the session of that number, such that many have, on average, so many writes of each kind.

        What the operator does for many sessions at once it may do in fewer writes, or more, than for one.
        """
        recorded = Counter(write.kind for write in self.writes)
        left = recorded.copy()
        kept: list[Write] = []
        for write in self.writes:
            left[write.kind] -= 1
            wanted = (
                recorded[write.kind] if write.kind.actor != "operator" else _share(means.get(write.kind, 0.0), number)
            )
            # The last ones are kept; what was done more often than recorded is the last one again.
            if left[write.kind] < wanted:
                kept.append(write)
            if not left[write.kind] and write.kind.verb == "patch":
                kept += [write] * (wanted - recorded[write.kind])
        return Recording(tuple(kept))


def _share(mean: float, number: int) -> int:
    """Whole numbers that have the mean."""
    return int(mean * (number + 1) + 1e-6) - int(mean * number + 1e-6)


def record(*phases: Iterable[dict[str, Any]]) -> list[Recording]:
    """What a session of the namespace that is audited with bodies did in each phase: one whose life is the most usual.

    A phase is what the audit log holds of it; the first begins with the sessions' creation.
    """
    claims: dict[str, str] = {}
    lives = [_lives(phase, claims) for phase in phases]
    usual = Counter(len(life) for life in lives[0].values()).most_common(1)[0][0]
    session = max(name for name, life in lives[0].items() if len(life) == usual)
    marks = _marks(session, lives[0][session], claims)
    return [Recording(tuple(_write(entry, marks) for entry in phase[session])) for phase in lives]


def _lives(entries: Iterable[dict[str, Any]], claims: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What was written for each session; `claims` is told the name of each one's Lease."""
    lives: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        about, body = entry["objectRef"], entry.get("requestObject") or {}
        if audit.leader_election(entry) or audit.once_a_namespace(audit.kind(entry)) or not _replayed(entry):
            continue
        if about["resource"] == "leases":
            holder = (body.get("spec", {}).get("holderIdentity") or "").split("/")
            if holder[0] != RECORDED_NAMESPACE:
                continue
            session = holder[1]
            claims[session] = about["name"]
        elif about.get("namespace") == RECORDED_NAMESPACE:
            session = (body.get("regarding", {}).get("name") or about["name"]).removeprefix("wa-")
        else:
            continue
        lives[session].append(entry)
    return lives


def _replayed(entry: dict[str, Any]) -> bool:
    """Not what the scheduler and the kubelet do, who are there for a raw writer too."""
    found = audit.kind(entry)
    return found.actor != "other" or found.resource in ("whatsappsessions", "persistentvolumeclaims")


def _marks(session: str, life: Sequence[dict[str, Any]], claims: Mapping[str, str]) -> dict[str, str]:
    body = next(e["requestObject"] for e in life if audit.kind(e) == Kind("other", "create", "whatsappsessions"))
    pod = next(e for e in life if audit.kind(e) == Kind("operator", "create", "pods"))
    labels = pod["requestObject"]["metadata"]["labels"]
    report = next(e for e in life if audit.actor(e) == "pod" and e["objectRef"]["resource"] == "whatsappsessions")
    phone = body["spec"]["phone"]
    return {
        claims.get(session, "no claim"): "<claim>",
        labels[names.LABEL_SESSION_UID]: "<uid>",
        report["requestObject"]["status"]["session"]["podUID"]: "<pod>",
        phone.removeprefix("+"): "<phone>",
        body["spec"]["tenant"]: "<tenant>",
        session: "<name>",
        f'"{RECORDED_NAMESPACE}"': '"<namespace>"',
        f"/{RECORDED_NAMESPACE}/": "/<namespace>/",
    }


def _write(entry: dict[str, Any], marks: Mapping[str, str]) -> Write:
    found = audit.kind(entry)
    body = entry.get("requestObject")
    metadata = (body or {}).get("metadata") or {}
    if "resourceVersion" in metadata:
        # That of a session is known from the answer to the last write; nobody else writes to it then.
        if found.resource == names.PLURAL:
            metadata["resourceVersion"] = _VERSION
        else:
            del metadata["resourceVersion"]
    text, path = json.dumps(body), entry["requestURI"]
    for value, mark in marks.items():
        text, path = text.replace(value, mark), path.replace(value, mark)
    apply = "force=true" in urlsplit(path).query
    content = JSON if found.verb != "patch" else APPLY if apply else MERGE
    headers = dict(content)
    if found.actor == "operator":
        headers |= impersonate(OPERATOR)
    elif found.actor == "pod":
        headers |= impersonate(f"system:serviceaccount:<namespace>:{names.SESSION_SERVICE_ACCOUNT}", "wa-<name>")
    return Write(found, _METHODS[found.verb], path, text, headers)


Known = dict[str, str]
"""What stands for the marks."""


def names_of(namespace: str, number: int) -> Known:
    """What is known of a session before its first write."""
    return {
        "<claim>": f"phone-raw-{namespace}-{number}",
        "<phone>": f"1555{number:07}",
        "<tenant>": f"tenant-{number // 10}",
        "<name>": f"session-{number}",
        "<namespace>": namespace,
    }


def filled(text: str, known: Known) -> str:
    for mark, value in known.items():
        text = text.replace(mark, value)
    return text


async def write(client: Client, recording: Recording, known: Known) -> int:
    """Make a recorded life's writes for another session; returns their number. What is learnt is added to `known`."""
    for item in recording.writes:
        headers = {key: filled(value, known) for key, value in item.headers.items()}
        body = filled(item.body, known).encode()
        answer = await client.request(item.method, filled(item.path, known), body, headers)
        if item.kind.resource in (names.PLURAL, "pods"):
            metadata = json.loads(answer)["metadata"]
            if item.kind.resource == "pods":
                known["<pod>"] = metadata["uid"]
            else:
                known["<uid>"], known[_VERSION] = metadata["uid"], metadata["resourceVersion"]
    return len(recording.writes)


async def write_many(client: Client, lives: Sequence[tuple[Recording, Known]]) -> int:
    """As many at once as keep the API server busy; returns the number of writes."""
    left = iter(lives)

    async def work() -> int:
        return sum([await write(client, recording, known) for recording, known in left])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(CONCURRENCY)]
    return sum(task.result() for task in tasks)
