"""Condition types and reasons: part of the API, each with what it means and what a person can do.

A reason's text is the source of the messages in conditions and of the troubleshooting page.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ConditionType(StrEnum):
    PHONE_CLAIMED = "PhoneClaimed"
    POD_READY = "PodReady"
    QR_READY = "QRReady"
    AUTH_PAIRED = "AuthPaired"
    CONNECTED = "Connected"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Phase(StrEnum):
    """For display only; nothing decides on it."""

    PENDING = "Pending"
    STARTING = "Starting"
    WAITING_FOR_SCAN = "WaitingForScan"
    AUTHENTICATING = "Authenticating"
    CONNECTED = "Connected"
    DISCONNECTED = "Disconnected"
    STALLED = "Stalled"
    SUSPENDED = "Suspended"
    EXPIRED = "Expired"
    DELETING = "Deleting"


class SessionState(StrEnum):
    NOT_STARTED = "not_started"
    CONNECTING = "connecting"
    WAITING_QR = "waiting_qr"
    CONNECTED = "connected"


class MachineState(StrEnum):
    """State of the session pod's machine, as reported in status.session.machine."""

    STARTING = "Starting"
    CONNECTING = "Connecting"
    SHOWING_QR = "ShowingQR"
    SHOWING_CODE = "ShowingCode"
    AUTHENTICATING = "Authenticating"
    CONNECTED = "Connected"
    RECONNECTING = "Reconnecting"
    HELD = "Held"
    FAILED = "Failed"
    UNLINKED = "Unlinked"


class PairingMethod(StrEnum):
    QR_CODE = "QRCode"
    PAIRING_CODE = "PairingCode"


class RelinkOutcome(StrEnum):
    COMPLETED = "Completed"
    ABSORBED = "Absorbed"
    FAILED = "Failed"


class Reason(StrEnum):
    # PhoneClaimed
    CLAIMED = "Claimed"
    NOT_DECLARED = "NotDeclared"
    HELD_BY_OTHER = "HeldByOther"
    PHONE_CLAIM_CONFLICT = "PhoneClaimConflict"
    # PodReady
    POD_READY = "PodReady"
    POD_PENDING = "PodPending"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    VOLUME_PENDING = "VolumePending"
    UNSCHEDULABLE = "Unschedulable"
    POD_FAILED = "PodFailed"
    NODE_LOST = "NodeLost"
    SUSPENDED = "Suspended"
    CRASH_LOOPING = "CrashLooping"
    POD_REJECTED = "PodRejected"
    CONFIG_MISSING = "ConfigMissing"
    VOLUME_FULL = "VolumeFull"
    VOLUME_READ_ONLY = "VolumeReadOnly"
    VOLUME_FOREIGN = "VolumeForeign"
    EXPANSION_REFUSED = "ExpansionRefused"
    NAME_CONFLICT = "NameConflict"
    # QRReady
    QR_AVAILABLE = "QRAvailable"
    CODE_AVAILABLE = "CodeAvailable"
    NOT_NEEDED = "NotNeeded"
    STARTING = "Starting"
    EXPIRED = "Expired"
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    RATE_LIMITED = "RateLimited"
    PASSKEY_REQUIRED = "PasskeyRequired"
    POD_NOT_READY = "PodNotReady"
    # AuthPaired
    PAIRED = "Paired"
    NOT_PAIRED = "NotPaired"
    LOGGED_OUT = "LoggedOut"
    MAIN_DEVICE_GONE = "MainDeviceGone"
    PHONE_MISMATCH = "PhoneMismatch"
    CREDENTIALS_CORRUPT = "CredentialsCorrupt"
    CREDENTIALS_CONFLICT = "CredentialsConflict"
    UNLINKED = "Unlinked"
    # Connected
    CONNECTED = "Connected"
    CONNECTING = "Connecting"
    RECONNECTING = "Reconnecting"
    STREAM_REPLACED = "StreamReplaced"
    TEMPORARY_BAN = "TemporaryBan"
    CLIENT_OUTDATED = "ClientOutdated"
    CONNECT_FAILURE = "ConnectFailure"
    PROXY_FAILED = "ProxyFailed"
    KEEP_ALIVE_TIMEOUT = "KeepAliveTimeout"
    # Reconciling
    WAITING_FOR_SCAN = "WaitingForScan"
    PROGRESSING = "Progressing"
    DELETING = "Deleting"
    # Stalled
    INVALID_SPEC = "InvalidSpec"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a reason means, and the remedy; neither ever holds a value of the session."""

    meaning: str
    remedy: str = ""


EXPLANATIONS: Final[dict[Reason, Explanation]] = {
    Reason.CLAIMED: Explanation("The phone number is reserved for this session."),
    Reason.NOT_DECLARED: Explanation("No phone number is declared; the first phone that scans is taken."),
    Reason.HELD_BY_OTHER: Explanation(
        "Another session holds this phone number.",
        "Delete the other session, or set another spec.phone; the claim is taken over by itself.",
    ),
    Reason.PHONE_CLAIM_CONFLICT: Explanation(
        "The phone that scanned is claimed by another session, so its device was unlinked again.",
        "Scan with another phone, or delete the session that holds the number, then set a new forceRelink.",
    ),
    Reason.POD_READY: Explanation("The session pod runs and reports."),
    Reason.POD_PENDING: Explanation("The session pod is being started."),
    Reason.IMAGE_PULL_FAILED: Explanation(
        "The image of the session pod cannot be pulled.",
        "Check the image name and spec.template.imagePullSecrets; the pull is retried.",
    ),
    Reason.VOLUME_PENDING: Explanation(
        "The volume of the session is not provisioned yet.",
        "Check spec.storage.storageClassName and the provisioner's logs if this lasts.",
    ),
    Reason.UNSCHEDULABLE: Explanation(
        "No node can take the session pod.",
        "Free resources, or change spec.template.nodeSelector, affinity or resources.",
    ),
    Reason.POD_FAILED: Explanation("The session pod has failed and is replaced."),
    Reason.NODE_LOST: Explanation(
        "The node of the session pod does not answer; the pod may still run there.",
        "Bring the node back, or delete it (or taint it out-of-service) so that the pod may move.",
    ),
    Reason.SUSPENDED: Explanation("The session is suspended as asked for by spec.suspend."),
    Reason.CRASH_LOOPING: Explanation(
        "The session container ends again and again.", "Read its logs; a newer image may be needed."
    ),
    Reason.POD_REJECTED: Explanation(
        "The API server refuses the session pod (quota, Pod Security or a LimitRange).",
        "Follow the API server's message; creation is retried.",
    ),
    Reason.CONFIG_MISSING: Explanation(
        "A Secret or ConfigMap that the session refers to is missing, or lacks the key.",
        "Create it, or correct spec.proxy.secretRef or spec.caBundle; the pod starts by itself then.",
    ),
    Reason.VOLUME_FULL: Explanation(
        "The volume of the session is full; nothing was overwritten.", "Raise spec.storage.size."
    ),
    Reason.VOLUME_READ_ONLY: Explanation(
        "The volume of the session cannot be written.", "Check the node's and the storage's health."
    ),
    Reason.VOLUME_FOREIGN: Explanation(
        "The volume belongs to another tenant or phone.",
        "Delete the PersistentVolumeClaim if its credentials are not needed, or restore the tenant and phone.",
    ),
    Reason.EXPANSION_REFUSED: Explanation(
        "The volume cannot grow to spec.storage.size.",
        "Use a StorageClass with allowVolumeExpansion, or set the former size.",
    ),
    Reason.NAME_CONFLICT: Explanation(
        "An object with the name that this session needs exists and is not its own.",
        "Delete or rename that object, or create the session under another name.",
    ),
    Reason.QR_AVAILABLE: Explanation(
        "A QR code waits in the Secret that status.pairing names.", "Scan it with the phone, under Linked devices."
    ),
    Reason.CODE_AVAILABLE: Explanation(
        "A pairing code waits in the Secret that status.pairing names.", "Enter it on the phone, under Linked devices."
    ),
    Reason.NOT_NEEDED: Explanation("The session is paired; no QR or code is needed."),
    Reason.STARTING: Explanation("The QR or code is being requested."),
    Reason.EXPIRED: Explanation("The time to scan is over; the next attempt is started by itself."),
    Reason.ATTEMPTS_EXHAUSTED: Explanation(
        "Nobody scanned within spec.pairing.attempts windows.",
        "Set a new value of the annotation whatsapp-operator.io/forceRelink when the phone is at hand.",
    ),
    Reason.RATE_LIMITED: Explanation("WhatsApp limits pairing codes for this number; it is tried again later."),
    Reason.PASSKEY_REQUIRED: Explanation(
        "WhatsApp asks for a passkey, which this client cannot answer.",
        "Use another account, or remove the passkey on the phone, then set a new forceRelink.",
    ),
    Reason.POD_NOT_READY: Explanation("The session pod is not ready."),
    Reason.PAIRED: Explanation("The device is linked."),
    Reason.NOT_PAIRED: Explanation("The device is not linked yet."),
    Reason.LOGGED_OUT: Explanation(
        "The device was removed on the phone.", "Pair anew: scan the new QR, or set a new forceRelink."
    ),
    Reason.MAIN_DEVICE_GONE: Explanation(
        "The account's main device is gone.", "Register the phone again, then pair anew with a new forceRelink."
    ),
    Reason.PHONE_MISMATCH: Explanation(
        "Another phone than spec.phone scanned; its device was unlinked again.", "Scan with the declared phone."
    ),
    Reason.CREDENTIALS_CORRUPT: Explanation(
        "The credential file was unreadable; it was moved aside and the device is paired anew.", "Scan the new QR."
    ),
    Reason.CREDENTIALS_CONFLICT: Explanation(
        "The credentials on the volume belong to another number, or another process uses them.",
        "Set a new forceRelink, or correct spec.phone.",
    ),
    Reason.UNLINKED: Explanation("The device was removed from the phone's list as asked for."),
    Reason.CONNECTED: Explanation("The session is paired and its connection is open."),
    Reason.CONNECTING: Explanation("The connection is being opened."),
    Reason.RECONNECTING: Explanation("The connection was lost and is being opened again."),
    Reason.STREAM_REPLACED: Explanation(
        "Another client uses the same credentials and took the connection over.",
        "Stop the other client; if its credentials are a copy, set a new forceRelink.",
    ),
    Reason.TEMPORARY_BAN: Explanation(
        "WhatsApp has banned the account for a time; the session waits until it is over.",
        "Review how the account is used; nothing else helps.",
    ),
    Reason.CLIENT_OUTDATED: Explanation(
        "WhatsApp refuses this version of the client.", "Upgrade the session image; the credentials are kept."
    ),
    Reason.CONNECT_FAILURE: Explanation("WhatsApp cannot be reached or refuses the connection; it is tried again."),
    Reason.PROXY_FAILED: Explanation("The proxy of spec.proxy cannot be used.", "Check spec.proxy and the proxy."),
    Reason.KEEP_ALIVE_TIMEOUT: Explanation("WhatsApp does not answer keepalives; the connection is opened again."),
    Reason.WAITING_FOR_SCAN: Explanation("A person has to scan the QR or enter the code."),
    Reason.PROGRESSING: Explanation("The operator is working towards what was asked for."),
    Reason.DELETING: Explanation("The session is being deleted; its device is unlinked first."),
    Reason.INVALID_SPEC: Explanation(
        "The spec holds a value that cannot be used.", "Correct the field that the message names."
    ),
}


def sentence(reason: Reason) -> str:
    """The meaning of a reason with its remedy, as one condition message."""
    explanation = EXPLANATIONS[reason]
    return f"{explanation.meaning} {explanation.remedy}".rstrip()
