"""The audit log of the API server: who wrote what, and for the namespace `record` the bodies too."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.integration.controller_stand_ins import OPERATOR_NAMESPACE
from whatsapp_operator.api import names

RECORDED_NAMESPACE: Final = "record"
OPERATOR: Final = f"system:serviceaccount:{OPERATOR_NAMESPACE}:whatsapp-operator"

POLICY: Final[dict[str, Any]] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "namespaces": ["kube-system", "kube-node-lease"]},
        {"level": "Request", "namespaces": [RECORDED_NAMESPACE, OPERATOR_NAMESPACE]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class Kind:
    """A kind of write: `actor` is operator, pod, or other (user, scheduler, kubelet, binder of volumes)."""

    actor: str
    verb: str
    resource: str
    subresource: str = ""


def entries(log: Path, *, after: int = 0, until: int | None = None) -> Iterator[dict[str, Any]]:
    """Writes that were accepted; `after` and `until` are offsets in the log."""
    at = after
    with log.open("rb") as lines:
        lines.seek(after)
        for line in lines:
            at += len(line)
            if until is not None and at > until:
                return
            # A line that is still being written has no end.
            if not line.endswith(b"\n"):
                return
            entry = json.loads(line)
            if entry.get("objectRef") and entry.get("responseStatus", {}).get("code", 500) < 300:
                yield entry


def actor(entry: dict[str, Any]) -> str:
    user = (entry.get("impersonatedUser") or entry["user"])["username"]
    if user == OPERATOR:
        return "operator"
    return "pod" if user.endswith(f":{names.SESSION_SERVICE_ACCOUNT}") else "other"


def kind(entry: dict[str, Any]) -> Kind:
    about = entry["objectRef"]
    return Kind(actor(entry), entry["verb"], about["resource"], about.get("subresource", ""))


def leader_election(entry: dict[str, Any]) -> bool:
    about = entry["objectRef"]
    return about["resource"] == "leases" and not about.get("name", "phone-").startswith("phone-")


def once_a_namespace(found: Kind) -> bool:
    return found.resource in ("serviceaccounts", "rolebindings", "namespaces", "configmaps")


def count(found: Iterable[dict[str, Any]], actors: tuple[str, ...] = ("operator", "pod")) -> Counter[Kind]:
    """Accepted writes of each kind, without the leader's lease."""
    return Counter(kind(entry) for entry in found if not leader_election(entry) and actor(entry) in actors)
