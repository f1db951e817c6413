"""When a pod is replaced: it has ended for good, or it is not the pod that is wanted."""

from dataclasses import dataclass
from typing import Final

from whatsapp_operator.controller.views import PodView

# A pod that ends sooner than this after it was made stays until then, so that a node which refuses it is not flooded.
LEAST_AGE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Replacement:
    """Whether the pod has to go now, else after how many seconds to look again; None for not at all.

    Attributes:
        outdated: the spec asks for nothing else, but this operator builds another pod of it: a rollout replaces it.
    """

    now: bool = False
    after: float | None = None
    outdated: bool = False


def replacement(pod: PodView, age: float, *, applied_hash: str, spec_hash: str) -> Replacement:
    """What becomes of a pod, `age` seconds after it was first seen, when these hashes are wanted.

    An operator that knew no spec hash has left none; until one is set, what has changed is taken for its doing.
    restartPolicy is Always, so a pod that has Failed or Succeeded was evicted, refused by its node, or lost with it.
    """
    if pod.deleting:
        return Replacement()
    outdated = pod.applied_hash != applied_hash
    if outdated and pod.spec_hash not in (None, spec_hash):
        return Replacement(now=True)
    if pod.phase in ("Failed", "Succeeded"):
        return Replacement(now=True) if age >= LEAST_AGE_SECONDS else Replacement(after=LEAST_AGE_SECONDS - age)
    return Replacement(outdated=outdated)
