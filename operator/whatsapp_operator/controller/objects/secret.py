"""The Secret that the session pod puts the QR or pairing code into."""

from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.controller.objects import labels
from whatsapp_operator.kube.client import Object


def build(session: WhatsAppSession, version: str) -> Object:
    """The Secret, empty; the session owns it, so that garbage collection removes it if nothing else does."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.owned_name(session.metadata.name),
            "namespace": session.metadata.namespace,
            "labels": labels.of_session(session, version),
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "name": session.metadata.name,
                    "uid": session.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "type": "Opaque",
    }
