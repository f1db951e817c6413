"""What a WhatsAppSession says, read from the raw object: a newer one is shown as far as it is known."""

from dataclasses import dataclass
from typing import Any, Final

from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import EXPLANATIONS, ConditionType, Phase, Reason
from whatsapp_operator.kube.client import Object

# In the order in which a session comes to life.
ORDER: Final = tuple(ConditionType)
# Who keeps an object as it is in Git, by a label or annotation of theirs.
_KEEPERS: Final = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; the message without the remedy, which is what a person can do, if anything."""

    type: str
    status: str
    reason: str
    message: str
    remedy: str
    since: str | None

    @property
    def is_true(self) -> bool:
        return self.status == "True"


@dataclass(frozen=True, slots=True)
class Session:
    """A WhatsAppSession as the API server gave it."""

    raw: Object

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.raw["metadata"].get("namespace", ""))

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"].get("uid", ""))

    @property
    def generation(self) -> int:
        return int(self.raw["metadata"].get("generation") or 0)

    @property
    def spec(self) -> Object:
        return self.raw.get("spec") or {}

    @property
    def status(self) -> Object:
        return self.raw.get("status") or {}

    def part(self, *path: str) -> dict[str, Any]:
        """A part of status; empty where it is not there."""
        found: Any = self.status
        for key in path:
            found = (found or {}).get(key)
        return found or {}

    @property
    def phase(self) -> str:
        return str(self.status.get("phase") or Phase.PENDING)

    @property
    def annotations(self) -> dict[str, str]:
        return self.raw["metadata"].get("annotations") or {}

    @property
    def paused(self) -> bool:
        return self.annotations.get(names.ANNOTATION_PAUSED) == "true"

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.raw["metadata"]

    @property
    def suspended(self) -> bool:
        return bool(self.spec.get("suspend"))

    @property
    def method(self) -> str:
        return str((self.spec.get("pairing") or {}).get("method") or "QRCode")

    @property
    def untouched(self) -> bool:
        """Whether no operator has ever looked at it."""
        return int(self.status.get("observedGeneration") or 0) < 1

    @property
    def observed(self) -> bool:
        """Whether the operator has looked at the spec as it is."""
        return int(self.status.get("observedGeneration") or 0) >= self.generation

    @property
    def conditions(self) -> list[Condition]:
        """In a fixed order; unknown ones last."""
        found = [_condition(item) for item in self.status.get("conditions") or ()]
        ranks = {kind.value: rank for rank, kind in enumerate(ORDER)}
        return sorted(found, key=lambda condition: (ranks.get(condition.type, len(ranks)), condition.type))

    def condition(self, kind: ConditionType) -> Condition:
        """A condition that is not there is Unknown."""
        missing = Condition(kind, "Unknown", "", "", "", None)
        return next((condition for condition in self.conditions if condition.type == kind), missing)

    def is_true(self, kind: ConditionType) -> bool:
        return self.condition(kind).is_true

    @property
    def connected(self) -> bool:
        return self.is_true(ConditionType.READY) and self.is_true(ConditionType.CONNECTED)

    @property
    def remedy(self) -> str:
        """What a person can do to have it Ready; empty where there is nothing."""
        stalled = self.condition(ConditionType.STALLED)
        ready = self.condition(ConditionType.READY)
        return (stalled if stalled.is_true else ready).remedy

    @property
    def keeper(self) -> str | None:
        """Who would set a changed spec back to what is in Git."""
        keys = {*self.annotations, *(self.raw["metadata"].get("labels") or {})}
        return next((keeper for key, keeper in _KEEPERS.items() if key in keys), None)


def _condition(item: dict[str, Any]) -> Condition:
    reason, message = str(item.get("reason", "")), str(item.get("message", ""))
    remedy = remedy_of(reason)
    return Condition(
        type=str(item.get("type", "")),
        status=str(item.get("status", "Unknown")),
        reason=reason,
        message=message.removesuffix(remedy).rstrip() if remedy else message,
        remedy=remedy,
        since=item.get("lastTransitionTime"),
    )


def remedy_of(reason: str) -> str:
    """What a person can do about a reason; empty where there is nothing, or where it is not known here."""
    return EXPLANATIONS[Reason(reason)].remedy if reason in Reason.__members__.values() else ""


def command_of(reason: str, name: str, namespace: str) -> str | None:
    """The command of this plugin that does what the remedy says, if there is one."""
    where = f" -n {namespace}" if namespace else ""
    if reason in (Reason.QR_AVAILABLE, Reason.CODE_AVAILABLE, Reason.WAITING_FOR_SCAN):
        return f"kubectl wa link {name}{where}"
    if reason == Reason.SUSPENDED:
        return f"kubectl wa resume {name}{where}"
    if reason == Reason.CRASH_LOOPING:
        return f"kubectl wa logs {name}{where} --previous"
    return f"kubectl wa relink {name}{where}" if "forceRelink" in remedy_of(reason) else None
