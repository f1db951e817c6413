"""Delivery of the desired state into a running pod.

The kubelet shows a changed annotation in the pod's downward-API volume when it next syncs the pod, at once as a rule.
With several pods changed at once it was seen (1.36) to miss one until its periodic sync, a minute or more later. Any
further change of the pod makes it look again, so that is made when the pod does not say that it follows.
"""

from dataclasses import dataclass
from typing import Final

from whatsapp_operator.api import names
from whatsapp_operator.controller.actions import PatchPod
from whatsapp_operator.controller.observed import Observed

# Longer than a pod takes to say that it follows; doubled with each nudge.
FIRST_NUDGE_SECONDS: Final = 2.0
# By then the kubelet's own periodic sync has come.
NUDGES: Final = 6


@dataclass(frozen=True, slots=True)
class Delivery:
    """What to do for it now, or after how many seconds to look again; neither where it has arrived."""

    actions: tuple[PatchPod, ...] = ()
    after: float | None = None


def change(wanted: str) -> tuple[tuple[str, str | None], ...]:
    """The annotations that tell the pod of another desired state; nudges begin anew."""
    return ((names.ANNOTATION_DESIRED_STATE, wanted), (names.ANNOTATION_NUDGES, None))


def ensure(o: Observed) -> Delivery:
    """Whether the pod follows the desired state that its annotation holds."""
    pod, report = o.own_pod, o.live
    if pod is None or pod.desired_state is None or report is None or report.desired_state_hash is None:
        return Delivery()
    if report.desired_state_hash == names.desired_state_hash(pod.desired_state) or pod.nudges >= NUDGES:
        return Delivery()
    left = FIRST_NUDGE_SECONDS * (2 ** (pod.nudges + 1) - 1) - o.desired_age
    if left > 0:
        return Delivery(after=left)
    nudge = ((names.ANNOTATION_NUDGES, str(pod.nudges + 1)),)
    name = names.owned_name(o.session.metadata.name)
    return Delivery((PatchPod(name, pod.uid, pod.version, annotations=nudge),))
