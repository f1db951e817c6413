import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from tests.unit.controller.builders import OPTIONS
from whatsapp_operator.controller import policies
from whatsapp_operator.controller.app import FIRST_COMPARE_ATTEMPTS, Operator
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.metrics import Metrics
from whatsapp_operator.controller.settings import Settings
from whatsapp_operator.kube.client import LEASES, Client, Object, Page, Resource
from whatsapp_operator.kube.errors import (
    ForbiddenError,
    KubeError,
    NotFoundError,
    ServerError,
    ThrottledError,
    UnreachableError,
)
from whatsapp_operator.kube.lease import Election

THROTTLED = ThrottledError("later", code=429, reason="TooManyRequests", retry_after=7.0)


class ApiStandIn:
    """Lists that fail as told, then are empty."""

    def __init__(self, *failures: KubeError) -> None:
        self.failures = list(failures)
        self.refused: dict[str, KubeError] = {}
        self.listed = 0
        self.created: list[tuple[str, str | None]] = []
        self.leases: list[Object] = []
        self.deleted: list[tuple[str, str | None, str | None]] = []

    async def pages(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = ""
    ) -> AsyncGenerator[Page, None]:
        self.listed += 1
        if self.failures:
            raise self.failures.pop(0)
        yield Page(self.leases if resource is LEASES else [], "1")

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        raise NotFoundError(f"{resource.plural} {namespace}/{name}", code=404)

    async def delete(
        self, _: Resource, namespace: str | None, name: str, *, uid: str | None, resource_version: str | None
    ) -> Object:
        self.deleted.append((name, uid, resource_version))
        if "leases" in self.refused:
            raise self.refused["leases"]
        return {"kind": "Status"}

    async def create(self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        if dry_run:
            policy = body["metadata"]["name"].removeprefix(policies.PROBE_PREFIX)
            raise ForbiddenError(f"ValidatingAdmissionPolicy '{policy}' denied request", code=403)
        self.created.append((resource.plural, namespace))
        if resource.plural in self.refused:
            raise self.refused[resource.plural]
        return body


def operator(api: Any, *, resync_seconds: float = 600.0, cache: Cache | None = None) -> Operator:
    found = cache if cache is not None else Cache()
    return Operator(
        Settings(OPTIONS, "system", "me", resync_seconds=resync_seconds),
        client=cast(Client, api),
        election=cast(Election, None),
        metrics=Metrics(found, per_object=False),
        cache=found,
        on_started=lambda: None,
    )


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept, which do not pass."""
    found: list[float] = []
    yield_to_others = asyncio.sleep

    async def sleep(seconds: float) -> None:
        found.append(seconds)
        await yield_to_others(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


@pytest.mark.parametrize(
    "error",
    [THROTTLED, ServerError("down", code=500), UnreachableError("away"), ForbiddenError("not any more", code=403)],
    ids=lambda error: type(error).__name__,
)
async def test_a_failing_comparison_does_not_end_the_operator(error: KubeError, pauses: list[float]) -> None:
    api = ApiStandIn(error, error)
    comparing = asyncio.create_task(operator(api, resync_seconds=0.001)._compare_regularly())
    async with asyncio.timeout(5):
        while api.listed < 6 and not comparing.done():
            await asyncio.wait((comparing,), timeout=0.001)
    assert not comparing.done()
    comparing.cancel()
    assert len(pauses) == 2
    if isinstance(error, ThrottledError):
        assert pauses == [7.0, 7.0]


async def test_the_first_comparison_is_tried_a_few_times(pauses: list[float]) -> None:
    api = ApiStandIn(*[THROTTLED] * (FIRST_COMPARE_ATTEMPTS - 1))
    await operator(api)._compare_until_done(attempts=FIRST_COMPARE_ATTEMPTS)
    assert len(pauses) == FIRST_COMPARE_ATTEMPTS - 1
    with pytest.raises(ThrottledError):
        await operator(ApiStandIn(*[THROTTLED] * 99))._compare_until_done(attempts=FIRST_COMPARE_ATTEMPTS)


async def test_the_first_comparison_fails_at_once_where_waiting_does_not_help(pauses: list[float]) -> None:
    with pytest.raises(ForbiddenError):
        await operator(ApiStandIn(ForbiddenError("no", code=403)))._compare_until_done(attempts=FIRST_COMPARE_ATTEMPTS)
    assert pauses == []


def with_sessions(*keys: tuple[str, str]) -> Cache:
    cache = Cache()
    for namespace, name in keys:
        metadata = {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}", "resourceVersion": "1"}
        cache.put_session({"metadata": metadata, "spec": {"tenant": "acme"}})
    return cache


async def test_accounts_and_role_bindings_are_made_again_once_per_namespace() -> None:
    cache = with_sessions(("a", "one"), ("a", "two"), ("b", "one"), ("not-ready", "one"))
    cache.namespaces_ready |= {"a", "b", "left"}
    api = ApiStandIn()
    await operator(api, cache=cache)._ensure_namespaces()
    assert sorted(api.created) == [
        (plural, namespace) for plural in ("rolebindings", "serviceaccounts") for namespace in ("a", "b")
    ]
    assert cache.namespaces_ready == {"a", "b"}


async def test_a_namespace_that_cannot_be_seen_to_does_not_hinder_the_next() -> None:
    cache = with_sessions(("a", "one"), ("b", "one"))
    cache.namespaces_ready |= {"a", "b"}
    api = ApiStandIn()
    api.refused = {"rolebindings": ForbiddenError("the namespace is being deleted", code=403)}
    await operator(api, cache=cache)._ensure_namespaces()
    assert {namespace for _, namespace in api.created} == {"a", "b"}
    assert cache.namespaces_ready == {"a", "b"}


async def test_the_comparison_releases_the_claims_of_vanished_sessions() -> None:
    api = ApiStandIn()
    metadata = {"namespace": "system", "name": "phone-1", "uid": "l", "resourceVersion": "1"}
    api.leases = [{"metadata": metadata, "spec": {"holderIdentity": "team/gone/g"}}]
    await operator(api)._compare()
    assert api.deleted == [("phone-1", "l", "1")]


async def test_a_claim_that_cannot_be_released_does_not_end_the_comparison() -> None:
    api = ApiStandIn()
    metadata = {"namespace": "system", "name": "phone-1", "uid": "l", "resourceVersion": "1"}
    api.leases = [{"metadata": metadata, "spec": {"holderIdentity": "team/gone/g"}}]
    api.refused = {"leases": THROTTLED}
    await operator(api)._compare()
    assert api.deleted == [("phone-1", "l", "1")]
