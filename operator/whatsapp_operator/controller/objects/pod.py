"""The session pod, within Pod Security "restricted"."""

import hashlib
import json
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from whatsapp_operator.api import names
from whatsapp_operator.api.models import (
    RESERVED_DOMAINS,
    CABundle,
    Model,
    ObjectMeta,
    Proxy,
    Template,
    WhatsAppSession,
    WhatsAppSessionSpec,
)
from whatsapp_operator.controller.objects import labels
from whatsapp_operator.controller.settings import AllowLists, Options
from whatsapp_operator.kube.client import Object

USER: Final = 65532
GRACE_SECONDS: Final = 20
# The kubelet renews a token of this odd length early enough, as it does for its own kube-api-access volumes.
TOKEN_SECONDS: Final = 3607
CA_FILE: Final = "ca.crt"
DEFAULT_REQUESTS: Final = {"cpu": "10m", "memory": "64Mi"}
# A limit on cpu would cost start-up time: a QR takes 7 s at 100m and 1.7 s at 500m.
DEFAULT_LIMITS: Final = {"memory": "192Mi"}

_RESERVED_KEY: Final = re.compile(rf"(^|\.)({'|'.join(map(re.escape, RESERVED_DOMAINS))})/")
_OURS: Final = frozenset(
    {
        names.ANNOTATION_APPLIED_HASH,
        names.ANNOTATION_SPEC_HASH,
        names.ANNOTATION_DESIRED_STATE,
        names.ANNOTATION_GENERATION,
    }
)
# The fields of a spec that go into the pod; the others reach it by the desired state.
_IN_THE_POD: Final = {"tenant", "proxy", "ca_bundle", "template"}
# Uses everything that is built here.
_ANY_SESSION: Final = WhatsAppSession.model_validate(
    {
        "metadata": {"name": "any", "uid": "any"},
        "spec": {
            "tenant": "any",
            "proxy": {"secretRef": {"name": "any", "key": "any"}},
            "caBundle": {"configMapRef": {"name": "any", "key": "any"}},
        },
    }
)


class Hashes(NamedTuple):
    """Of a pod, as its annotations have them: of all that it is built from, and of what its session asks for."""

    applied: str
    spec: str


class InvalidTemplateError(ValueError):
    """spec.template asks for something that is not allowed; the text names the field."""


def build(session: WhatsAppSession, options: Options, desired_state: str) -> Object:
    """The pod with its fixed name, without an ownerReference, with the hashes that tell when it must be replaced.

    `names.ANNOTATION_APPLIED_HASH` is of the pod, `names.ANNOTATION_SPEC_HASH` of what the session asks for: where the
    pod differs and the spec does not, the operator has changed. The desired state goes into
    `names.ANNOTATION_DESIRED_STATE` and the session's generation into `names.ANNOTATION_GENERATION`; they are no part
    of the hashes.

    Raises:
        InvalidTemplateError: spec.template asks for something that is not allowed.
    """
    body, made = _body(session, options), hashes(session, options)
    body["metadata"]["annotations"] |= {
        names.ANNOTATION_APPLIED_HASH: made.applied,
        names.ANNOTATION_SPEC_HASH: made.spec,
        names.ANNOTATION_DESIRED_STATE: desired_state,
        names.ANNOTATION_GENERATION: str(session.metadata.generation),
    }
    return body


def hashes(session: WhatsAppSession, options: Options) -> Hashes:
    """Those of the pod that `build` makes; every plan asks for them, and they change with the spec only.

    Raises:
        InvalidTemplateError: as `build`.
    """
    metadata = session.metadata
    asked = session.spec.model_dump_json(by_alias=True, exclude_none=True, include=_IN_THE_POD)
    return _hashes(metadata.namespace, metadata.name, metadata.uid, asked, options)


@lru_cache(maxsize=8192)
def _hashes(namespace: str, name: str, uid: str, asked: str, options: Options) -> Hashes:
    """`asked` is the part of the spec that goes into the pod, as JSON."""
    metadata = ObjectMeta(name=name, namespace=namespace, uid=uid)
    session = WhatsAppSession(metadata=metadata, spec=WhatsAppSessionSpec.model_validate_json(asked))
    return Hashes(_hash(_body(session, options)), _digest(json.loads(asked)))


def wanted_labels(session: WhatsAppSession, options: Options) -> dict[str, str]:
    """All labels of the pod but that of a primary session."""
    template = session.spec.template or Template()
    return (template.labels or {}) | labels.of_session(session, options.version)


def _body(session: WhatsAppSession, options: Options) -> Object:
    """The pod without what is no part of its hashes."""
    template = session.spec.template or Template()
    check_template(template, options.allow)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": names.owned_name(session.metadata.name),
            "namespace": session.metadata.namespace,
            "labels": wanted_labels(session, options),
            "annotations": dict(template.annotations or {}),
        },
        "spec": _spec(session, template, options),
    }


def check_template(template: Template, allow: AllowLists) -> None:
    """Refuse what the operator's allow-lists do not hold; admission may have been bypassed, so keys are checked again.

    Raises:
        InvalidTemplateError: names the field.
    """
    for field, mapping in (("labels", template.labels), ("annotations", template.annotations)):
        for key in mapping or {}:
            if "/" not in key or _RESERVED_KEY.search(key):
                raise InvalidTemplateError(
                    f"spec.template.{field}: the key {key} is reserved; use a domain of your own, as team.example/name"
                )
    if template.image is not None and template.image not in allow.images:
        raise InvalidTemplateError("spec.template.image: not on the operator's list, --allow-images")
    if template.priority_class_name is not None and template.priority_class_name not in allow.priority_classes:
        raise InvalidTemplateError(
            "spec.template.priorityClassName: not on the operator's list, --allow-priority-classes"
        )
    for index, toleration in enumerate(template.tolerations or ()):
        if toleration.key not in allow.toleration_keys:
            raise InvalidTemplateError(
                f"spec.template.tolerations[{index}]: its key is not on the operator's list, --allow-toleration-keys"
            )


@lru_cache(maxsize=1)
def revision(options: Options) -> str:
    """Names what this operator contributes to the pod of any session: image, log level, and all that is built here."""
    return hashes(_ANY_SESSION, options).applied[:16]


def _hash(body: Object) -> str:
    """Of everything but what may differ without a new pod: the version label of the operator."""
    metadata = body["metadata"]
    return _digest(
        {
            "labels": {key: value for key, value in metadata["labels"].items() if key != names.LABEL_APP_VERSION},
            "annotations": {key: value for key, value in metadata["annotations"].items() if key not in _OURS},
            "spec": body["spec"],
        }
    )


def _digest(content: Object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _spec(session: WhatsAppSession, template: Template, options: Options) -> Object:
    volumes, mounts = _volumes(session)
    spec: Object = {
        "serviceAccountName": names.SESSION_SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(session, template, options, mounts)],
        "volumes": volumes,
    }
    optional = {
        "nodeSelector": template.node_selector,
        "tolerations": [_plain(item) for item in template.tolerations or ()],
        "affinity": template.affinity and _plain(template.affinity),
        "topologySpreadConstraints": [_plain(item) for item in template.topology_spread_constraints or ()],
        "priorityClassName": template.priority_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in template.image_pull_secrets or ()],
    }
    return spec | {key: value for key, value in optional.items() if value}


def _plain(part: Model) -> Object:
    return part.model_dump(by_alias=True, exclude_none=True)


def _container(session: WhatsAppSession, template: Template, options: Options, mounts: list[Object]) -> Object:
    return {
        "name": names.SESSION_CONTAINER,
        "image": template.image or options.session_image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(session, options),
        "ports": [{"name": "http", "containerPort": names.SESSION_HTTP_PORT, "protocol": "TCP"}],
        # Neither a readiness nor a startup probe: nothing is sent to the pod, and they would delay Ready by a second.
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "initialDelaySeconds": 15,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "resources": _resources(template),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _environment(session: WhatsAppSession, options: Options) -> list[Object]:
    variables: list[Object] = [
        {"name": names.ENV_NAMESPACE, "value": session.metadata.namespace},
        {"name": names.ENV_SESSION, "value": session.metadata.name},
        {"name": names.ENV_SESSION_UID, "value": session.metadata.uid},
        {"name": names.ENV_TENANT, "value": session.spec.tenant},
        {"name": names.ENV_POD_UID, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": names.ENV_LOG_LEVEL, "value": options.session_log_level},
    ]
    proxy = session.spec.proxy
    return variables if proxy is None else [*variables, _proxy_variable(proxy)]


def _proxy_variable(proxy: Proxy) -> Object:
    if proxy.secret_ref is None:
        return {"name": names.ENV_PROXY_URL, "value": proxy.url or ""}
    reference = {"name": proxy.secret_ref.name, "key": proxy.secret_ref.key}
    return {"name": names.ENV_PROXY_URL, "valueFrom": {"secretKeyRef": reference}}


def _resources(template: Template) -> Object:
    wanted = template.resources
    asked: dict[str, dict[str, Any]] = {"requests": {}, "limits": {}}
    if wanted is not None:
        for kind, found in (("requests", wanted.requests), ("limits", wanted.limits)):
            asked[kind] = found.model_dump(exclude_none=True) if found is not None else {}
    # A request above its limit is refused, so a default never meets a value that was asked for.
    limits = {key: value for key, value in DEFAULT_LIMITS.items() if key not in asked["requests"]} | asked["limits"]
    requests = {key: value for key, value in DEFAULT_REQUESTS.items() if key not in asked["limits"]} | asked["requests"]
    return {"requests": requests, "limits": limits}


def _volumes(session: WhatsAppSession) -> tuple[list[Object], list[Object]]:
    desired_path = f"metadata.annotations['{names.ANNOTATION_DESIRED_STATE}']"
    volumes: list[Object] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": names.owned_name(session.metadata.name)}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {
            "name": "desired-state",
            "downwardAPI": {"items": [{"path": names.DESIRED_FILE, "fieldRef": {"fieldPath": desired_path}}]},
        },
        {
            "name": "api-access",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                        }
                    },
                ],
            },
        },
    ]
    mounts: list[Object] = [
        {"name": "data", "mountPath": names.DATA_DIR},
        {"name": "run", "mountPath": names.RUN_DIR},
        {"name": "desired-state", "mountPath": names.DESIRED_DIR, "readOnly": True},
        {"name": "api-access", "mountPath": names.SERVICE_ACCOUNT_DIR, "readOnly": True},
    ]
    if session.spec.ca_bundle is not None:
        volumes.append({"name": "ca-bundle", **_ca_source(session.spec.ca_bundle)})
        mounts.append({"name": "ca-bundle", "mountPath": names.CA_DIR, "readOnly": True})
    return volumes, mounts


def _ca_source(bundle: CABundle) -> Object:
    if bundle.secret_ref is not None:
        items = [{"key": bundle.secret_ref.key, "path": CA_FILE}]
        return {"secret": {"secretName": bundle.secret_ref.name, "items": items}}
    if bundle.config_map_ref is not None:
        items = [{"key": bundle.config_map_ref.key, "path": CA_FILE}]
        return {"configMap": {"name": bundle.config_map_ref.name, "items": items}}
    raise InvalidTemplateError("spec.caBundle: exactly one of secretRef and configMapRef must be set")
