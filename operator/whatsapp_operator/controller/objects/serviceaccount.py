"""The ServiceAccount that all session pods of a namespace run under."""

from whatsapp_operator.api import names
from whatsapp_operator.controller.objects import labels
from whatsapp_operator.kube.client import Object


def build(namespace: str, version: str) -> Object:
    """The account; its token is mounted only where a pod asks for it."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": names.SESSION_SERVICE_ACCOUNT,
            "namespace": namespace,
            "labels": labels.common("session", version),
        },
        "automountServiceAccountToken": False,
    }
