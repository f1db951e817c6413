"""When a pod is replaced: it has ended for good, or it is not the pod that the spec asks for."""

from dataclasses import dataclass
from typing import Final

from whatsapp_operator.controller.views import PodView

# A pod that ends sooner than this after it was made stays until then, so that a node which refuses it is not flooded.
LEAST_AGE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Replacement:
    """Whether the pod has to go now, else after how many seconds to look again; None for not at all."""

    now: bool = False
    after: float | None = None


def replacement(pod: PodView, age: float, wanted_hash: str) -> Replacement:
    """What becomes of a pod, `age` seconds after it was first seen.

    restartPolicy is Always, so a pod that has Failed or Succeeded was evicted, refused by its node, or lost with it.
    """
    if pod.deleting:
        return Replacement()
    if pod.applied_hash != wanted_hash:
        return Replacement(now=True)
    if pod.phase in ("Failed", "Succeeded"):
        return Replacement(now=True) if age >= LEAST_AGE_SECONDS else Replacement(after=LEAST_AGE_SECONDS - age)
    return Replacement()
