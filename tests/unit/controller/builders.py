"""Short ways to say what was observed."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.controller.desired import Wish, document
from whatsapp_operator.controller.objects import pod as pod_object
from whatsapp_operator.controller.observed import Claim, Holder, Observed
from whatsapp_operator.controller.settings import Options
from whatsapp_operator.controller.views import ClaimView, PodView, VolumeView

UID = "0f0f0f0f-0000-4000-8000-000000000001"
POD_UID = "0f0f0f0f-0000-4000-8000-000000000002"
PHONE = "+15551230001"
OTHER_PHONE = "+15551230002"
NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
OPTIONS = Options(session_image="example/session:1", version="1.2.3", claim_key=b"k" * 32)


def session(
    *,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    finalizer: bool = True,
    deleting: bool = False,
    phone: str | None = PHONE,
) -> WhatsAppSession:
    metadata: dict[str, Any] = {
        "name": "shop",
        "namespace": "team",
        "uid": UID,
        "resourceVersion": "7",
        "generation": 2,
        "annotations": annotations or {},
        "finalizers": [names.FINALIZER] if finalizer else [],
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-11-21T10:00:00Z"
    full = {"tenant": "acme", **({"phone": phone} if phone else {}), **(spec or {})}
    return WhatsAppSession.model_validate({"metadata": metadata, "spec": full, "status": status or {}})


def report(machine: str, reason: str, **changes: Any) -> dict[str, Any]:
    return {
        "podUID": POD_UID,
        "reportedAt": "2026-11-21T09:59:59.5Z",
        "machine": machine,
        "reason": reason,
        "message": "",
        "credentials": {"present": False, "valid": False},
        **changes,
    }


def linked(phone: str = PHONE) -> dict[str, Any]:
    return {
        "credentials": {"present": True, "valid": True},
        "device": {"jid": f"{phone.removeprefix('+')}:3@s.whatsapp.net"},
    }


def connected_report(phone: str = PHONE, **changes: Any) -> dict[str, Any]:
    return report("Connected", "Connected", **(linked(phone) | changes))


def pod(**changes: Any) -> PodView:
    values: dict[str, Any] = {
        "uid": POD_UID,
        "version": "5",
        "first_seen": 0.0,
        "session_uid": UID,
        "tenant": "acme",
        "phase": "Running",
        "running": True,
        "ready": True,
        "started_at": NOW - timedelta(minutes=1),
        "node": "node-1",
        "image": "example/session:1",
    }
    return PodView(**(values | changes))


def told_pod(of: WhatsAppSession, wish: Wish | None = None, **changes: Any) -> PodView:
    """A pod that is as the plan wants it for this session."""
    wanted = document(of, wish if wish is not None else Wish(phone=of.spec.phone))
    annotations = pod_object.build(of, OPTIONS, wanted)["metadata"]["annotations"]
    hashes = {
        "applied_hash": annotations[names.ANNOTATION_APPLIED_HASH],
        "spec_hash": annotations[names.ANNOTATION_SPEC_HASH],
    }
    return pod(**{"desired_state": wanted, **hashes, **changes})


def volume(**changes: Any) -> VolumeView:
    values: dict[str, Any] = {
        "uid": "v",
        "version": "3",
        "session_uid": UID,
        "tenant": "acme",
        "ours": True,
        "bound": True,
        "requested": "256Mi",
    }
    return VolumeView(**(values | changes))


def lease(name: str = "phone-1", uid: str = UID, *, namespace: str = "team", holder: str = "shop") -> ClaimView:
    return ClaimView(name, f"lease-{name}", "9", namespace, holder, uid)


def claim(holder: Holder, name: str = "phone-1") -> Claim:
    if holder is Holder.NOBODY:
        return Claim(name)
    mine = holder is Holder.OURS
    view = lease(name) if mine else lease(name, "somebody-else", holder="other")
    return Claim(name, holder, view, None if mine else "team/other")


def observed(of: WhatsAppSession | None = None, **changes: Any) -> Observed:
    """A session that has everything but a pod, unless said otherwise."""
    of = of if of is not None else session()
    held = claim(Holder.OURS)
    values: dict[str, Any] = {
        "session": of,
        "volume": volume(),
        "claims": {of.spec.phone: held} if of.spec.phone else {},
        "held": (lease(),) if of.spec.phone else (),
    }
    return Observed(**(values | changes))


def wish_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found
