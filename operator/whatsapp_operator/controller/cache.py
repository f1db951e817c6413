"""What the operator knows of the cluster: plain dictionaries, fed by watches, lists and the answers to its own writes.

An object is never replaced by an older version of itself, in whatever order these arrive.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from whatsapp_operator.api import names
from whatsapp_operator.controller.views import ClaimView, Key, PodView, VolumeView
from whatsapp_operator.kube.client import Object

# Objects of the operator, and of no other operator of the same kind of thing.
SELECTOR: Final = (
    f"{names.LABEL_APP_MANAGED_BY}={names.FIELD_MANAGER_OPERATOR}"
    f",{names.LABEL_APP_PART_OF}={names.FIELD_MANAGER_OPERATOR}"
)


class Versioned(Protocol):
    @property
    def uid(self) -> str: ...

    @property
    def version(self) -> str: ...


V = TypeVar("V", bound=Versioned)


class SessionView(NamedTuple):
    """A WhatsAppSession as it came, without managedFields.

    Attributes:
        deletion_seen: when this process first saw the deletionTimestamp, by the monotonic clock; None without one.
    """

    body: Object
    deletion_seen: float | None

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def version(self) -> str:
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def tenant(self) -> str:
        return str((self.body.get("spec") or {}).get("tenant", ""))

    @property
    def status(self) -> dict[str, Any]:
        return self.body.get("status") or {}


class Store(Generic[V]):
    """Objects of one kind by namespace and name; resourceVersions are compared as numbers."""

    def __init__(self) -> None:
        self._items: dict[Key, V] = {}
        self._gone: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._items)

    def items(self) -> Iterable[tuple[Key, V]]:
        return self._items.items()

    def get(self, key: Key) -> V | None:
        return self._items.get(key)

    def put(self, key: Key, item: V) -> bool:
        """Keep the item; false if this or a newer version of it, or its end, is known already."""
        known = self._items.get(key)
        version = int(item.version)
        if (known is not None and int(known.version) >= version) or self._gone.get(key, -1) >= version:
            return False
        self._items[key] = item
        return True

    def remove(self, key: Key, uid: str, version: str) -> bool:
        """Forget the object of that uid, and ignore what is still to come of versions up to that one."""
        self._gone[key] = max(self._gone.get(key, -1), int(version))
        known = self._items.get(key)
        if known is None or known.uid != uid:
            return False
        del self._items[key]
        return True

    def prune(self, present: Iterable[tuple[Key, V]], version: str) -> list[Key]:
        """Take over a full list; return the keys of what it changed, those of vanished objects included."""
        changed = []
        listed: set[Key] = set()
        for key, item in present:
            listed.add(key)
            if self.put(key, item):
                changed.append(key)
        limit = int(version)
        for key in [key for key, item in self._items.items() if key not in listed and int(item.version) <= limit]:
            del self._items[key]
            changed.append(key)
        self._gone = {key: gone for key, gone in self._gone.items() if gone > limit}
        return changed


class Cache:
    """Sessions, pods, volumes and claims, and what this process has learnt while it worked.

    Pods and volumes are kept under the key of the session that they belong to by name.

    Attributes:
        namespaces_ready: namespaces that have the session pods' account and role binding.
        namespaces_terminating: by uid of a session that is deleted, whether its namespace goes too.
        secrets: by uid of the session, whether its Secret is there.
        secret_uids: by uid of the session, the uid of the Secret that this process has made for it.
        secrets_taken: uids of sessions for which a Secret of that name was found that is not theirs.
        secrets_restored: by uid of the session, the report after which its Secret was made again.
        holders: by uid and version of a claim, whether its holder exists, and when that was looked up.
        waiting: by name of a claim, the sessions that would take it.
        primaries: by namespace and tenant, the uid of the primary session.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.sessions: Store[SessionView] = Store()
        self.pods: Store[PodView] = Store()
        self.volumes: Store[VolumeView] = Store()
        self.claims: Store[ClaimView] = Store()
        self._claims_by_holder: dict[str, set[Key]] = {}
        self._tenants: dict[tuple[str, str], set[Key]] = {}
        # What only this process knows, because it did it or asked for it; all of it may be lost.
        self.namespaces_ready: set[str] = set()
        self.namespaces_terminating: dict[str, bool] = {}
        self.secrets: dict[str, bool] = {}
        self.secret_uids: dict[str, str] = {}
        self.secrets_taken: set[str] = set()
        self.secrets_restored: dict[str, datetime | None] = {}
        self.holders: dict[tuple[str, str], tuple[bool, float]] = {}
        self.waiting: dict[str, set[Key]] = {}
        self.primaries: dict[tuple[str, str], str] = {}

    def session_view(self, body: Object) -> tuple[Key, SessionView]:
        metadata = body["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        known = self.sessions.get(key)
        if known is not None and known.uid != metadata["uid"]:
            known = None
        now = self._clock()
        deleting = "deletionTimestamp" in metadata
        seen = known.deletion_seen if known is not None and known.deletion_seen is not None else now
        slim = {**body, "metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}
        return key, SessionView(slim, seen if deleting else None)

    def pod_view(self, body: Object) -> tuple[Key, PodView] | None:
        key = _owner(body)
        if key is None:
            return None
        return key, PodView.parse(body, self._clock(), self.pods.get(key))

    def volume_view(self, body: Object) -> tuple[Key, VolumeView] | None:
        key = _owner(body)
        return None if key is None else (key, VolumeView.parse(body))

    def put_session(self, body: Object) -> Key | None:
        """Returns the key if this was news."""
        key, view = self.session_view(body)
        if not self.sessions.put(key, view):
            return None
        self._tenants.setdefault((key.namespace, view.tenant), set()).add(key)
        return key

    def remove_session(self, key: Key, uid: str, version: str) -> bool:
        view = self.sessions.get(key)
        if not self.sessions.remove(key, uid, version) or view is None:
            return False
        self._forget(key, view)
        return True

    def prune_sessions(self, bodies: Iterable[Object], version: str) -> list[Key]:
        before = dict(self.sessions.items())
        changed = self.sessions.prune([self.session_view(body) for body in bodies], version)
        for key in changed:
            view = self.sessions.get(key)
            if view is not None:
                self._tenants.setdefault((key.namespace, view.tenant), set()).add(key)
            elif key in before:
                self._forget(key, before[key])
        return changed

    def tenant(self, namespace: str, tenant: str) -> list[tuple[Key, SessionView]]:
        """All sessions of the tenant."""
        keys = self._tenants.get((namespace, tenant), ())
        found = ((key, self.sessions.get(key)) for key in keys)
        return [(key, view) for key, view in found if view is not None]

    def _forget(self, key: Key, view: SessionView) -> None:
        members = self._tenants.get((key.namespace, view.tenant), set())
        members.discard(key)
        if not members:
            self._tenants.pop((key.namespace, view.tenant), None)
        self.secrets.pop(view.uid, None)
        self.secret_uids.pop(view.uid, None)
        self.secrets_taken.discard(view.uid)
        self.secrets_restored.pop(view.uid, None)
        self.namespaces_terminating.pop(view.uid, None)
        if self.primaries.get((key.namespace, view.tenant)) == view.uid:
            del self.primaries[key.namespace, view.tenant]

    def put_pod(self, body: Object) -> Key | None:
        found = self.pod_view(body)
        return found[0] if found is not None and self.pods.put(*found) else None

    def put_volume(self, body: Object) -> Key | None:
        found = self.volume_view(body)
        return found[0] if found is not None and self.volumes.put(*found) else None

    def remove_pod(self, body: Object) -> Key | None:
        key, metadata = _owner(body), body["metadata"]
        gone = key is not None and self.pods.remove(key, metadata["uid"], metadata["resourceVersion"])
        return key if gone else None

    def remove_volume(self, body: Object) -> Key | None:
        key, metadata = _owner(body), body["metadata"]
        gone = key is not None and self.volumes.remove(key, metadata["uid"], metadata["resourceVersion"])
        return key if gone else None

    def forget_pod(self, key: Key) -> None:
        """The pod was looked up and is not there."""
        known = self.pods.get(key)
        if known is not None:
            self.pods.remove(key, known.uid, known.version)

    def forget_volume(self, key: Key) -> None:
        """The volume was looked up and is not there."""
        known = self.volumes.get(key)
        if known is not None:
            self.volumes.remove(key, known.uid, known.version)

    def put_claim(self, body: Object) -> None:
        view = ClaimView.parse(body)
        key = Key(body["metadata"]["namespace"], view.name)
        known = self.claims.get(key)
        if self.claims.put(key, view):
            if known is not None:
                self._claims_by_holder.get(known.session_uid, set()).discard(key)
            self._claims_by_holder.setdefault(view.session_uid, set()).add(key)

    def remove_claim(self, key: Key, claim: ClaimView) -> None:
        if self.claims.remove(key, claim.uid, claim.version):
            held = self._claims_by_holder.get(claim.session_uid, set())
            held.discard(key)
            if not held:
                self._claims_by_holder.pop(claim.session_uid, None)

    def prune_claims(self, bodies: Iterable[Object], version: str) -> None:
        views = [
            (Key(body["metadata"]["namespace"], body["metadata"]["name"]), ClaimView.parse(body)) for body in bodies
        ]
        self.claims.prune(views, version)
        self._claims_by_holder = {}
        for key, view in self.claims.items():
            self._claims_by_holder.setdefault(view.session_uid, set()).add(key)

    def claims_without_holder(self) -> list[ClaimView]:
        """The claims of sessions that are not known; they may be out of reach, or gone."""
        claims = (claim for _, claim in self.claims.items())
        return [claim for claim in claims if claim.session and not self._knows(claim.holder, claim.session_uid)]

    def _knows(self, key: Key, uid: str) -> bool:
        view = self.sessions.get(key)
        return view is not None and view.uid == uid

    def claims_of(self, session_uid: str) -> list[ClaimView]:
        """The claims that the session of this uid holds, by name."""
        found = (self.claims.get(key) for key in sorted(self._claims_by_holder.get(session_uid, ())))
        return [claim for claim in found if claim is not None]


def _owner(body: Object) -> Key | None:
    """The session that a pod or volume belongs to by its label and name."""
    metadata = body["metadata"]
    session = (metadata.get("labels") or {}).get(names.LABEL_SESSION, "")
    if not session or metadata["name"] != names.owned_name(session):
        return None
    return Key(metadata["namespace"], session)
