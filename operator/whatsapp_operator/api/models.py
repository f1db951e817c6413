"""The WhatsAppSession as typed models: what its definition is generated from and what the operator reads and writes.

Parsing ignores unknown fields, so that an operator may read objects written under a newer definition.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from whatsapp_operator.api import egress, names
from whatsapp_operator.api.reasons import (
    ConditionType,
    MachineState,
    PairingMethod,
    Phase,
    Reason,
    RelinkOutcome,
    SessionState,
)

DEFAULT_INACTIVE_EXPIRY = timedelta(hours=2160)


def _rules(*rules: tuple[str, str]) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def _map_rules(most: int, *rules: tuple[str, str]) -> dict[str, Any]:
    return {"maxProperties": most, **_rules(*rules)}


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

_LABEL_NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DOMAIN = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
LabelKey = Annotated[str, Field(pattern=f"^({_DOMAIN}/)?{_LABEL_NAME}$", min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(pattern=rf"^({_LABEL_NAME})?$", max_length=63)]
# The schema bounds the values of a map, and rules its keys.
LabelMap = Annotated[
    dict[Annotated[str, Field(max_length=317)], LabelValue],
    Field(
        json_schema_extra=_map_rules(
            16, ("self.all(k, k.size() <= 317)", "keys have at most 317 characters: a domain, a slash and a name")
        )
    ),
]

Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$", max_length=16)]
ObjectName = Annotated[str, Field(pattern=OBJECT_NAME, min_length=1, max_length=253)]
DataKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
Duration = Annotated[
    str,
    Field(
        max_length=32,
        pattern=r"^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$",
        json_schema_extra=_rules(
            (
                "duration(self) >= duration('1h') && duration(self) <= duration('87600h')",
                "must be between 1h and 87600h, for example 2160h",
            )
        ),
    ),
]
Quantity = Annotated[
    str,
    Field(
        max_length=20,
        json_schema_extra=_rules(
            ("isQuantity(self)", "must be a quantity, for example 256Mi"),
        ),
    ),
]
# Cpu and memory are written as numbers too, as everywhere in Kubernetes.
IntOrQuantity = Annotated[int | str, WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 20})]
Message = Annotated[str, Field(max_length=512)]


# ---------------------------------------------------------------- spec


class Pairing(Model):
    """How the device is paired."""

    method: PairingMethod = Field(
        PairingMethod.QR_CODE, description="QRCode shows a QR to scan, PairingCode a code to enter on the phone."
    )
    attempts: int = Field(
        3,
        ge=1,
        le=20,
        description="Windows, about 160 seconds each, that are shown one after the other before giving up.",
    )
    display_name: str = Field(
        "Chrome (Linux)",
        pattern=r"^[A-Za-z0-9]+( [A-Za-z0-9]+)* \([A-Za-z0-9]+( [A-Za-z0-9.]+)*\)$",
        max_length=50,
        description="What the phone's list of linked devices shows, as Browser (System).",
    )


class AccessMode(StrEnum):
    READ_WRITE_ONCE_POD = "ReadWriteOncePod"
    READ_WRITE_ONCE = "ReadWriteOnce"


class RetentionPolicy(StrEnum):
    DELETE = "Delete"
    RETAIN = "Retain"


class Storage(Model):
    """The volume that holds the credentials. May change until it is bound; then only size may grow."""

    size: Quantity = Field(
        "256Mi",
        description="Requested size of the volume.",
        json_schema_extra=_rules(
            ("isQuantity(self)", "must be a quantity, for example 256Mi"),
            (
                "!isQuantity(self) || (quantity(self).compareTo(quantity('16Mi')) >= 0"
                " && quantity(self).compareTo(quantity('100Gi')) <= 0)",
                "must be between 16Mi and 100Gi",
            ),
        ),
    )
    storage_class_name: ObjectName | None = Field(None, description="StorageClass; without it the cluster's default.")
    access_mode: AccessMode = Field(
        AccessMode.READ_WRITE_ONCE_POD,
        description="ReadWriteOncePod makes the cluster keep a second pod off the volume; ReadWriteOnce where the"
        " storage cannot.",
    )
    retention_policy: RetentionPolicy = Field(
        RetentionPolicy.DELETE, description="What happens to the volume when the session is deleted."
    )


class DeletionPolicy(StrEnum):
    UNLINK = "Unlink"
    KEEP = "Keep"


class OnLoggedOut(StrEnum):
    RELINK = "Relink"
    HOLD = "Hold"


class Recovery(Model):
    """What is done without being asked."""

    on_logged_out: OnLoggedOut = Field(
        OnLoggedOut.RELINK,
        description="After the phone removed the device: offer a new pairing once, or wait for forceRelink.",
    )
    inactive_expiry: Duration | None = Field(
        None,
        description="Credentials unused for that long are tried once more and wiped when refused; 2160h without it."
        " Those of a suspended session are wiped only if this field is set.",
    )


class KeyRef(Model):
    """One key of a Secret or ConfigMap in the session's namespace."""

    name: ObjectName = Field(description="Name of the object.")
    key: DataKey = Field(description="Key within the object.")


# A host whose last part is a number is an address to most libraries, octal, hexadecimal or short of a part.
_MEANT_AS_ADDRESS = "(^|[.])([0-9]+|0[xX][0-9a-fA-F]*)[.]?$"
_FORBIDDEN = ", ".join(f"'{network}'" for network in egress.FORBIDDEN_IN_CEL)


class Proxy(Model):
    """Egress of this session."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            ("has(self.url) != has(self.secretRef)", "exactly one of url and secretRef must be set")
        )
    )

    url: str | None = Field(
        None,
        pattern=r"^(http|https|socks5)://([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])"
        r"(:[0-9]{1,5})?/?$",
        max_length=300,
        description="http://, https:// or socks5:// and the host and port; user and password belong into secretRef.",
        json_schema_extra=_rules(
            (
                "!isURL(self) || [url(self).getHostname()].all(h, isIP(h)"
                f" || !h.contains(':') && !h.matches('{_MEANT_AS_ADDRESS}'))",
                "an address is written as four decimal numbers, such as 10.0.0.5, or as an IPv6 one in brackets",
            ),
            (
                f"!isURL(self) || [url(self).getHostname()].all(h, !isIP(h) || ![{_FORBIDDEN}]"
                ".exists(n, cidr(n).containsIP(ip(h))))",
                "must not lead to a link-local or multicast address or a cloud's metadata service; name another proxy",
            ),
        ),
    )
    secret_ref: KeyRef | None = Field(None, description="Key of a Secret that holds the whole URL.")


class CABundle(Model):
    """PEM certificates trusted in addition to the system's roots."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            ("has(self.secretRef) != has(self.configMapRef)", "exactly one of secretRef and configMapRef must be set")
        )
    )

    secret_ref: KeyRef | None = Field(None, description="Key of a Secret that holds the certificates.")
    config_map_ref: KeyRef | None = Field(None, description="Key of a ConfigMap that holds the certificates.")


class ResourceList(Model):
    model_config = ConfigDict(
        json_schema_extra=_rules(
            (
                "!has(self.cpu) || (isQuantity(string(self.cpu))"
                " && quantity(string(self.cpu)).isGreaterThan(quantity('0'))"
                " && quantity(string(self.cpu)).compareTo(quantity('4')) <= 0)",
                "cpu must be a quantity above 0 and at most 4, for example 100m",
            ),
            (
                "!has(self.memory) || (isQuantity(string(self.memory))"
                " && quantity(string(self.memory)).compareTo(quantity('48Mi')) >= 0"
                " && quantity(string(self.memory)).compareTo(quantity('4Gi')) <= 0)",
                "memory must be a quantity between 48Mi and 4Gi, for example 64Mi",
            ),
        )
    )

    cpu: IntOrQuantity | None = Field(None, description="Cores, for example 100m.")
    memory: IntOrQuantity | None = Field(None, description="Bytes, for example 64Mi.")


class Resources(Model):
    requests: ResourceList | None = Field(None, description="What the scheduler sets aside.")
    limits: ResourceList | None = Field(None, description="What the container may use at most.")


class LocalReference(Model):
    name: ObjectName = Field(description="Name of the Secret.")


class Toleration(Model):
    key: LabelKey | None = Field(None, description="Taint key.")
    operator: Literal["Exists", "Equal"] | None = Field(None, description="How key and value are compared.")
    value: LabelValue | None = Field(None, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Taint effect.")
    toleration_seconds: int | None = Field(None, description="How long NoExecute is tolerated.")


class LabelRequirement(Model):
    key: LabelKey = Field(description="Label key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How it is compared.")
    values: list[LabelValue] | None = Field(None, max_length=16, description="With what.")


class LabelSelector(Model):
    match_labels: LabelMap | None = Field(None, description="Labels with exactly these values.")
    match_expressions: list[LabelRequirement] | None = Field(None, max_length=8, description="Further requirements.")


NodeValue = Annotated[str, Field(pattern=r"^[-A-Za-z0-9_.]*$", max_length=253)]


class NodeRequirement(Model):
    key: LabelKey = Field(description="Label key, or metadata.name among the fields.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(description="How it is compared.")
    values: list[NodeValue] | None = Field(None, max_length=16, description="With what.")


class NodeTerm(Model):
    match_expressions: list[NodeRequirement] | None = Field(None, max_length=8, description="On labels of the node.")
    match_fields: list[NodeRequirement] | None = Field(None, max_length=2, description="On fields of the node.")


class NodeTerms(Model):
    node_selector_terms: list[NodeTerm] = Field(min_length=1, max_length=4, description="One of them must hold.")


Weight = Annotated[int, Field(ge=1, le=100)]


class WeightedNodeTerm(Model):
    weight: Weight = Field(description="How much it counts.")
    preference: NodeTerm = Field(description="What is preferred.")


class NodeAffinity(Model):
    required_during_scheduling_ignored_during_execution: NodeTerms | None = Field(None, description="As in a Pod.")
    preferred_during_scheduling_ignored_during_execution: list[WeightedNodeTerm] | None = Field(
        None, max_length=4, description="As in a Pod."
    )


class PodTerm(Model):
    """Pods of this namespace only: an anti-affinity to others' pods would keep them off the nodes."""

    label_selector: LabelSelector | None = Field(None, description="Which pods.")
    topology_key: LabelKey = Field(description="Label of nodes that makes a place.")
    match_label_keys: list[LabelKey] | None = Field(None, max_length=8, description="As in a Pod.")
    mismatch_label_keys: list[LabelKey] | None = Field(None, max_length=8, description="As in a Pod.")


class WeightedPodTerm(Model):
    weight: Weight = Field(description="How much it counts.")
    pod_affinity_term: PodTerm = Field(description="What is preferred.")


class PodAffinity(Model):
    required_during_scheduling_ignored_during_execution: list[PodTerm] | None = Field(
        None, max_length=4, description="As in a Pod."
    )
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodTerm] | None = Field(
        None, max_length=4, description="As in a Pod."
    )


class Affinity(Model):
    node_affinity: NodeAffinity | None = Field(None, description="To nodes.")
    pod_affinity: PodAffinity | None = Field(None, description="To pods of this namespace.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Away from pods of this namespace.")


class TopologySpreadConstraint(Model):
    max_skew: int = Field(ge=1, le=1000, description="As in a Pod.")
    topology_key: LabelKey = Field(description="Label of nodes that makes a place.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(description="As in a Pod.")
    label_selector: LabelSelector | None = Field(None, description="Which pods of this namespace.")
    min_domains: int | None = Field(None, ge=1, le=1000, description="As in a Pod.")
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(None, description="As in a Pod.")
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(None, description="As in a Pod.")
    match_label_keys: list[LabelKey] | None = Field(None, max_length=8, description="As in a Pod.")


# Whose labels and annotations change a pod or what it may do: Kubernetes, networks, identities of clouds, injectors of
# meshes, secrets and agents.
RESERVED_DOMAINS = (
    *("kubernetes.io", "k8s.io", names.GROUP, "openshift.io", "cattle.io", "kruise.io", "knative.dev", "k8s.aws"),
    *("istio.io", "linkerd.io", "kuma.io", "openservicemesh.io", "nginx.com", "getambassador.io", "dapr.io"),
    *("cilium.io", "projectcalico.org", "cncf.io", "multus-cni.io", "ovn.org"),
    *("hashicorp.com", "banzaicloud.com", "bank-vaults.io", "cyberark.com", "conjur.org", "akeyless.io"),
    *("1password.io", "doppler.com", "infisical.com", "spiffe.io"),
    *("amazonaws.com", "google.com", "gke.io", "azure.com", "azure.workload.identity"),
    *("datadoghq.com", "newrelic.com", "dynatrace.com", "instana.io", "appdynamics.com", "opentelemetry.io"),
    *("signalfx.com", "odigos.io", "elastic.co", "openpolicyagent.org", "kyverno.io"),
)
_RESERVED_KEYS = f"(^|[.])({'|'.join(RESERVED_DOMAINS)})/".replace(".", "[.]").replace("[[.]]", "[.]")
_KEY_RULES = (
    (
        f"self.all(k, k.matches('^{_DOMAIN}/{_LABEL_NAME}$'))",
        "a key is a domain of your own, a slash and a name, such as team.example/name",
    ),
    (
        f"self.all(k, !k.matches('{_RESERVED_KEYS}'))",
        "keys of Kubernetes, of this operator and of injectors are reserved; use a domain of your own, such as"
        " team.example/name",
    ),
)
PodLabels = Annotated[
    dict[Annotated[str, Field(max_length=317)], LabelValue], Field(json_schema_extra=_map_rules(32, *_KEY_RULES))
]
PodAnnotations = Annotated[
    dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=1024)]],
    Field(json_schema_extra=_map_rules(32, *_KEY_RULES)),
]


class Template(Model):
    """The session pod, within Pod Security "restricted"."""

    labels: PodLabels | None = Field(None, description="Further labels of the pod, under a domain of your own.")
    annotations: PodAnnotations | None = Field(
        None, description="Further annotations of the pod, under a domain of your own."
    )
    resources: Resources | None = Field(None, description="Requests and limits of the session container.")
    node_selector: LabelMap | None = Field(None, description="Labels a node must have.")
    tolerations: list[Toleration] | None = Field(
        None, max_length=16, description="Taints tolerated; only those on the operator's allow-list."
    )
    affinity: Affinity | None = Field(None, description="As in a Pod, to pods of this namespace.")
    topology_spread_constraints: list[TopologySpreadConstraint] | None = Field(
        None, max_length=4, description="As in a Pod."
    )
    priority_class_name: ObjectName | None = Field(
        None, description="PriorityClass; only one on the operator's allow-list."
    )
    image_pull_secrets: list[LocalReference] | None = Field(
        None, max_length=8, description="Secrets to pull the image with."
    )
    image: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
        max_length=512,
        description="Image of the session container; only one on the operator's allow-list.",
    )


class WhatsAppSessionSpec(Model):
    """What is wanted."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            (
                "self.pairing.method != 'PairingCode' || has(self.phone)",
                "phone is required for pairing.method PairingCode",
            ),
        )
    )

    tenant: str = Field(
        pattern=DNS_LABEL,
        min_length=1,
        max_length=63,
        description="Owner of the session within its namespace, scope of the phone claim and of primary. Immutable.",
        json_schema_extra=_rules(
            ("self == oldSelf", "tenant is immutable: delete the session and create it under the other tenant")
        ),
    )
    phone: Phone | None = Field(
        None,
        description="Number that must be linked, in E.164 form such as +15551230001, with the calling code of a country"
        " and as many digits as numbers have there. Without it the first phone that scans is taken. A change to another"
        " number logs out, wipes and pairs anew; until that one is claimed the session goes on with the former.",
    )
    pairing: Pairing = Field(Pairing(), description="How the device is paired.")
    suspend: bool = Field(False, description="No pod; volume, credentials and claim stay.")
    storage: Storage = Field(Storage(), description="The volume that holds the credentials.")
    deletion_policy: DeletionPolicy = Field(
        DeletionPolicy.UNLINK,
        description="Unlink removes the device from the phone's list before the session goes, within 30 seconds.",
    )
    recovery: Recovery = Field(Recovery(), description="What is done without being asked.")
    proxy: Proxy | None = Field(None, description="Egress of this session.")
    ca_bundle: CABundle | None = Field(
        None, alias="caBundle", description="Certificates trusted in addition to the system's roots."
    )
    template: Template | None = Field(None, description="The session pod.")


# ---------------------------------------------------------------- status


class Condition(Model):
    """metav1.Condition."""

    type: ConditionType | str = Field(description="What the condition is about.", max_length=316)
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Reason | str = Field(description="Why, in one word that is part of the API.", max_length=1024)
    message: str = Field("", max_length=512, description="Why, for a person.")
    last_transition_time: datetime = Field(description="When status last changed.")
    observed_generation: int | None = Field(None, ge=0, description="Generation of the spec that was looked at.")


class RelinkStatus(Model):
    """The last forceRelink that was seen."""

    token_hash: str | None = Field(None, max_length=64, description="Hash of the annotation's value.")
    request_id: str | None = Field(
        None, alias="requestID", max_length=64, description="What the volume records as done."
    )
    requested_at: datetime | None = Field(None, description="When it was seen.")
    completed_at: datetime | None = Field(None, description="When the session pod reported it done.")
    outcome: RelinkOutcome | None = Field(None, description="What became of it.")


class RolloutBefore(StrEnum):
    """How a session was when its pod was to be replaced; so it must be again before the rollout goes on without it."""

    DOWN = "Down"
    REPORTING = "Reporting"
    CONNECTED = "Connected"


class RolloutStatus(Model):
    """The session's place in a rollout of the session pods, from before its pod is deleted until it is back."""

    revision: str | None = Field(None, max_length=64, description="What it was admitted for: image and pod.")
    before: RolloutBefore | None = Field(
        None,
        description="How it was; it gives its place up when it is so again, or when a person relinks or suspends it.",
    )
    started_at: datetime | None = Field(None, description="When it was admitted.")
    overdue: bool | None = Field(
        None, description="It should be back by now; the rollout stops when all places are so."
    )


class AttemptResult(StrEnum):
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class PairingAttempt(Model):
    """One finished attempt."""

    seq: int | None = Field(None, ge=0, description="Number of the attempt on this volume, from 1.")
    id: str | None = Field(None, max_length=64, description="Correlation id, also in logs and events.")
    method: PairingMethod | None = Field(None, description="QRCode or PairingCode.")
    started_at: datetime | None = Field(None, description="First code of the window.")
    finished_at: datetime | None = Field(None, description="End of the attempt.")
    result: AttemptResult | None = Field(None, description="Succeeded or Failed.")
    reason: str | None = Field(None, max_length=64, description="Why, in one word.")
    message: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="Why, for a person, where the reason does not say it all."
    )
    seconds_to_qr: float | None = Field(None, alias="secondsToQR", ge=0, description="Request to first QR or code.")
    seconds_to_scan: float | None = Field(None, ge=0, description="First QR or code to the phone's answer.")
    seconds_to_connected: float | None = Field(None, ge=0, description="The phone's answer to Connected.")


class PairingState(StrEnum):
    IDLE = "Idle"
    REQUESTING = "Requesting"
    SHOWING = "Showing"
    SCANNED = "Scanned"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    EXHAUSTED = "Exhausted"


class PairingStatus(Model):
    """Pairing as last reported, kept when the pod goes."""

    method: PairingMethod | None = Field(None, description="QRCode or PairingCode.")
    state: PairingState | None = Field(None, description="Where the attempt stands.")
    attempt: int | None = Field(None, ge=0, description="Window of this round, from 1; 0 while none is open.")
    secret_name: str | None = Field(None, max_length=253, description="Secret that holds the QR or code.")
    expires_at: datetime | None = Field(None, description="End of the window, not of the single QR.")
    last: PairingAttempt | None = Field(None, description="The last finished attempt.")
    succeeded: int | None = Field(None, ge=0, description="Attempts that succeeded, ever.")
    failed: int | None = Field(None, ge=0, description="Attempts that failed, ever.")
    last_counted_seq: int | None = Field(None, ge=0, description="Attempts up to here are in the metrics and events.")


class ConnectionStatus(Model):
    since: datetime | None = Field(None, description="Since when the connection is open; absent while it is not.")
    last_connected_at: datetime | None = Field(None, description="When it was last opened.")
    disconnects: int | None = Field(None, ge=0, description="Connections lost, ever, as the volume has counted them.")
    last_reason: str | None = Field(None, max_length=64, description="Why the last one was lost.")
    replaced: int | None = Field(
        None, ge=0, description="Times in a row that another client took the connection over; a person must act from 3."
    )
    next_retry_at: datetime | None = Field(
        None, description="When the next try is made; absent where none is, until somebody acts."
    )


class PodStatus(Model):
    name: str | None = Field(None, max_length=253, description="Name of the pod.")
    uid: str | None = Field(None, max_length=64, description="Uid of the pod.")
    node: str | None = Field(None, max_length=253, description="Node it runs on.")
    image: str | None = Field(None, max_length=512, description="Image of the session container.")
    restarts: int | None = Field(None, ge=0, description="Restarts of the session container.")


class Credentials(Model):
    present: bool | None = Field(None, description="Credentials lie on the volume; absent until it could be read.")
    valid: bool | None = Field(None, description="They can be read and are those of a registered device.")
    last_used_at: datetime | None = Field(
        None, description="When they were last used: the last login, or the end of the last connection."
    )
    registered_at: datetime | None = Field(None, description="Since when: the time that the device was paired.")


class Device(Model):
    jid: str | None = Field(None, max_length=128, description="Address of the linked device: number and device.")
    lid: str | None = Field(None, max_length=128, description="Its other address, which hides the number.")
    platform: str | None = Field(None, max_length=64, description="Platform of the phone.")
    business_name: str | None = Field(None, max_length=256, description="Business name of the account.")
    push_name: str | None = Field(None, max_length=256, description="Name the account shows to others.")


class SessionPairing(Model):
    """The pod's view of pairing; see docs/architecture.md."""

    method: PairingMethod | None = Field(None, description="QRCode or PairingCode.")
    state: PairingState | None = Field(None, description="Where the attempt stands.")
    attempt: int | None = Field(None, ge=0, description="Window of this round, from 1; 0 while none is open.")
    id: str | None = Field(None, max_length=64, description="Correlation id of the attempt, also in logs and events.")
    started_at: datetime | None = Field(None, description="First code of the window.")
    expires_at: datetime | None = Field(None, description="End of the window, not of the single QR.")
    seq: int | None = Field(None, ge=0, description="Number of finished attempts on this volume.")
    succeeded: int | None = Field(None, ge=0, description="Of these, the succeeded.")
    failed: int | None = Field(None, ge=0, description="Of these, the failed.")
    history: list[PairingAttempt] | None = Field(None, max_length=10, description="The last ten, oldest first.")


class SessionReport(Model):
    """status.session: what the session pod reports; written by it alone."""

    pod_uid: str | None = Field(None, alias="podUID", max_length=64, description="Pod that reports.")
    boot_id: str | None = Field(None, alias="bootID", max_length=64, description="Process that reports.")
    reported_at: datetime | None = Field(None, description="When.")
    machine: MachineState | None = Field(None, description="State of the session.")
    reason: str | None = Field(None, max_length=64, description="Why, in one word.")
    message: Message | None = Field(None, description="Why, for a person.")
    credentials: Credentials | None = Field(
        None, description="The credentials on the volume; device and status.phone say whose they are."
    )
    pairing: SessionPairing | None = Field(None, description="Pairing.")
    device: Device | None = Field(None, description="The device whose credentials they are; absent when none is.")
    connection: ConnectionStatus | None = Field(None, description="The connection.")
    desired_state_hash: str | None = Field(
        None, max_length=64, description="Hash of the desired state that the pod follows."
    )
    relink_request_id: str | None = Field(
        None, alias="relinkRequestID", max_length=64, description="The last relink request that the volume has done."
    )
    relink_outcome: RelinkOutcome | None = Field(None, description="What became of it.")


class WhatsAppSessionStatus(Model):
    """What was seen. The session pod writes session, the operator the rest."""

    observed_generation: int | None = Field(
        None, ge=-1, description="Generation of the spec that was looked at; -1 before that."
    )
    phase: Phase | None = Field(None, description="For display only.")
    session_state: SessionState | None = Field(None, description="not_started, connecting, waiting_qr or connected.")
    auth_paired: bool | None = Field(None, description="The device is linked.")
    primary: bool | None = Field(None, description="The tenant's primary session: its oldest connected one.")
    phone: Phone | None = Field(None, description="The linked number, as WhatsApp spells it.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="The operator writes all of them.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    relink: RelinkStatus | None = Field(None, description="The last forceRelink that was seen.")
    pairing: PairingStatus | None = Field(None, description="Pairing.")
    connection: ConnectionStatus | None = Field(None, description="The connection.")
    pod: PodStatus | None = Field(None, description="The session pod.")
    rollout: RolloutStatus | None = Field(
        None, description="Its place in a rollout of the session pods; see docs/operations.md."
    )
    session: SessionReport | None = Field(None, description="The session pod's own report.")


class ObjectMeta(Model):
    """The part of metadata that the operator reads."""

    name: str
    namespace: str = "default"
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)


class WhatsAppSession(Model):
    """A WhatsApp account's linked device, paired once and kept connected."""

    api_version: str = names.API_VERSION
    kind: str = names.KIND
    metadata: ObjectMeta
    spec: WhatsAppSessionSpec
    status: WhatsAppSessionStatus = Field(default_factory=WhatsAppSessionStatus)
