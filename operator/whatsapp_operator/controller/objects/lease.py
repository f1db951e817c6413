"""The Lease that claims a phone for one session."""

import re
from datetime import datetime
from typing import Final

from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.controller.objects import labels
from whatsapp_operator.kube.client import Object

_NAME: Final = r"[a-z0-9](?:[-.a-z0-9]*[a-z0-9])?"
_IDENTITY: Final = re.compile(f"({_NAME})/({_NAME})/([^/]+)")


def holder_identity(session: WhatsAppSession) -> str:
    """The holder as namespace/name/uid."""
    metadata = session.metadata
    return f"{metadata.namespace}/{metadata.name}/{metadata.uid}"


def read_identity(identity: str | None) -> tuple[str, str, str] | None:
    """Namespace, name and uid of the holder; None where the Lease names nobody, as after an edit by hand."""
    match = _IDENTITY.fullmatch(identity or "")
    return (match[1], match[2], match[3]) if match is not None else None


def holder_spec(session: WhatsAppSession, now: datetime) -> Object:
    """What a take-over changes."""
    return {
        "holderIdentity": holder_identity(session),
        "acquireTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }


def build(session: WhatsAppSession, name: str, namespace: str, version: str, now: datetime) -> Object:
    """The claim, in the operator's own namespace; without a duration: it ends with its holder, not with time."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace, "labels": labels.common("phone-claim", version)},
        "spec": holder_spec(session, now),
    }
