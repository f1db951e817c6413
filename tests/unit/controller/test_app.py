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
from whatsapp_operator.controller.views import Key
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
        self.forbidden: set[str | None] = set()
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
        if namespace in self.forbidden:
            raise ForbiddenError("no", code=403)
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


def operator(
    api: Any, *, resync_seconds: float = 600.0, cache: Cache | None = None, namespaces: tuple[str, ...] = ()
) -> Operator:
    found = cache if cache is not None else Cache()
    return Operator(
        Settings(OPTIONS, "system", "me", watch_namespaces=namespaces, resync_seconds=resync_seconds),
        client=cast(Client, api),
        election=cast(Election, None),
        metrics=Metrics(found, per_object=False),
        cache=found,
        on_started=lambda: None,
    )


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


async def test_nothing_is_made_again_for_a_session_while_its_namespace_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, api, ready = with_sessions(("a", "one")), ApiStandIn(), []

    async def get(*_: object) -> Object:
        ready.append("a" in cache.namespaces_ready)
        raise NotFoundError("no", code=404)

    monkeypatch.setattr(api, "get", get)
    cache.namespaces_ready.add("a")
    await operator(api, cache=cache)._ensure_namespaces()
    assert ready == [True, True]


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


async def test_a_namespace_that_is_forbidden_is_left_out_until_it_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = with_sessions(("a", "one"), ("b", "one"))
    api = ApiStandIn()
    found = operator(api, cache=cache, namespaces=("a", "b"))
    worked: list[Key] = []
    found._synced = True
    monkeypatch.setattr(found._dispatcher, "add", worked.append)
    api.forbidden = {"a"}
    await found._compare()
    assert [record.getMessage() for record in caplog.records] == ["not served, for the RoleBinding is not there: a"]
    assert set(cache.sessions) == {Key("a", "one")}
    assert worked == [Key("b", "one")]
    await found._work(Key("a", "one"))
    worked.clear()
    api.forbidden = {"b"}
    await found._compare()
    # It was listed: its session is gone.
    assert worked == [Key("a", "one")]


async def test_what_comes_back_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = with_sessions(("a", "one"))
    found = operator(ApiStandIn(), cache=cache, namespaces=("a",))
    worked: list[Key] = []
    monkeypatch.setattr(found._dispatcher, "add", worked.append)
    found._serve_all_but(frozenset({"a"}))
    found._synced = True
    found._serve_all_but(frozenset())
    assert worked == [Key("a", "one")]


async def test_claims_are_not_left_out() -> None:
    api = ApiStandIn()
    api.forbidden = {"system"}
    with pytest.raises(ForbiddenError):
        await operator(api, namespaces=("a", "system"))._compare()


async def test_watches_are_waited_for_as_long_as_something_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = operator(ApiStandIn())
    waits = 0

    async def wait() -> None:
        nonlocal waits
        waits += 1
        if waits < 4:
            found._trace.paged()
        raise TimeoutError

    monkeypatch.setattr(found._trace.complete, "wait", wait)
    with pytest.raises(RuntimeError, match="is the definition installed"):
        await found._wait_for_watches()
    assert waits == 4
