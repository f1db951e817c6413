"""Carries actions out: one request or two each, every write with a precondition, every refusal told apart."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, assert_never

from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.controller.actions import (
    AcquireClaim,
    Action,
    AddFinalizer,
    CheckHolder,
    CheckNamespace,
    CreatePod,
    CreateSecret,
    CreateVolume,
    DeletePod,
    DeleteSecret,
    DeleteVolume,
    EnsureNamespace,
    PatchPod,
    PatchVolume,
    ReleaseClaim,
    RemoveFinalizer,
    ResizeVolume,
    TakeOverClaim,
)
from whatsapp_operator.controller.cache import Cache, Store, owner
from whatsapp_operator.controller.conditions import told
from whatsapp_operator.controller.objects import labels, lease, rolebinding, serviceaccount
from whatsapp_operator.controller.observed import Problem
from whatsapp_operator.controller.settings import Options
from whatsapp_operator.controller.views import ClaimView, Key
from whatsapp_operator.kube.client import (
    LEASES,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    ROLE_BINDINGS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SESSIONS,
    Client,
    Object,
    Resource,
)
from whatsapp_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
)

_log = logging.getLogger(__name__)


class Executor:
    """Writes to the API server and puts the answers into the cache.

    Args:
        namespace: the operator's own, where the claims are.
        clock: the monotonic one.
        wake: called with a session that something done for another one concerns.
    """

    def __init__(
        self,
        client: Client,
        cache: Cache,
        options: Options,
        *,
        namespace: str,
        clock: Callable[[], float],
        wake: Callable[[Key], None],
    ) -> None:
        self._client = client
        self._cache = cache
        self._options = options
        self._namespace = namespace
        self._clock = clock
        self._wake = wake

    async def run(self, session: WhatsAppSession, actions: Sequence[Action]) -> tuple[Problem, ...]:
        """Carry out actions that do not depend on each other, at the same time.

        A write that came too late is no error: the cache has the present object then, and the next plan knows better.

        Returns:
            What was refused until someone changes something.

        Raises:
            KubeError: what may succeed when tried again later; the other actions were carried out nonetheless.
        """
        if len(actions) == 1:
            found: list[Problem | BaseException | None] = [await self._run_one(session, actions[0])]
        else:
            work = (self._run_one(session, action) for action in actions)
            found = list(await asyncio.gather(*work, return_exceptions=True))
        for result in found:
            if isinstance(result, BaseException):
                raise result
        return tuple(result for result in found if isinstance(result, Problem))

    async def remove_orphan(self, key: Key) -> None:
        """Delete the pod of a session that is gone without having been cleaned up, its finalizer removed by hand.

        Its volume stays: nobody can tell any more whether it was to be kept.
        """
        pod = self._cache.pods.get(key)
        if pod is None or pod.deleting or not pod.session_uid:
            return
        try:
            self._put_session(await self._client.get(SESSIONS, key.namespace, key.name))
            return
        except NotFoundError:
            _log.warning("the session is gone, its pod is deleted")
        try:
            await self._delete(PODS, key.namespace, names.owned_name(key.name), pod.uid)
        except (ConflictError, NotFoundError):
            await self._look_object(PODS, key.namespace, names.owned_name(key.name))

    async def write_status(self, session: WhatsAppSession, status: Object) -> Object:
        """Apply the operator's part of status, if the object is still the one that the status was computed from.

        Raises:
            ConflictError: it is not; the cache has the present object.
        """
        metadata = session.metadata
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                "name": metadata.name,
                "namespace": metadata.namespace,
                "resourceVersion": metadata.resource_version,
            },
            "status": status,
        }
        try:
            written = await self._client.apply(SESSIONS, metadata.namespace, metadata.name, body, subresource="status")
        except (ConflictError, NotFoundError):
            await self._look_session(session)
            raise
        self._cache.put_session(written)
        return written

    async def _run_one(self, session: WhatsAppSession, action: Action) -> Problem | None:
        try:
            return await self._do(session, action)
        except (ConflictError, NotFoundError) as error:
            _log.debug("%s came too late: %s", type(action).__name__, error)
            await self._look(session, action)
            return None
        except ForbiddenError as error:
            if not error.namespace_terminating:
                raise
            self._cache.namespaces_terminating[session.metadata.uid] = True
            return Problem(Reason.POD_PENDING, "The namespace is being deleted.")

    async def _do(self, session: WhatsAppSession, action: Action) -> Problem | None:
        namespace, uid = session.metadata.namespace, session.metadata.uid
        match action:
            case AddFinalizer():
                await self._set_finalizer(session, present=True)
            case RemoveFinalizer():
                await self._set_finalizer(session, present=False)
            case CheckNamespace():
                found = await self._client.get(NAMESPACES, None, namespace)
                self._cache.namespaces_terminating[uid] = "deletionTimestamp" in found["metadata"]
            case EnsureNamespace():
                return await self.ensure_namespace(namespace)
            case AcquireClaim(name):
                await self._acquire(session, name)
            case CheckHolder(claim):
                await self._check_holder(claim)
            case TakeOverClaim(claim):
                await self._take_over(session, claim)
            case ReleaseClaim(claim):
                await self._release(claim)
            case CreateSecret(body, may_exist):
                return await self._create_secret(session, body, may_exist=may_exist)
            case DeleteSecret(name, secret_uid):
                await self._delete_secret(namespace, name, secret_uid, session_uid=uid)
            case CreateVolume(body):
                return await self._create_volume(body)
            case PatchVolume(name, version, patch):
                metadata = {**patch.get("metadata", {}), "resourceVersion": version}
                wanted = {**patch, "metadata": metadata}
                self._cache.put_volume(
                    await self._client.merge_patch(PERSISTENT_VOLUME_CLAIMS, namespace, name, wanted)
                )
            case ResizeVolume(name, version, size):
                return await self._resize(namespace, name, version, size)
            case DeleteVolume(name, volume_uid, version):
                await self._delete(PERSISTENT_VOLUME_CLAIMS, namespace, name, volume_uid, version)
            case CreatePod(body):
                return await self._create_pod(body)
            case PatchPod():
                await self._patch_pod(namespace, action)
            case DeletePod(name, pod_uid):
                await self._delete(PODS, namespace, name, pod_uid)
            case _:
                assert_never(action)
        return None

    async def _set_finalizer(self, session: WhatsAppSession, *, present: bool) -> None:
        metadata = session.metadata
        others = [name for name in metadata.finalizers if name != names.FINALIZER]
        patch = {
            "metadata": {
                "resourceVersion": metadata.resource_version,
                "finalizers": [*others, names.FINALIZER] if present else others,
            }
        }
        written = await self._client.merge_patch(SESSIONS, metadata.namespace, metadata.name, patch)
        if present or others:
            self._cache.put_session(written)
        else:
            version = written["metadata"]["resourceVersion"]
            self._cache.remove_session(Key(metadata.namespace, metadata.name), metadata.uid, version)

    async def ensure_namespace(self, namespace: str, *, made: bool = False) -> Problem | None:
        """Create the session pods' account and role binding where they are missing; look first if they were `made`."""
        account = serviceaccount.build(namespace, self._options.version)
        binding = rolebinding.build(namespace, self._options.version)
        _, bound = await asyncio.gather(
            self._create_unless_there(SERVICE_ACCOUNTS, namespace, account, look=made),
            self._create_unless_there(ROLE_BINDINGS, namespace, binding, look=made),
        )
        problem = await self._wrongly_bound(namespace, binding, bound)
        if problem is None:
            self._cache.namespaces_ready.add(namespace)
        return problem

    async def _create_unless_there(
        self, resource: Resource, namespace: str, body: Object, *, look: bool
    ) -> Object | None:
        """Returns the object if it was looked at or made; None if it is there already."""
        if look:
            with contextlib.suppress(NotFoundError):
                return await self._client.get(resource, namespace, body["metadata"]["name"])
        try:
            return await self._client.create(resource, namespace, body)
        except AlreadyExistsError:
            return None

    async def _wrongly_bound(self, namespace: str, binding: Object, found: Object | None) -> Problem | None:
        name = binding["metadata"]["name"]
        found = found or await self._client.get(ROLE_BINDINGS, namespace, name)
        if found["roleRef"] == binding["roleRef"] and found.get("subjects") == binding["subjects"]:
            return None
        sentence = f"The RoleBinding {name} does not bind the session pods to their ClusterRole"
        return Problem(Reason.NAME_CONFLICT, told(Reason.NAME_CONFLICT, sentence))

    async def _acquire(self, session: WhatsAppSession, name: str) -> None:
        body = lease.build(session, name, self._namespace, self._options.version, datetime.now(UTC))
        try:
            self._cache.put_claim(await self._client.create(LEASES, self._namespace, body))
        except AlreadyExistsError:
            await self._look_claim(name)

    async def _check_holder(self, claim: ClaimView) -> None:
        exists = False
        try:
            if claim.session:
                holder = await self._client.get(SESSIONS, claim.namespace, claim.session)
                exists = holder["metadata"]["uid"] == claim.session_uid
        except NotFoundError:
            exists = False
        except ForbiddenError:
            # A namespace that this operator does not serve any more: its session may well be there.
            exists = True
        self._cache.holders[claim.uid, claim.version] = (exists, self._clock())

    async def _take_over(self, session: WhatsAppSession, claim: ClaimView) -> None:
        spec = lease.holder_spec(session, datetime.now(UTC))
        patch = {"metadata": {"resourceVersion": claim.version, "uid": claim.uid}, "spec": spec}
        self._cache.put_claim(await self._client.merge_patch(LEASES, self._namespace, claim.name, patch))
        self._cache.holders.pop((claim.uid, claim.version), None)
        self._wake(claim.holder)

    async def release_vanished(self, claim: ClaimView) -> None:
        """Release the claim if its holder, looked up now, is gone without having been cleaned up.

        Raises:
            KubeError: the holder could not be looked up, or the claim not be deleted.
        """
        await self._check_holder(claim)
        exists, _ = self._cache.holders[claim.uid, claim.version]
        if exists:
            return
        try:
            await self._release(claim)
        except ConflictError:
            _log.debug("the claim has another holder by now")
            await self._look_claim(claim.name)

    async def _release(self, claim: ClaimView) -> None:
        try:
            await self._client.delete(
                LEASES, self._namespace, claim.name, uid=claim.uid, resource_version=claim.version
            )
        except NotFoundError:
            _log.debug("the claim is gone already")
        self._cache.remove_claim(Key(self._namespace, claim.name), claim.uid, claim.version)
        self._cache.holders.pop((claim.uid, claim.version), None)
        for key in self._cache.waiting.pop(claim.name, ()):
            self._wake(key)

    async def _create_secret(self, session: WhatsAppSession, body: Object, *, may_exist: bool) -> Problem | None:
        metadata, uid = body["metadata"], session.metadata.uid
        try:
            created = await self._client.create(SECRETS, metadata["namespace"], body)
            self._cache.secret_uids[uid] = created["metadata"]["uid"]
        except AlreadyExistsError:
            if not may_exist:
                # Kept here too: the status that would tell is not written if another action of this step fails.
                self._cache.secrets_taken.add(uid)
                return _taken("Secret", metadata["name"])
        self._cache.secrets_taken.discard(uid)
        self._cache.secrets[uid] = True
        report = session.status.session
        self._cache.secrets_restored[uid] = report.reported_at if report is not None else None
        return None

    async def _delete_secret(self, namespace: str, name: str, uid: str, *, session_uid: str) -> None:
        try:
            await self._client.delete(SECRETS, namespace, name, uid=uid)
        except (ConflictError, NotFoundError):
            _log.debug("the Secret is gone already")
        self._cache.secrets[session_uid] = False

    async def _create_volume(self, body: Object) -> Problem | None:
        metadata = body["metadata"]
        try:
            created = await self._client.create(PERSISTENT_VOLUME_CLAIMS, metadata["namespace"], body)
        except AlreadyExistsError:
            created = await self._client.get(PERSISTENT_VOLUME_CLAIMS, metadata["namespace"], metadata["name"])
            if not _labelled(created) or self._is_lost(created, self._cache.volumes):
                return _taken("PersistentVolumeClaim", metadata["name"])
            created = await self._select_again(PERSISTENT_VOLUME_CLAIMS, created, body)
        except (ForbiddenError, InvalidError) as error:
            return self._rejected(error, "PersistentVolumeClaim")
        self._cache.put_volume(created)
        return None

    async def _resize(self, namespace: str, name: str, version: str, size: str) -> Problem | None:
        patch = {
            "metadata": {"resourceVersion": version},
            "spec": {"resources": {"requests": {"storage": size}}},
        }
        try:
            self._cache.put_volume(await self._client.merge_patch(PERSISTENT_VOLUME_CLAIMS, namespace, name, patch))
        except (ForbiddenError, InvalidError) as error:
            return Problem(Reason.EXPANSION_REFUSED, told(Reason.EXPANSION_REFUSED, error.message))
        return None

    async def _create_pod(self, body: Object) -> Problem | None:
        metadata = body["metadata"]
        try:
            created = await self._client.create(PODS, metadata["namespace"], body)
        except AlreadyExistsError:
            created = await self._client.get(PODS, metadata["namespace"], metadata["name"])
            if not _labelled(created) or self._is_lost(created, self._cache.pods):
                return _taken("Pod", metadata["name"])
            created = await self._select_again(PODS, created, body)
        except (ForbiddenError, InvalidError) as error:
            if "serviceaccount" in error.message:
                self._cache.namespaces_ready.discard(metadata["namespace"])
            return self._rejected(error, "Pod")
        self._cache.put_pod(created)
        return None

    def _is_lost(self, found: Object, store: Store[Any]) -> bool:
        """Whether nobody can tell whose it is, and it has left the selection: to the watches it is gone as it is."""
        metadata, key = found["metadata"], owner(found)
        anonymous = names.LABEL_SESSION_UID not in (metadata.get("labels") or {})
        known = key is not None and store.get(key) is not None
        return anonymous and not known and key is not None and not store.is_news(key, metadata["resourceVersion"])

    async def _select_again(self, resource: Resource, found: Object, body: Object) -> Object:
        """Mend the labels of an object of this very session that the watches do not select by what is left of them."""
        metadata, wanted = found["metadata"], body["metadata"]["labels"]
        present = metadata.get("labels") or {}
        own = present.get(names.LABEL_SESSION_UID) == wanted[names.LABEL_SESSION_UID]
        selected = all(present.get(key) == wanted[key] for key in (names.LABEL_APP_MANAGED_BY, names.LABEL_APP_PART_OF))
        if not own or selected:
            return found
        patch = {
            "metadata": {
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
                "labels": dict(labels.mended(wanted)),
            }
        }
        return await self._client.merge_patch(resource, metadata["namespace"], metadata["name"], patch)

    def _rejected(self, error: KubeError, kind: str) -> Problem:
        if isinstance(error, ForbiddenError) and error.namespace_terminating:
            raise error
        return Problem(Reason.POD_REJECTED, told(Reason.POD_REJECTED, f"{kind}: {error.message}"))

    async def _patch_pod(self, namespace: str, action: PatchPod) -> None:
        metadata: Object = {"uid": action.uid, "resourceVersion": action.version}
        if action.labels:
            metadata["labels"] = dict(action.labels)
        if action.annotations:
            metadata["annotations"] = dict(action.annotations)
        self._cache.put_pod(await self._client.merge_patch(PODS, namespace, action.name, {"metadata": metadata}))

    async def _delete(
        self, resource: Resource, namespace: str, name: str, uid: str, version: str | None = None
    ) -> None:
        left = await self._client.delete(resource, namespace, name, uid=uid, resource_version=version)
        if left.get("kind") == "Status":
            await self._look_object(resource, namespace, name)
        elif resource is PODS:
            self._cache.put_pod(left)
        else:
            self._cache.put_volume(left)

    async def _look(self, session: WhatsAppSession, action: Action) -> None:
        """Read the object that an action was too late for."""
        namespace, name = session.metadata.namespace, names.owned_name(session.metadata.name)
        match action:
            case AddFinalizer() | RemoveFinalizer():
                await self._look_session(session)
            case CheckNamespace():
                self._cache.namespaces_terminating[session.metadata.uid] = True
            case TakeOverClaim(claim) | ReleaseClaim(claim):
                await self._look_claim(claim.name)
            case PatchVolume() | ResizeVolume() | DeleteVolume() | CreateVolume():
                await self._look_object(PERSISTENT_VOLUME_CLAIMS, namespace, name)
            case PatchPod() | DeletePod() | CreatePod():
                await self._look_object(PODS, namespace, name)
            case _:
                _log.debug("nothing to read again")

    async def _look_session(self, session: WhatsAppSession) -> None:
        metadata = session.metadata
        try:
            self._put_session(await self._client.get(SESSIONS, metadata.namespace, metadata.name))
        except NotFoundError:
            key = Key(metadata.namespace, metadata.name)
            for concerned in self._cache.remove_session(key, metadata.uid, metadata.resource_version):
                self._wake(concerned)

    def _put_session(self, found: Object) -> None:
        """Keep what was read; when the watch tells of it, it is no news any more and wakes nobody."""
        for concerned in self._cache.put_session(found):
            self._wake(concerned)

    async def _look_claim(self, name: str) -> None:
        """Keep the claim as it was read, and wake whom that concerns: the watch's news of it are none any more."""
        key = Key(self._namespace, name)
        try:
            found = await self._client.get(LEASES, self._namespace, name)
        except NotFoundError:
            known = self._cache.claims.get(key)
            if known is None:
                return
            self._cache.remove_claim(key, known.uid, known.version)
            concerned = self._cache.waiting.pop(name, set())
        else:
            known = self._cache.claims.get(key)
            if not self._cache.put_claim(found):
                return
            concerned = self._cache.waiting.get(name, set())
        holders = {
            claim.holder for claim in (known, self._cache.claims.get(key)) if claim is not None and claim.session
        }
        for session in holders | concerned:
            self._wake(session)

    async def _look_object(self, resource: Resource, namespace: str, name: str) -> None:
        put, forget = (
            (self._cache.put_pod, self._cache.forget_pod)
            if resource is PODS
            else (self._cache.put_volume, self._cache.forget_volume)
        )
        try:
            put(await self._client.get(resource, namespace, name))
        except NotFoundError:
            forget(Key(namespace, name.removeprefix(names.owned_name(""))))


def _labelled(found: Object) -> bool:
    """Whether it is of some session, as far as its labels still tell."""
    return not {names.LABEL_SESSION, names.LABEL_SESSION_UID}.isdisjoint(found["metadata"].get("labels") or {})


def _taken(kind: str, name: str) -> Problem:
    sentence = f"The {kind} {name} is not this session's own"
    return Problem(Reason.NAME_CONFLICT, told(Reason.NAME_CONFLICT, sentence))
