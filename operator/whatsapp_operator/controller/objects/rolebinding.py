"""What the session pods of a namespace may do: the two writes of the ClusterRole, narrowed by the admission policy."""

from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.controller.objects import labels
from whatsapp_operator.kube.client import Object

ROLE_REF: Final = {
    "apiGroup": "rbac.authorization.k8s.io",
    "kind": "ClusterRole",
    "name": names.SESSION_CLUSTER_ROLE,
}


def build(namespace: str, version: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": names.SESSION_SERVICE_ACCOUNT,
            "namespace": namespace,
            "labels": labels.common("session", version),
        },
        "roleRef": dict(ROLE_REF),
        "subjects": [{"kind": "ServiceAccount", "name": names.SESSION_SERVICE_ACCOUNT, "namespace": namespace}],
    }
