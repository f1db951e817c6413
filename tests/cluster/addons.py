"""What a cluster is expected to bring: names by CoreDNS, volumes by the local-path-provisioner."""

import json
from pathlib import Path
from typing import Any

from tests.cluster.node import CLUSTER_DNS, CLUSTER_DOMAIN

Manifest = dict[str, Any]
_NON_ROOT = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
COREFILE = f"""\
.:53 {{
    errors
    ready
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        ttl 5
    }}
    cache 5
}}
"""
DEPLOYMENTS = (("kube-system", "coredns"), ("local-path-storage", "local-path-provisioner"))


def manifests(coredns_image: str, provisioner_image: str, helper_image: str, volumes: Path) -> list[Manifest]:
    """In the order to apply them. `volumes` is the node's directory that holds the volumes."""
    return [*_coredns(coredns_image), *_local_path(provisioner_image, helper_image, volumes)]


def _coredns(image: str) -> list[Manifest]:
    namespace, name = DEPLOYMENTS[0]
    readable = ["endpoints", "services", "pods", "namespaces"]
    container = {
        "name": name,
        "image": image,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "securityContext": _NON_ROOT,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    return [
        _config_map(namespace, name, {"Corefile": COREFILE}),
        *_account(
            namespace,
            name,
            [
                _rule("", readable, ["list", "watch"]),
                _rule("discovery.k8s.io", ["endpointslices"], ["list", "watch"]),
            ],
        ),
        _deployment(namespace, name, container, "system-cluster-critical"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": namespace, "name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
            "spec": {
                "clusterIP": CLUSTER_DNS,
                "selector": {"app": name},
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            },
        },
    ]


def _local_path(image: str, helper_image: str, volumes: Path) -> list[Manifest]:
    namespace, name = DEPLOYMENTS[1]
    helper_pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "containers": [{"name": "helper-pod", "image": helper_image}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
        },
    }
    container = {
        "name": name,
        "image": image,
        "args": [
            "start",
            "--config=/etc/config/config.json",
            f"--configmap-name={name}",
            f"--service-account-name={name}",
        ],
        "env": [
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "CONFIG_MOUNT_PATH", "value": "/etc/config/"},
        ],
        "securityContext": _NON_ROOT,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}],
    }
    paths = [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [str(volumes)]}]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        _config_map(
            namespace,
            name,
            {
                "config.json": json.dumps({"nodePathMap": paths}),
                # Writable for pods that do not run as root, as a cloud's volumes are by their group.
                "setup": '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
                "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
                "helperPod.yaml": json.dumps(helper_pod),
            },
        ),
        *_account(
            namespace,
            name,
            [
                _rule(
                    "", ["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], ["get", "list", "watch"]
                ),
                _rule(
                    "", ["persistentvolumes", "pods"], ["get", "list", "watch", "create", "patch", "update", "delete"]
                ),
                _rule("", ["events"], ["create", "patch"]),
                _rule("storage.k8s.io", ["storageclasses"], ["get", "list", "watch"]),
            ],
        ),
        _deployment(namespace, name, container, "system-cluster-critical"),
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "local-path",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "rancher.io/local-path",
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Delete",
        },
    ]


def _config_map(namespace: str, name: str, data: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name},
        "data": data,
    }


def _rule(group: str, resources: list[str], verbs: list[str]) -> Manifest:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _account(namespace: str, name: str, rules: list[Manifest]) -> list[Manifest]:
    api = "rbac.authorization.k8s.io"
    metadata = {"name": f"local:{name}"}
    subject = {"kind": "ServiceAccount", "namespace": namespace, "name": name}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}},
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": metadata["name"]},
            "subjects": [subject],
        },
    ]


def _deployment(namespace: str, name: str, container: Manifest, priority: str) -> Manifest:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": name,
                    "priorityClassName": priority,
                    "containers": [container],
                    "volumes": [{"name": "config", "configMap": {"name": name}}],
                },
            },
        },
    }
