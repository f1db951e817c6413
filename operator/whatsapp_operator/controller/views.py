"""The parts of cluster objects that plans depend on: all that the cache keeps of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from sys import intern
from typing import Any, Final, NamedTuple

import pydantic_core

from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import ConditionType
from whatsapp_operator.controller.objects import lease
from whatsapp_operator.controller.objects.labels import OWN, untouched
from whatsapp_operator.kube.client import Object

OOM_KILLED: Final = "OOMKilled"
_NOTHING: Final[tuple[Mapping[str, str], Mapping[str, str]]] = ({}, {})


class Key(NamedTuple):
    """Namespace and name of a WhatsAppSession."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_time(text: str | None) -> datetime | None:
    """A metav1.Time or MicroTime."""
    return datetime.fromisoformat(text) if text else None


def session_key(metadata: dict[str, Any]) -> Key:
    return Key(intern(metadata["namespace"]), metadata["name"])


@lru_cache(maxsize=1024)
def _shared(conditions: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """One tuple for the many sessions whose conditions are the same."""
    return conditions


@dataclass(frozen=True, slots=True)
class SessionView:
    """A WhatsAppSession: what is asked of all sessions at once, and the rest as JSON, until the session is worked on.

    Attributes:
        raw: the object without managedFields, as JSON.
        conditions: type and status of each.
        reason: that of Ready; empty before the first status.
        connected_since: since when it is written down as connected; None if it is not.
        deletion_seen: when this process first saw the deletionTimestamp, by the monotonic clock; None without one.
        paused: the operator is to leave it alone.
    """

    uid: str
    version: str
    tenant: str
    raw: bytes
    paused: bool = False
    phase: str | None = None
    primary: bool = False
    conditions: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    connected_since: datetime | None = None
    deletion_seen: float | None = None

    @property
    def body(self) -> Object:
        """The whole object, parsed anew each time."""
        found: Object = pydantic_core.from_json(self.raw)
        return found

    @classmethod
    def parse(cls, body: Object, now: float, known: "SessionView | None" = None) -> "SessionView":
        """The view of a session that was `known` before, if it was; now is the monotonic clock."""
        metadata, status = body["metadata"], body.get("status") or {}
        conditions: Iterable[dict[str, str]] = status.get("conditions") or ()
        seen = known.deletion_seen if known is not None and known.uid == metadata["uid"] else None
        since, reason = None, ""
        for item in conditions:
            if item.get("type") == ConditionType.CONNECTED and item.get("status") == "True":
                since = parse_time(item.get("lastTransitionTime"))
            elif item.get("type") == ConditionType.READY:
                reason = intern(str(item.get("reason", "")))
        return cls(
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            tenant=intern(str((body.get("spec") or {}).get("tenant", ""))),
            raw=pydantic_core.to_json({**body, "metadata": {**metadata, "managedFields": None}}),
            paused=(metadata.get("annotations") or {}).get(names.ANNOTATION_PAUSED) == "true",
            phase=status.get("phase") or None,
            primary=status.get("primary") is True,
            conditions=_shared(tuple((str(item.get("type")), str(item.get("status"))) for item in conditions)),
            reason=reason,
            connected_since=since,
            deletion_seen=None if "deletionTimestamp" not in metadata else now if seen is None else seen,
        )


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod.

    Attributes:
        first_seen: when this process first saw this pod, by the monotonic clock.
        desired_since: when this process first saw its present desired state, by the monotonic clock.
        generation: of the session, when the pod was made for it.
        edited: somebody has changed a label that is the same on all session pods.
        further: labels and annotations that are not the operator's own, as a template asks for; usually none.
        nudges: how often the kubelet was made to look at the present desired state again.
        started_at: start of the running container, to the second; None if it does not run.
        ended: how the container last ended: OOMKilled, or its exit code; empty if it never has.
        node_lost: the node controller has declared the pod unready, while its containers were not seen to fail.
    """

    uid: str
    version: str
    first_seen: float
    session_uid: str = ""
    tenant: str = ""
    edited: bool = False
    further: tuple[Mapping[str, str], Mapping[str, str]] = _NOTHING
    primary: bool = False
    desired_state: str | None = None
    desired_since: float = 0.0
    generation: int = 0
    nudges: int = 0
    applied_hash: str | None = None
    spec_hash: str | None = None
    phase: str = "Pending"
    status_reason: str = ""
    status_message: str = ""
    unschedulable: str | None = None
    running: bool = False
    ready: bool = False
    started_at: datetime | None = None
    node_lost: bool = False
    waiting_reason: str = ""
    waiting_message: str = ""
    ended: str = ""
    restarts: int = 0
    node: str = ""
    image: str = ""
    deleting: bool = False

    @classmethod
    def parse(cls, body: Object, now: float, known: "PodView | None" = None) -> "PodView":
        """The view of a pod that was `known` before, if it was; now is the monotonic clock."""
        metadata, status = body["metadata"], body.get("status") or {}
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        conditions: dict[str, dict[str, Any]] = {item["type"]: item for item in status.get("conditions") or ()}
        containers = status.get("containerStatuses") or ()
        container: dict[str, Any] = next((c for c in containers if c.get("name") == names.SESSION_CONTAINER), {})
        state = container.get("state") or {}
        running, waiting = state.get("running"), state.get("waiting") or {}
        scheduled = conditions.get("PodScheduled", {})
        is_running = status.get("phase") == "Running" and running is not None
        if known is not None and known.uid != metadata["uid"]:
            known = None
        desired_state = annotations.get(names.ANNOTATION_DESIRED_STATE)
        nudges = annotations.get(names.ANNOTATION_NUDGES, "")
        generation = annotations.get(names.ANNOTATION_GENERATION, "")
        told = known is not None and known.desired_state == desired_state
        pod_ready = conditions.get("Ready", {}).get("status") == "True"
        containers_ready = conditions.get("ContainersReady", {}).get("status") == "True"
        return cls(
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            first_seen=known.first_seen if known is not None else now,
            session_uid=labels.get(names.LABEL_SESSION_UID, ""),
            tenant=intern(labels.get(names.LABEL_TENANT, "")),
            edited=not untouched(labels, metadata["name"].removeprefix(names.owned_name(""))),
            further=_further(labels, annotations),
            primary=labels.get(names.LABEL_PRIMARY) == "true",
            desired_state=desired_state,
            desired_since=known.desired_since if known is not None and told else now,
            generation=_number(generation),
            nudges=_number(nudges),
            applied_hash=annotations.get(names.ANNOTATION_APPLIED_HASH),
            spec_hash=annotations.get(names.ANNOTATION_SPEC_HASH),
            phase=status.get("phase") or "Pending",
            status_reason=status.get("reason") or "",
            status_message=status.get("message") or "",
            unschedulable=(scheduled.get("message") or "") if scheduled.get("status") == "False" else None,
            running=is_running,
            ready=pod_ready,
            started_at=parse_time((running or {}).get("startedAt")),
            node_lost=status.get("reason") == "NodeLost" or (containers_ready and not pod_ready),
            waiting_reason=waiting.get("reason") or "",
            waiting_message=waiting.get("message") or "",
            ended=_ended(container),
            restarts=int(container.get("restartCount") or 0),
            node=(body.get("spec") or {}).get("nodeName") or "",
            image=container.get("image") or "",
            deleting="deletionTimestamp" in metadata,
        )


def _further(labels: dict[str, str], annotations: dict[str, str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    found = (
        {key: value for key, value in labels.items() if key not in OWN},
        {key: value for key, value in annotations.items() if not key.startswith(f"{names.GROUP}/")},
    )
    return found if any(found) else _NOTHING


def _number(text: str) -> int:
    """0 for what this operator has not written: more digits than it ever does are refused or slow to read."""
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def _ended(container: dict[str, Any]) -> str:
    """Of a container status."""
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        if (ended := state.get("terminated")) is not None:
            return OOM_KILLED if ended.get("reason") == OOM_KILLED else f"exit code {ended.get('exitCode')}"
    return ""


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A PersistentVolumeClaim.

    Attributes:
        ours: made by this operator, for whichever session.
        edited: as of a pod.
        kind_hash: of what it was asked for at first, the size aside; None where an earlier version has made it.
        pending: it was never bound, so nothing lies on it.
        storage_class: the one that was asked for, or the cluster's default; None where there is none.
        access_modes: of the volume; empty until it is bound.
        requested: size as a quantity.
        capacity: what the volume has, as a quantity; empty until it is bound.
        resize_error: why the volume cannot grow, as its conditions tell.
    """

    uid: str
    version: str
    session_uid: str = ""
    tenant: str = ""
    ours: bool = False
    edited: bool = False
    kind_hash: str | None = None
    pending: bool = False
    storage_class: str | None = None
    access_modes: tuple[str, ...] = ()
    bound: bool = False
    requested: str = ""
    capacity: str = ""
    resize_error: str | None = None
    deleting: bool = False

    @classmethod
    def parse(cls, body: Object) -> "VolumeView":
        metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        labels = metadata.get("labels") or {}
        failed = [c for c in status.get("conditions") or () if c["type"].endswith("ResizeError")]
        return cls(
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            session_uid=labels.get(names.LABEL_SESSION_UID, ""),
            tenant=labels.get(names.LABEL_TENANT, ""),
            ours=labels.get(names.LABEL_APP_MANAGED_BY) == names.FIELD_MANAGER_OPERATOR,
            edited=not untouched(labels, metadata["name"].removeprefix(names.owned_name(""))),
            kind_hash=(metadata.get("annotations") or {}).get(names.ANNOTATION_APPLIED_HASH),
            pending=status.get("phase", "Pending") == "Pending" and "volumeName" not in spec,
            bound=status.get("phase") == "Bound",
            storage_class=spec.get("storageClassName"),
            access_modes=tuple(intern(mode) for mode in status.get("accessModes") or ()),
            requested=((spec.get("resources") or {}).get("requests") or {}).get("storage", ""),
            capacity=(status.get("capacity") or {}).get("storage", ""),
            resize_error=failed[0].get("message", "") if failed and failed[0].get("status") == "True" else None,
            deleting="deletionTimestamp" in metadata,
        )


@dataclass(frozen=True, slots=True)
class ClaimView:
    """The Lease that claims a phone, and who holds it; the parts of the holder are empty where it names nobody."""

    name: str
    uid: str
    version: str
    namespace: str
    session: str
    session_uid: str

    @property
    def holder(self) -> Key:
        return Key(self.namespace, self.session)

    @classmethod
    def parse(cls, body: Object) -> "ClaimView":
        metadata = body["metadata"]
        holder = lease.read_identity((body.get("spec") or {}).get("holderIdentity"))
        namespace, session, session_uid = holder or ("", "", "")
        return cls(metadata["name"], metadata["uid"], metadata["resourceVersion"], namespace, session, session_uid)
