from typing import Any, cast

import pytest

from whatsapp_operator.api.names import ADMISSION_POLICIES
from whatsapp_operator.controller import policies
from whatsapp_operator.kube.client import LEASES, Client, Object, Resource
from whatsapp_operator.kube.errors import AlreadyExistsError, ForbiddenError, KubeError, UnreachableError


def refusal(policy: str) -> KubeError:
    return ForbiddenError(f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: x", code=403)


class ApiStandIn:
    """Answers each dry run as told, and by default refuses it as the policy does."""

    def __init__(self, **answers: list[KubeError | None]) -> None:
        self.answers = answers
        self.asked = 0

    async def create(self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool) -> Object:
        assert (resource, namespace, dry_run) == (LEASES, "system", True)
        self.asked += 1
        policy = body["metadata"]["name"].removeprefix(policies.PROBE_PREFIX)
        left = self.answers.get(policy.rpartition("-")[2], [])
        error = left.pop(0) if left else refusal(policy)
        if error is not None:
            raise error
        return body


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "PAUSE_SECONDS", 0.0)


def client(stand_in: Any) -> Client:
    return cast(Client, stand_in)


async def test_a_refusal_by_the_policy_itself_is_what_counts() -> None:
    exists = AlreadyExistsError("there", code=409, reason="AlreadyExists")
    stand_in = ApiStandIn(secret=[None], status=[exists])
    found = await policies.missing(client(stand_in), "system")
    assert found == ("whatsapp-session-secret", "whatsapp-session-status")


async def test_any_other_refusal_tells_nothing() -> None:
    with pytest.raises(ForbiddenError, match="no right"):
        await policies.missing(client(ApiStandIn(secret=[ForbiddenError("no right", code=403)])), "system")


async def test_policies_that_come_late_and_an_api_server_that_is_away_are_waited_for() -> None:
    away: list[KubeError | None] = [UnreachableError("away")] * 30
    stand_in = ApiStandIn(secret=[*away, None, None])
    await policies.require(client(stand_in), "system")
    assert stand_in.asked == 33 * len(ADMISSION_POLICIES)


async def test_the_error_names_the_policy_and_the_remedy() -> None:
    with pytest.raises(policies.NotInForceError) as refused:
        await policies.require(client(ApiStandIn(secret=[None] * 30)), "system")
    assert refused.value.policies == ("whatsapp-session-secret",)
    assert "whatsapp-session-secret" in str(refused.value)
    assert "with the chart (admissionPolicies.install)" in str(refused.value)
