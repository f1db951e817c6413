"""Every label, annotation, object name and Secret key that the parts of the system agree on."""

import hashlib
import hmac
from typing import Final

GROUP: Final = "whatsapp-operator.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "WhatsAppSession"
PLURAL: Final = "whatsappsessions"

FIELD_MANAGER_OPERATOR: Final = "whatsapp-operator"
FIELD_MANAGER_SESSION: Final = "whatsapp-session"

FINALIZER: Final = f"{GROUP}/unlink"

# Read on the WhatsAppSession, never written by the system.
ANNOTATION_FORCE_RELINK: Final = f"{GROUP}/forceRelink"
ANNOTATION_PAUSED: Final = f"{GROUP}/paused"
ANNOTATION_LOG_LEVEL: Final = f"{GROUP}/logLevel"

# Written by the operator on the objects it owns.
ANNOTATION_APPLIED_HASH: Final = f"{GROUP}/applied-hash"
ANNOTATION_SPEC_HASH: Final = f"{GROUP}/spec-hash"
ANNOTATION_GENERATION: Final = f"{GROUP}/session-generation"
ANNOTATION_DESIRED_STATE: Final = f"{GROUP}/desired-state"
ANNOTATION_NUDGES: Final = f"{GROUP}/desired-state-nudges"

LABEL_SESSION: Final = f"{GROUP}/session"
LABEL_SESSION_UID: Final = f"{GROUP}/session-uid"
LABEL_TENANT: Final = f"{GROUP}/tenant"
LABEL_PRIMARY: Final = f"{GROUP}/primary"

LABEL_APP_NAME: Final = "app.kubernetes.io/name"
LABEL_APP_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_APP_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_APP_PART_OF: Final = "app.kubernetes.io/part-of"
LABEL_APP_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_APP_VERSION: Final = "app.kubernetes.io/version"

# One ServiceAccount and RoleBinding a namespace serve all its session pods; the admission policy tells the pods apart.
SESSION_SERVICE_ACCOUNT: Final = "whatsapp-session"
SESSION_CLUSTER_ROLE: Final = "whatsapp-session"

SESSION_CONTAINER: Final = "session"

# Keys of the Secret `wa-<session>`; the admission policy allows no others.
SECRET_KEY_QR: Final = "qr"
SECRET_KEY_QR_PNG: Final = "qr.png"
SECRET_KEY_CODE: Final = "code"
SECRET_KEY_EXPIRES_AT: Final = "expiresAt"
SECRET_KEYS: Final = (SECRET_KEY_QR, SECRET_KEY_QR_PNG, SECRET_KEY_CODE, SECRET_KEY_EXPIRES_AT)

# What the operator listens on, leads by, and does not run without.
OPERATOR_HTTP_PORT: Final = 8081
LEADER_LEASE: Final = "whatsapp-operator-leader"
ADMISSION_POLICIES: Final = ("whatsapp-session-references", "whatsapp-session-secret", "whatsapp-session-status")

# Where the operator mounts things in the session pod, and the environment it sets there.
DATA_DIR: Final = "/var/lib/whatsapp"
RUN_DIR: Final = "/run/whatsapp"
DESIRED_DIR: Final = "/etc/whatsapp/desired"
DESIRED_FILE: Final = "desired-state.json"
CA_DIR: Final = "/etc/whatsapp/ca"
SERVICE_ACCOUNT_DIR: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
MESSAGE_SOCKET: Final = f"{RUN_DIR}/messages.sock"
SESSION_HTTP_PORT: Final = 8080
ENV_NAMESPACE: Final = "WHATSAPP_NAMESPACE"
ENV_SESSION: Final = "WHATSAPP_SESSION"
ENV_SESSION_UID: Final = "WHATSAPP_SESSION_UID"
ENV_TENANT: Final = "WHATSAPP_TENANT"
ENV_POD_UID: Final = "WHATSAPP_POD_UID"
ENV_PROXY_URL: Final = "WHATSAPP_PROXY_URL"
ENV_LOG_LEVEL: Final = "WHATSAPP_LOG_LEVEL"

# What the variable, the annotation and the desired state may ask for.
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


def owned_name(session: str) -> str:
    """Name of everything that the session owns: pod, PersistentVolumeClaim and Secret."""
    return f"wa-{session}"


def desired_state_hash(document: str) -> str:
    """Names a desired-state document; the session pod reports the one that it follows."""
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def claim_name(key: bytes, scope: str, phone: str) -> str:
    """Name of the Lease that claims a phone within a scope.

    The phone is behind a keyed hash, so that who may list Leases learns no numbers.
    """
    digest = hmac.new(key, f"{scope}\0{phone}".encode(), hashlib.sha256).hexdigest()
    return f"phone-{digest[:32]}"
