"""The writes of one session's life, recorded from the audit log and made again for others with no controller at all."""

import asyncio
import json
import time
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


def record(entries: Iterable[dict[str, Any]]) -> Recording:
    """The most usual of the lives in the namespace that is audited with bodies."""
    lives: dict[str, list[dict[str, Any]]] = defaultdict(list)
    claims: dict[str, str] = {}
    for entry in entries:
        about, body = entry["objectRef"], entry.get("requestObject") or {}
        name = about.get("name") or ""
        if audit.leader_election(entry) or audit.once_a_namespace(audit.kind(entry)):
            continue
        if about["resource"] == "leases":
            namespace, session, _ = (body.get("spec", {}).get("holderIdentity") or "//").split("/")
            if namespace != RECORDED_NAMESPACE:
                continue
            claims[session] = name
        elif about.get("namespace") != RECORDED_NAMESPACE:
            continue
        else:
            regarding = body.get("regarding", {}).get("name")
            session = (regarding or name).removeprefix("wa-")
        if _replayed(entry):
            lives[session].append(entry)
    usual = Counter(len(life) for life in lives.values()).most_common(1)[0][0]
    session = sorted(name for name, life in lives.items() if len(life) == usual)[-1]
    return Recording(
        tuple(_write(entry, marks) for marks in [_marks(session, lives[session], claims)] for entry in lives[session])
    )


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


async def write(client: Client, recording: Recording, namespace: str, name: str, number: int) -> int:
    """Make a recorded life's writes for another session; returns their number."""
    known = {
        "<claim>": f"phone-raw-{namespace}-{number}",
        "<phone>": f"1555{number:07}",
        "<tenant>": f"tenant-{number // 10}",
        "<name>": name,
        "<namespace>": namespace,
    }

    def filled(text: str) -> str:
        for mark, value in known.items():
            text = text.replace(mark, value)
        return text

    for item in recording.writes:
        headers = {key: filled(value) for key, value in item.headers.items()}
        answer = await client.request(item.method, filled(item.path), filled(item.body).encode(), headers)
        if item.kind.resource in (names.PLURAL, "pods"):
            metadata = json.loads(answer)["metadata"]
            if item.kind.resource == "pods":
                known["<pod>"] = metadata["uid"]
            else:
                known["<uid>"], known[_VERSION] = metadata["uid"], metadata["resourceVersion"]
    return len(recording.writes)


async def write_many(client: Client, recordings: Sequence[Recording], namespace: str) -> tuple[float, int]:
    """As many sessions at once as keep the API server busy; returns seconds and writes."""
    numbers = iter(enumerate(recordings))
    total = 0
    started = time.monotonic()

    async def work() -> None:
        nonlocal total
        for number, recording in numbers:
            total += await write(client, recording, namespace, f"session-{number}", number)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())
    return time.monotonic() - started, total
