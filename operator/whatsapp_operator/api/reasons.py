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
    EXPIRY_FAILED = "ExpiryFailed"
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
    HELD = "Held"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a reason means, what is done about it without anybody, and the remedy: plain text, a sentence or two each.

    None of them ever holds a value of the session. An empty remedy: there is nothing for a person to do.
    """

    meaning: str
    doing: str
    remedy: str = ""


EXPLANATIONS: Final[dict[Reason, Explanation]] = {
    Reason.CLAIMED: Explanation(
        "The phone number is reserved for this session.",
        "No other session of the claim's scope can link it.",
    ),
    Reason.NOT_DECLARED: Explanation(
        "No phone number is declared.",
        "The first phone that scans is taken and its number claimed.",
    ),
    Reason.HELD_BY_OTHER: Explanation(
        "Another session holds this phone number.",
        "Nothing is paired with it here; the claim is taken as soon as it is free.",
        "Delete the other session, or set another spec.phone.",
    ),
    Reason.PHONE_CLAIM_CONFLICT: Explanation(
        "The phone that scanned is claimed by another session.",
        "Its device was logged out again and no new QR is offered.",
        "Delete the session that holds the number, or have another phone at hand; then set a new forceRelink.",
    ),
    Reason.POD_READY: Explanation(
        "The session pod runs and reports.",
        "If it is lost, another one continues on the same volume.",
    ),
    Reason.POD_PENDING: Explanation(
        "The session pod is not ready yet.",
        "It is being started; what holds it up for more than ten seconds is told.",
        "Should this last, look at the pod's events.",
    ),
    Reason.IMAGE_PULL_FAILED: Explanation(
        "The image of the session pod cannot be pulled.",
        "The kubelet tries again, at last every five minutes.",
        "Check the image name and spec.template.imagePullSecrets.",
    ),
    Reason.VOLUME_PENDING: Explanation(
        "The volume of the session is not provisioned yet.",
        "The pod waits for it.",
        "Should this last, check spec.storage and the Events of its PersistentVolumeClaim.",
    ),
    Reason.UNSCHEDULABLE: Explanation(
        "No node can take the session pod.",
        "The scheduler tries again whenever a node changes.",
        "Free resources, or change spec.template.nodeSelector, affinity, tolerations or resources.",
    ),
    Reason.POD_FAILED: Explanation(
        "The session pod has ended or its container cannot be started.",
        "A pod that has ended is replaced on the same volume; the kubelet tries the container again.",
        "Should this come back, look at the pod's events and the node's health.",
    ),
    Reason.NODE_LOST: Explanation(
        "The node of the session pod does not answer; the pod may still run there.",
        "It is not deleted by force, for two pods must never use the same credentials.",
        "Bring the node back, or delete it, or taint it as out-of-service, so that the pod may move.",
    ),
    Reason.SUSPENDED: Explanation(
        "The session is suspended as asked for by spec.suspend.",
        "No pod runs; volume, credentials and the claim on a linked number stay, until inactiveExpiry if that is set.",
        "Set spec.suspend to false to go on.",
    ),
    Reason.CRASH_LOOPING: Explanation(
        "The session container ends again and again.",
        "The kubelet restarts it, at last every five minutes.",
        "Read the logs of its last run (kubectl logs --previous); a newer image may be needed.",
    ),
    Reason.POD_REJECTED: Explanation(
        "The API server refuses the pod or volume of the session (quota, Pod Security or a LimitRange).",
        "Creating it is tried again, at last every five minutes.",
        "Follow the API server's message.",
    ),
    Reason.CONFIG_MISSING: Explanation(
        "A Secret or ConfigMap that the session refers to is missing, or lacks the key.",
        "The pod starts by itself once it is there.",
        "Create it, or correct spec.proxy.secretRef or spec.caBundle.",
    ),
    Reason.VOLUME_FULL: Explanation(
        "The volume of the session is full.",
        "Nothing on it was overwritten, and nothing is connected; it is tried again every ten seconds.",
        "Raise spec.storage.size.",
    ),
    Reason.VOLUME_READ_ONLY: Explanation(
        "The volume of the session cannot be written.",
        "Nothing is connected; it is tried again every ten seconds.",
        "Check the node's and the storage's health; deleting the pod mounts the volume anew.",
    ),
    Reason.VOLUME_FOREIGN: Explanation(
        "The volume was kept from an earlier session of another tenant or phone.",
        "Nothing on it is used or changed.",
        "Delete the PersistentVolumeClaim if its credentials are not needed, or restore the tenant and phone.",
    ),
    Reason.EXPANSION_REFUSED: Explanation(
        "The volume cannot grow to spec.storage.size.",
        "The session goes on with its present size; growing is tried again, at last every five minutes.",
        "Use a StorageClass with allowVolumeExpansion, or set the former size.",
    ),
    Reason.NAME_CONFLICT: Explanation(
        "An object with the name that this session needs exists and is not its own.",
        "It is left alone; the operator looks again, at last every five minutes.",
        "Delete that object, or create the session under another name.",
    ),
    Reason.EXPIRY_FAILED: Explanation(
        "The session is suspended, and a pod that was to remove its long unused credentials did not do so in time.",
        "That pod was given up; another one tries a day later, or after a change of the spec.",
        "Check that the session image is as new as the operator and can be pulled, or set spec.suspend to false.",
    ),
    Reason.QR_AVAILABLE: Explanation(
        "A QR code waits in the Secret that status.pairing names.",
        "It is renewed by itself until status.pairing.expiresAt.",
        "Scan it with the phone: Linked devices, Link a device.",
    ),
    Reason.CODE_AVAILABLE: Explanation(
        "A pairing code waits in the Secret that status.pairing names.",
        "It can be used until status.pairing.expiresAt.",
        "Enter it on the phone: Linked devices, Link a device, Link with phone number instead.",
    ),
    Reason.NOT_NEEDED: Explanation(
        "The session is paired; no QR or code is needed.",
        "None is asked for.",
    ),
    Reason.STARTING: Explanation(
        "The QR or code is being requested.",
        "A request without an answer is ended and made again, later and later.",
    ),
    Reason.EXPIRED: Explanation(
        "Time has run out: nobody scanned within the window, or the credentials lay unused for too long.",
        "The next QR or code follows by itself, unless spec.recovery.onLoggedOut or spec.suspend holds it back.",
        "Have the phone at hand; where nothing follows, set spec.suspend to false or set a new forceRelink.",
    ),
    Reason.ATTEMPTS_EXHAUSTED: Explanation(
        "All spec.pairing.attempts windows have passed and no phone was linked.",
        "No further QR is offered; a claim that never paired is released.",
        "Set a new value of the annotation whatsapp-operator.io/forceRelink when the phone is at hand.",
    ),
    Reason.RATE_LIMITED: Explanation(
        "WhatsApp gives no further pairing codes for this number for now.",
        "It is asked again after five minutes, then after twice as long each time, up to six hours.",
        "Wait, or set spec.pairing.method to QRCode.",
    ),
    Reason.PASSKEY_REQUIRED: Explanation(
        "WhatsApp asks for a passkey, which this client cannot answer.",
        "The attempt was stopped and no other is made.",
        "Use another account, or remove the passkey on the phone, then set a new forceRelink.",
    ),
    Reason.POD_NOT_READY: Explanation(
        "The session pod does not report, so nothing is known of the connection.",
        "It is waited for; the condition PodReady tells why.",
    ),
    Reason.PAIRED: Explanation(
        "The device is linked.",
        "Its credentials are on the volume and outlive the pod.",
    ),
    Reason.NOT_PAIRED: Explanation(
        "No device is linked yet.",
        "A QR or code is offered as the condition QRReady tells.",
    ),
    Reason.LOGGED_OUT: Explanation(
        "The phone has removed the device.",
        "The credentials are wiped; one new QR follows (the next after five minutes, doubling), or none with Hold.",
        "Pair anew: scan the new QR; if recovery.onLoggedOut is Hold, set a new forceRelink.",
    ),
    Reason.MAIN_DEVICE_GONE: Explanation(
        "The account's main device is gone.",
        "The credentials are wiped; one new QR follows (the next after five minutes, doubling), or none with Hold.",
        "Register the phone again and scan the new QR; if recovery.onLoggedOut is Hold, set a new forceRelink.",
    ),
    Reason.PHONE_MISMATCH: Explanation(
        "Another phone than spec.phone has scanned.",
        "Its device was logged out again; the next attempt follows.",
        "Scan with the declared phone, or correct spec.phone.",
    ),
    Reason.CREDENTIALS_CORRUPT: Explanation(
        "The credentials could not be read.",
        "They are moved aside on the volume (the last three are kept) and the device is paired anew.",
        "Scan the new QR.",
    ),
    Reason.CREDENTIALS_CONFLICT: Explanation(
        "Another process uses the credentials on this volume.",
        "Nothing is connected; the volume is tried again twice a second.",
        "Should this last, find and stop the other pod that mounts the session's PersistentVolumeClaim.",
    ),
    Reason.UNLINKED: Explanation(
        "The device was removed from the phone's list, as asked for.",
        "The credentials are wiped and the pod stays idle until it is removed.",
    ),
    Reason.CONNECTED: Explanation(
        "The session is paired and its connection is open.",
        "A lost connection is opened again by itself.",
    ),
    Reason.CONNECTING: Explanation(
        "The connection is being opened.",
        "A login that is not answered is ended and tried again, later and later.",
    ),
    Reason.RECONNECTING: Explanation(
        "The connection was lost.",
        "It is opened again, after a minute at the most each time; the credentials stay.",
    ),
    Reason.STREAM_REPLACED: Explanation(
        "Another client uses the same credentials and took the connection over.",
        "The session tries again by itself at status.connection.nextRetryAt, less and less often.",
        "Stop the other client; if it has a copy of the credentials, set a new forceRelink, which costs a new pairing.",
    ),
    Reason.TEMPORARY_BAN: Explanation(
        "WhatsApp has banned the account for a time.",
        "The session waits until status.connection.nextRetryAt and keeps its credentials.",
        "Review how the account is used; pairing anew does not help.",
    ),
    Reason.CLIENT_OUTDATED: Explanation(
        "WhatsApp refuses this version of the client.",
        "The credentials are kept; it is tried again every hour.",
        "Upgrade the session image.",
    ),
    Reason.CONNECT_FAILURE: Explanation(
        "WhatsApp cannot be reached or refuses the connection.",
        "It is tried again, after a minute at the most each time, for ever; the credentials stay.",
        "Should this last, check DNS, network policies and spec.caBundle.",
    ),
    Reason.PROXY_FAILED: Explanation(
        "The proxy of spec.proxy cannot be used.",
        "It is tried again, after a minute at the most each time, for ever; the credentials stay.",
        "Check spec.proxy and the proxy.",
    ),
    Reason.KEEP_ALIVE_TIMEOUT: Explanation(
        "WhatsApp does not answer keepalives.",
        "Unless an answer comes soon, the connection is opened again; the credentials stay.",
        "Should this come back, check the network between the node and WhatsApp.",
    ),
    Reason.WAITING_FOR_SCAN: Explanation(
        "A person has to scan the QR or enter the code.",
        "It is renewed by itself, for up to spec.pairing.attempts windows.",
        "Take it from the Secret that status.pairing names, and scan it with the phone.",
    ),
    Reason.PROGRESSING: Explanation(
        "The operator is working towards what was asked for.",
        "The other conditions tell what is still missing.",
    ),
    Reason.DELETING: Explanation(
        "The session is being deleted.",
        "Its device is unlinked first, within thirty seconds at the most; then everything that it owns goes.",
    ),
    Reason.INVALID_SPEC: Explanation(
        "The spec holds a value that cannot be used.",
        "A linked session goes on as before; nothing new is begun.",
        "Correct the field that the message names.",
    ),
    Reason.HELD: Explanation(
        "The session pod waits for a person, for a reason that this operator does not know.",
        "The session pod tries nothing more by itself.",
        "Do what its message or its log asks for; an operator as new as the session image explains more.",
    ),
}


def sentence(reason: Reason) -> str:
    """A reason as one condition message: what it means, what is done about it, and the remedy."""
    explanation = EXPLANATIONS[reason]
    return f"{explanation.meaning} {explanation.doing} {explanation.remedy}".rstrip()
