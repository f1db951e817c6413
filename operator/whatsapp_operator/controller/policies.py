"""Whether the API server enforces the admission policies that keep session pods to what is their own.

To read policies and bindings is a right on the whole cluster, and would not tell whether they have taken effect yet.
So each policy also refuses a Lease that is named after it, which is asked for here as a dry run. Only what is enforced
refuses: neither a policy without its binding, nor one whose binding does but warn or audit.
"""

import asyncio
import logging
from typing import Final

from whatsapp_operator.api.names import ADMISSION_POLICIES
from whatsapp_operator.kube.client import LEASES, Client
from whatsapp_operator.kube.errors import AlreadyExistsError, ForbiddenError, KubeError

_log = logging.getLogger(__name__)

PROBE_PREFIX: Final = "probe-of-"
# A policy takes effect a second or so after it was made.
ATTEMPTS: Final = 5
PAUSE_SECONDS: Final = 1.0


class NotInForceError(Exception):
    """Policies that the operator does not run without; the text names them and the remedy."""

    def __init__(self, policies: tuple[str, ...]) -> None:
        super().__init__(
            f"not enforced in this cluster: ValidatingAdmissionPolicy {', '.join(policies)}. Without it a session pod"
            " may write what is not its own, so the operator does not run. Install the policies and their bindings"
            " with the chart (admissionPolicies.install), and leave the bindings at validationActions [Deny]"
        )
        self.policies = policies


async def missing(client: Client, namespace: str) -> tuple[str, ...]:
    """The policies that are not enforced now.

    Args:
        client: of any replica, leading or not, if it refuses no writes; nothing is written.
        namespace: one where Leases may be created.

    Raises:
        KubeError: it could not be found out.
    """
    enforced = await asyncio.gather(*(_enforced(client, namespace, policy) for policy in ADMISSION_POLICIES))
    return tuple(policy for policy, is_enforced in zip(ADMISSION_POLICIES, enforced, strict=True) if not is_enforced)


async def require(client: Client, namespace: str) -> None:
    """Return once all policies are enforced; for as long as the API server does not answer, wait.

    Raises:
        NotInForceError: some are still not after five looks.
    """
    left = ATTEMPTS
    while True:
        try:
            found = await missing(client, namespace)
        except KubeError as error:
            _log.warning("cannot see whether the admission policies are in force: %s", error)
        else:
            if not found:
                return
            left -= 1
            if not left:
                raise NotInForceError(found)
        await asyncio.sleep(PAUSE_SECONDS)


async def _enforced(client: Client, namespace: str, policy: str) -> bool:
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": f"{PROBE_PREFIX}{policy}"}}
    try:
        await client.create(LEASES, namespace, body, dry_run=True)
    except AlreadyExistsError:
        return False
    except ForbiddenError as error:
        if f"ValidatingAdmissionPolicy '{policy}'" in error.message:
            return True
        raise
    return False
