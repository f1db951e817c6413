"""The PersistentVolumeClaim that holds a session's credentials."""

import hashlib
import json

from whatsapp_operator.api import names
from whatsapp_operator.api.models import WhatsAppSession
from whatsapp_operator.controller.objects import labels
from whatsapp_operator.kube.client import Object


def kind_hash(session: WhatsAppSession) -> str:
    """Names what cannot be changed in a claim: another needs another claim, which is possible until it is bound."""
    storage = session.spec.storage
    kind = [storage.access_mode.value, storage.storage_class_name]
    return hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:32]


def build(session: WhatsAppSession, version: str) -> Object:
    """The claim, without an ownerReference: a foreground deletion would remove it before the device is unlinked."""
    storage = session.spec.storage
    spec: Object = {
        "accessModes": [storage.access_mode.value],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": names.owned_name(session.metadata.name),
            "namespace": session.metadata.namespace,
            "labels": labels.of_session(session, version),
            "annotations": {names.ANNOTATION_APPLIED_HASH: kind_hash(session)},
        },
        "spec": spec,
    }
