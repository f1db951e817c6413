"""What the operator knows of the cluster: plain dictionaries, fed by watches, lists and the answers to its own writes.

An object is never replaced by an older version of itself, in whatever order these arrive.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Set
from datetime import datetime
from sys import intern
from typing import Final, Generic, Protocol, TypeVar

from whatsapp_operator.api import names
from whatsapp_operator.controller.views import ClaimView, Key, PodView, SessionView, VolumeView, session_key
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

    def is_news(self, key: Key, version: str) -> bool:
        """Neither this nor a newer version of the object, nor its end, is known."""
        known = self._items.get(key)
        number = int(version)
        return (known is None or int(known.version) < number) and self._gone.get(key, -1) < number

    def put(self, key: Key, item: V) -> bool:
        """Keep the item; false if it is no news."""
        if not self.is_news(key, item.version):
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

    def prune(self, listed: Set[Key], version: str, namespace: str | None = None) -> list[tuple[Key, V]]:
        """Forget what a full list of the namespace, or of all for None, did not hold; returns that."""
        limit = int(version)

        def is_covered(key: Key) -> bool:
            return namespace is None or key.namespace == namespace

        vanished = [
            (key, item)
            for key, item in self._items.items()
            if key not in listed and is_covered(key) and int(item.version) <= limit
        ]
        for key, _ in vanished:
            del self._items[key]
        self._gone = {key: gone for key, gone in self._gone.items() if gone > limit or not is_covered(key)}
        return vanished


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

    def pod_view(self, body: Object) -> tuple[Key, PodView] | None:
        key = owner(body)
        if key is None:
            return None
        return key, PodView.parse(body, self._clock(), self.pods.get(key))

    def volume_view(self, body: Object) -> tuple[Key, VolumeView] | None:
        key = owner(body)
        return None if key is None else (key, VolumeView.parse(body))

    def put_session(self, body: Object) -> list[Key]:
        """Returns the key if this was news, and whom it concerns that an earlier session of that name is gone."""
        key = session_key(body["metadata"])
        if not self.sessions.is_news(key, body["metadata"]["resourceVersion"]):
            return []
        known = self.sessions.get(key)
        view = SessionView.parse(body, self._clock(), known)
        self.sessions.put(key, view)
        heirs = self._forget(key, known) if known is not None and known.uid != view.uid else []
        self._tenants.setdefault((key.namespace, view.tenant), set()).add(key)
        return [key, *heirs]

    def remove_session(self, key: Key, uid: str, version: str) -> list[Key]:
        """Returns the key if this was news, and the sessions that may be primary, or get its phone, instead of it."""
        view = self.sessions.get(key)
        if not self.sessions.remove(key, uid, version) or view is None:
            return []
        return [key, *self._forget(key, view)]

    def prune_sessions(self, listed: Set[Key], version: str, namespace: str | None = None) -> list[Key]:
        """Forget what a full list did not hold; returns what `remove_session` does."""
        vanished = self.sessions.prune(listed, version, namespace)
        return [found for key, view in vanished for found in (key, *self._forget(key, view))]

    def tenant(self, namespace: str, tenant: str) -> list[tuple[Key, SessionView]]:
        """All sessions of the tenant."""
        keys = self._tenants.get((namespace, tenant), ())
        found = ((key, self.sessions.get(key)) for key in keys)
        return [(key, view) for key, view in found if view is not None]

    def connected(self, namespace: str, tenant: str) -> list[Key]:
        """The sessions of the tenant that are written down as connected."""
        return [key for key, view in self.tenant(namespace, tenant) if view.connected_since is not None]

    def _forget(self, key: Key, view: SessionView) -> list[Key]:
        """Returns who waits for a phone that it holds even so, removed by force, and who may be primary now."""
        members = self._tenants.get((key.namespace, view.tenant), set())
        members.discard(key)
        if not members:
            self._tenants.pop((key.namespace, view.tenant), None)
        self.secrets.pop(view.uid, None)
        self.secret_uids.pop(view.uid, None)
        self.secrets_taken.discard(view.uid)
        self.secrets_restored.pop(view.uid, None)
        self.namespaces_terminating.pop(view.uid, None)
        for name in [name for name, keys in self.waiting.items() if key in keys]:
            self.waiting[name].discard(key)
            if not self.waiting[name]:
                del self.waiting[name]
        heirs = [waiting for claim in self.claims_of(view.uid) for waiting in self.waiting.get(claim.name, ())]
        if self.primaries.get((key.namespace, view.tenant)) != view.uid:
            return heirs
        del self.primaries[key.namespace, view.tenant]
        return [*heirs, *self.connected(key.namespace, view.tenant)]

    def put_pod(self, body: Object) -> Key | None:
        """Returns the key if this was news."""
        key = owner(body)
        if key is None or not self.pods.is_news(key, body["metadata"]["resourceVersion"]):
            return None
        self.pods.put(key, PodView.parse(body, self._clock(), self.pods.get(key)))
        return key

    def put_volume(self, body: Object) -> Key | None:
        """Returns the key if this was news."""
        key = owner(body)
        if key is None or not self.volumes.is_news(key, body["metadata"]["resourceVersion"]):
            return None
        self.volumes.put(key, VolumeView.parse(body))
        return key

    def remove_pod(self, body: Object) -> Key | None:
        key, metadata = owner(body), body["metadata"]
        gone = key is not None and self.pods.remove(key, metadata["uid"], metadata["resourceVersion"])
        return key if gone else None

    def remove_volume(self, body: Object) -> Key | None:
        key, metadata = owner(body), body["metadata"]
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

    def put_claim(self, body: Object) -> bool:
        """Whether this was news."""
        view = ClaimView.parse(body)
        key = Key(intern(body["metadata"]["namespace"]), view.name)
        known = self.claims.get(key)
        if not self.claims.put(key, view):
            return False
        if known is not None:
            self._let_go(key, known)
        self._claims_by_holder.setdefault(view.session_uid, set()).add(key)
        return True

    def remove_claim(self, key: Key, uid: str, version: str) -> ClaimView | None:
        """Returns the claim if it was known until now."""
        claim = self.claims.get(key)
        if not self.claims.remove(key, uid, version) or claim is None:
            return None
        self._let_go(key, claim)
        return claim

    def prune_claims(self, listed: Set[Key], version: str) -> list[ClaimView]:
        """Forget what a full list did not hold; returns that."""
        vanished = self.claims.prune(listed, version)
        for key, claim in vanished:
            self._let_go(key, claim)
        return [claim for _, claim in vanished]

    def _let_go(self, key: Key, claim: ClaimView) -> None:
        held = self._claims_by_holder.get(claim.session_uid, set())
        held.discard(key)
        if not held:
            self._claims_by_holder.pop(claim.session_uid, None)

    def claims_without_holder(self) -> list[ClaimView]:
        """The claims of sessions that are not known; they may be out of reach, or gone."""
        claims = (claim for _, claim in self.claims.items())
        return [claim for claim in claims if not self._knows(claim.holder, claim.session_uid)]

    def _knows(self, key: Key, uid: str) -> bool:
        view = self.sessions.get(key)
        return view is not None and view.uid == uid

    def claims_of(self, session_uid: str) -> list[ClaimView]:
        """The claims that the session of this uid holds, by name."""
        found = (self.claims.get(key) for key in sorted(self._claims_by_holder.get(session_uid, ())))
        return [claim for claim in found if claim is not None]


def owner(body: Object) -> Key | None:
    """The session that a pod or volume belongs to by its name; a label may have been changed."""
    metadata, prefix = body["metadata"], names.owned_name("")
    if not metadata["name"].startswith(prefix):
        return None
    return Key(intern(metadata["namespace"]), metadata["name"].removeprefix(prefix))
