"""The Lease that claims a phone for one session."""

from datetime import datetime

from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.controller.objects import labels
from whatsapp_operator.kube.client import Object


def holder_identity(session: WhatsAppSession) -> str:
    """The holder as namespace/name/uid."""
    metadata = session.metadata
    return f"{metadata.namespace}/{metadata.name}/{metadata.uid}"


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
