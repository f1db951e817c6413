"""Puts together what a plan is made of, from the cache alone."""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final

from pydantic import ValidationError

from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.api.phones import same_account
from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.controller import claims
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.observed import Claim, Holder, Observed, Problem, linked_phone
from whatsapp_operator.controller.settings import ClaimScope, Options
from whatsapp_operator.controller.views import ClaimView, Key, SessionView

# A holder that could only be looked up is taken to exist for so long, in seconds.
HOLDER_SECONDS: Final = 60.0


# For the steps of a pass: more than are worked on at the same time.
@lru_cache(maxsize=32)
def parse_session(view: SessionView) -> tuple[WhatsAppSession, str | None]:
    """The session, and why its spec cannot be used, naming the field.

    Admission should have refused such a spec, but may be bypassed; its deletion must work nonetheless, so a stand-in
    with defaults is returned then. A report that does not fit is dropped: it is the pod's to correct.
    """
    try:
        return WhatsAppSession.model_validate_json(view.raw), None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    body = view.body
    status = {key: value for key, value in (body.get("status") or {}).items() if key != "session"}
    in_spec = [item for item in found if item["loc"][:1] == ("spec",)]
    if not in_spec:
        for kept in (status, {}):
            try:
                return WhatsAppSession.model_validate({**body, "status": kept}), None
            except ValidationError:
                continue
    first = in_spec[0] if in_spec else found[0]
    where = ".".join(str(part) for part in first["loc"])
    stand_in = {**body, "spec": {"tenant": "invalid"}}
    try:
        return WhatsAppSession.model_validate(stand_in), f"{where}: {first['msg']}"
    except ValidationError:
        return WhatsAppSession.model_validate({**stand_in, "status": {}}), f"{where}: {first['msg']}"


class Observer:
    """Reads the cache.

    Args:
        namespace: the operator's own, where the claims are.
        clock: the monotonic one.
    """

    def __init__(self, cache: Cache, options: Options, *, namespace: str, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._options = options
        self._namespace = namespace
        self._clock = clock

    def observe(
        self, key: Key, *, problems: tuple[Problem, ...] = (), fresh: bool = False, admitted: bool = False
    ) -> Observed | None:
        """Everything about one session; None if there is no such session."""
        view = self._cache.sessions.get(key)
        if view is None:
            return None
        now = self._clock()
        session, invalid = parse_session(view)
        pod, uid = self._cache.pods.get(key), session.metadata.uid
        own_pod = pod is not None and pod.session_uid == uid
        phones = claims.phones_of(session, pod if own_pod else None)
        terminating = self._cache.namespaces_terminating
        return Observed(
            session=session,
            invalid=invalid,
            pod=pod,
            pod_age=now - pod.first_seen if pod is not None else 0.0,
            desired_age=now - pod.desired_since if pod is not None else 0.0,
            volume=self._cache.volumes.get(key),
            claims={phone: self._claim(session, phone) for phone in phones},
            held=tuple(self._cache.claims_of(uid)),
            namespace_ready=key.namespace in self._cache.namespaces_ready,
            secret_ready=self._cache.secrets.get(uid, own_pod),
            secret_uid=self._cache.secret_uids.get(uid),
            secret_gone=self._cache.secrets.get(uid) is False,
            secret_taken=uid in self._cache.secrets_taken,
            secret_missed=self._secret_missed(session),
            namespace_terminating=terminating.get(uid),
            deletion_age=now - view.deletion_seen if view.deletion_seen is not None else None,
            fresh=fresh,
            admitted=admitted,
            primary_uid=self._cache.primaries.get((key.namespace, session.spec.tenant)),
            rivals=tuple(self._rivals(key, session)),
            problems=problems,
        )

    def _secret_missed(self, session: WhatsAppSession) -> bool:
        report = session.status.session
        if report is None or report.reason != Reason.CONFIG_MISSING:
            return False
        uid, restored = session.metadata.uid, self._cache.secrets_restored
        return uid not in restored or restored[uid] != report.reported_at

    def _claim(self, session: WhatsAppSession, phone: str) -> Claim:
        name = claims.lease_name(session, phone, self._options)
        lease = self._cache.claims.get(Key(self._namespace, name))
        if lease is None:
            return Claim(name)
        if lease.session_uid == session.metadata.uid:
            return Claim(name, Holder.OURS, lease)
        near = lease.namespace == session.metadata.namespace
        if not near and self._options.claim_scope is ClaimScope.TENANT:
            # Written by hand: whoever holds it is of this namespace. That one may be out of this operator's reach.
            return Claim(name, Holder.GONE, lease)
        held_by = str(lease.holder) if near and lease.session else None
        return Claim(name, self._other(lease, phone), lease, held_by)

    def _other(self, lease: ClaimView, phone: str) -> Holder:
        view = self._cache.sessions.get(lease.holder)
        if view is not None and view.uid == lease.session_uid:
            holder, _ = parse_session(view)
            return Holder.OTHER if same_account(linked_phone(holder), phone) else Holder.PROVISIONAL
        exists, looked_at = self._cache.holders.get((lease.uid, lease.version), (True, float("-inf")))
        if not exists:
            return Holder.GONE
        return Holder.OTHER if self._clock() - looked_at < HOLDER_SECONDS else Holder.UNKNOWN

    def _rivals(self, key: Key, session: WhatsAppSession) -> list[tuple[datetime, str]]:
        found = []
        for other, view in self._cache.tenant(key.namespace, session.spec.tenant):
            # One that is deleted or left alone never becomes primary.
            candidate = other != key and view.deletion_seen is None and not view.paused
            if candidate and view.connected_since is not None:
                found.append((view.connected_since, view.uid))
        return found
