from typing import Any, cast

import pytest

from tests.unit.controller.builders import OPTIONS, UID, lease, pod, session
from whatsapp_operator.api import names
from whatsapp_operator.api.reasons import Reason
from whatsapp_operator.controller.actions import AcquireClaim, CreatePod, CreateSecret, DeleteSecret, EnsureNamespace
from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.execute import Executor
from whatsapp_operator.controller.objects import secret
from whatsapp_operator.controller.views import Key
from whatsapp_operator.kube.client import Client
from whatsapp_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    KubeError,
    NotFoundError,
    ThrottledError,
)

TAKEN = AlreadyExistsError("taken", code=409, reason="AlreadyExists")


class ApiStandIn:
    """Answers by verb and plural: an error to raise, or an object; else what was sent, with a uid."""

    def __init__(self, answers: dict[tuple[str, str], Any] | None = None) -> None:
        self.answers = answers or {}
        self.requests: list[tuple[str, str, str, str | None]] = []

    def _answer(self, verb: str, plural: str, name: str, body: Any = None, uid: str | None = None) -> Any:
        self.requests.append((verb, plural, name, uid))
        found = self.answers.get((verb, plural), body)
        if isinstance(found, KubeError):
            raise found
        return found

    async def get(self, resource: Any, _: str | None, name: str) -> Any:
        return self._answer("get", resource.plural, name)

    async def create(self, resource: Any, _: str | None, body: Any) -> Any:
        made = {**body, "metadata": {**body["metadata"], "uid": "made", "resourceVersion": "1"}}
        return self._answer("create", resource.plural, body["metadata"]["name"], made)

    async def apply(self, resource: Any, _: str | None, name: str, body: Any, *, subresource: str) -> Any:
        return self._answer("apply", resource.plural, name, body)

    async def delete(
        self, resource: Any, _: str | None, name: str, *, uid: str | None = None, resource_version: str | None = None
    ) -> Any:
        return self._answer("delete", resource.plural, name, {"kind": "Status"}, uid)


class Scene:
    def __init__(self, answers: dict[tuple[str, str], Any] | None = None) -> None:
        self.api = ApiStandIn(answers)
        self.cache = Cache()
        self.woken: list[Key] = []
        self.executor = Executor(
            cast(Client, self.api),
            self.cache,
            OPTIONS,
            namespace="system",
            clock=lambda: 0.0,
            wake=self.woken.append,
        )


def create_secret(*, may_exist: bool) -> CreateSecret:
    return CreateSecret(secret.build(session(), "1"), may_exist=may_exist)


async def test_a_secret_that_was_made_is_deleted_by_its_uid() -> None:
    scene = Scene()
    assert await scene.executor.run(session(), [create_secret(may_exist=False)]) == ()
    assert scene.cache.secret_uids == {UID: "made"}
    await scene.executor.run(session(), [DeleteSecret("wa-shop", "made")])
    assert scene.api.requests[-1] == ("delete", "secrets", "wa-shop", "made")
    assert scene.cache.secrets == {UID: False}


async def test_a_secret_found_there_has_no_uid_to_delete_it_by() -> None:
    scene = Scene({("create", "secrets"): TAKEN})
    assert await scene.executor.run(session(), [create_secret(may_exist=True)]) == ()
    assert (scene.cache.secrets, scene.cache.secret_uids) == ({UID: True}, {})


async def test_a_taken_name_is_remembered_although_the_step_fails() -> None:
    throttled = ThrottledError("later", code=429, reason="", retry_after=1)
    scene = Scene({("create", "secrets"): TAKEN, ("create", "rolebindings"): throttled})
    with pytest.raises(ThrottledError):
        await scene.executor.run(session(), [create_secret(may_exist=False), EnsureNamespace()])
    assert scene.cache.secrets_taken == {UID}
    (problem,) = await scene.executor.run(session(), [create_secret(may_exist=False)])
    assert problem.reason is Reason.NAME_CONFLICT
    del scene.api.answers["create", "secrets"]
    assert await scene.executor.run(session(), [create_secret(may_exist=False)]) == ()
    assert scene.cache.secrets_taken == set()


@pytest.mark.parametrize("error", [ConflictError("another uid", code=409), NotFoundError("gone", code=404)])
async def test_a_secret_that_was_replaced_or_removed_is_gone(error: KubeError) -> None:
    scene = Scene({("delete", "secrets"): error})
    assert await scene.executor.run(session(), [DeleteSecret("wa-shop", "made")]) == ()
    assert scene.cache.secrets == {UID: False}


KEY = Key("team", "shop")


def body(version: str, uid: str = UID) -> dict[str, Any]:
    found = session().model_dump(mode="json", by_alias=True, exclude_none=True)
    found["metadata"] |= {"resourceVersion": version, "uid": uid}
    return found


@pytest.mark.parametrize(
    ("error", "found", "woken"),
    [
        pytest.param(ConflictError("changed", code=409), body("8"), [KEY], id="it has changed"),
        pytest.param(NotFoundError("gone", code=404), body("8", "next"), [KEY], id="there is another one"),
        pytest.param(NotFoundError("gone", code=404), NotFoundError("gone", code=404), [KEY], id="it is gone"),
        pytest.param(ConflictError("changed", code=409), body("7"), [], id="the watch was faster"),
    ],
)
async def test_news_that_were_read_wake_their_session(error: KubeError, found: Any, woken: list[Key]) -> None:
    scene = Scene({("apply", "whatsappsessions"): error, ("get", "whatsappsessions"): found})
    scene.cache.put_session(body("7"))
    with pytest.raises(type(error)):
        await scene.executor.write_status(session(), {})
    assert scene.woken == woken


async def test_a_session_that_was_not_gone_is_woken() -> None:
    scene = Scene({("get", "whatsappsessions"): body("8")})
    scene.cache.pods.put(KEY, pod())
    await scene.executor.remove_orphan(KEY)
    assert scene.woken == [KEY]
    assert scene.api.requests == [("get", "whatsappsessions", "shop", None)]


NOT_FOUND = NotFoundError("gone", code=404)
DELETED = ("delete", "leases", "phone-1", "lease-phone-1")


@pytest.mark.parametrize(
    ("found", "released"),
    [
        pytest.param(NOT_FOUND, True, id="gone"),
        pytest.param(body("9", "next"), True, id="another one of that name"),
        pytest.param(body("9"), False, id="there"),
        pytest.param(ForbiddenError("not served", code=403), False, id="out of reach"),
    ],
)
async def test_the_claim_of_a_vanished_session_is_released(found: Any, released: bool) -> None:
    scene = Scene({("get", "whatsappsessions"): found})
    scene.cache.waiting["phone-1"] = {Key("team", "next")}
    await scene.executor.release_vanished(lease())
    assert (DELETED in scene.api.requests) is released
    assert scene.woken == ([Key("team", "next")] if released else [])


async def test_a_claim_that_was_taken_over_meanwhile_is_not_released() -> None:
    conflict = ConflictError("changed", code=409)
    answers = {("get", "whatsappsessions"): NOT_FOUND, ("delete", "leases"): conflict, ("get", "leases"): NOT_FOUND}
    scene = Scene(answers)
    scene.cache.waiting["phone-1"] = {Key("team", "next")}
    await scene.executor.release_vanished(lease())
    assert scene.api.requests[-1] == ("get", "leases", "phone-1", None)
    assert scene.woken == []


def claim(version: str, holder: str) -> dict[str, Any]:
    metadata = {"namespace": "system", "name": "phone-1", "uid": "lease-phone-1", "resourceVersion": version}
    return {"metadata": metadata, "spec": {"holderIdentity": holder}}


@pytest.mark.parametrize(
    ("found", "woken", "waiting"),
    [
        pytest.param(NOT_FOUND, ["first", "waiting"], False, id="gone"),
        pytest.param(claim("6", "team/next/n"), ["first", "next", "waiting"], True, id="given to another one"),
        pytest.param(claim("5", "team/first/f"), [], True, id="as it was"),
    ],
)
async def test_a_claim_that_was_read_wakes_whom_it_concerns(found: Any, woken: list[str], waiting: bool) -> None:
    scene = Scene({("create", "leases"): TAKEN, ("get", "leases"): found})
    scene.cache.put_claim(claim("5", "team/first/f"))
    scene.cache.waiting["phone-1"] = {Key("team", "waiting")}
    await scene.executor.run(session(), [AcquireClaim("phone-1")])
    assert sorted(key.name for key in scene.woken) == woken
    assert ("phone-1" in scene.cache.waiting) is waiting


def stripped(version: str) -> dict[str, Any]:
    """The session's pod, without the labels that tell whose it is and what selects it."""
    labels = {names.LABEL_SESSION: "shop"}
    return {
        "metadata": {
            "namespace": "team",
            "name": "wa-shop",
            "uid": "p",
            "resourceVersion": version,
            "labels": labels,
        }
    }


async def test_what_was_taken_out_of_sight_is_told() -> None:
    scene = Scene({("create", "pods"): TAKEN, ("get", "pods"): stripped("6")})
    scene.cache.put_pod(stripped("5"))
    scene.cache.remove_pod(stripped("6"))
    create = CreatePod({"metadata": {"namespace": "team", "name": "wa-shop", "labels": {names.LABEL_SESSION_UID: UID}}})
    (problem,) = await scene.executor.run(session(), [create])
    assert problem.reason is Reason.NAME_CONFLICT
    assert scene.cache.pods.get(KEY) is None
