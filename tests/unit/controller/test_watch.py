import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from yarl import URL

from whatsapp_operator.controller.cache import Cache
from whatsapp_operator.controller.views import Key
from whatsapp_operator.controller.watch import WatchTrace, claim_feed, pod_feed, volume_feed
from whatsapp_operator.kube.client import Object
from whatsapp_operator.kube.watch import BACKOFF_LAST

SESSIONS = "/apis/whatsapp-operator.io/v1alpha1/whatsappsessions"
PODS = "/api/v1/pods"
VOLUMES = "/api/v1/persistentvolumeclaims"


class Trace:
    def __init__(self, namespaces: tuple[str, ...] = ()) -> None:
        self.relists = 0
        self.restarts: list[str] = []
        feeds = [
            make(Cache(), scope, lambda _: None) for make in (pod_feed, volume_feed) for scope in namespaces or (None,)
        ]
        self.trace = WatchTrace(namespaces, feeds, on_relist=self.relisted, on_restart=self.restarts.append)

    def relisted(self) -> None:
        self.relists += 1

    def open_all(self) -> None:
        self.trace.seen(SESSIONS, watch=False)
        self.trace.seen(SESSIONS, watch=True)
        self.trace.opened(PODS)
        self.trace.opened(VOLUMES)


def test_complete_once_every_watch_is_open() -> None:
    found = Trace()
    found.trace.seen(SESSIONS, watch=False)
    found.trace.opened(PODS)
    found.trace.opened(VOLUMES)
    assert not found.trace.complete.is_set()
    found.trace.seen(SESSIONS, watch=True)
    assert found.trace.complete.is_set()
    assert (found.relists, found.restarts) == (0, [])


def test_a_watch_that_goes_on_misses_nothing() -> None:
    found = Trace()
    found.open_all()
    found.trace.seen(SESSIONS, watch=True)
    found.trace.opened(PODS)
    assert (found.relists, found.restarts) == (0, ["whatsappsessions", "pods"])


def test_a_watch_of_kopfs_that_begins_with_a_new_list_may_have_missed_deletions() -> None:
    found = Trace()
    found.open_all()
    found.trace.seen(SESSIONS, watch=False)
    assert found.relists == 0
    found.trace.seen(SESSIONS, watch=True)
    assert found.relists == 1


def test_each_namespace_is_watched() -> None:
    found = Trace(("a", "b"))
    for namespace in ("a", "b"):
        for plural in ("pods", "persistentvolumeclaims"):
            assert not found.trace.complete.is_set()
            found.trace.opened(f"/api/v1/namespaces/{namespace}/{plural}")
    for namespace in ("a", "b"):
        assert not found.trace.complete.is_set()
        found.trace.seen(f"/apis/whatsapp-operator.io/v1alpha1/namespaces/{namespace}/whatsappsessions", watch=True)
    assert found.trace.complete.is_set()


def claim(version: int, holder: str) -> Object:
    metadata = {"namespace": "system", "name": "phone-1", "uid": "l", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"holderIdentity": holder}}


class Claims:
    """The feed of claims, and whom it wakes."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.cache = Cache()
        self.feed = claim_feed(self.cache, "system", lambda key: self.woken.append(key.name))
        self.cache.waiting["phone-1"] = {Key("team", "waiting")}

    def woken_by(self, step: Callable[[], object]) -> list[str]:
        self.woken.clear()
        step()
        return sorted(self.woken)


def test_a_claim_that_changes_wakes_who_held_it_who_holds_it_and_who_waits_for_it() -> None:
    found = Claims()
    assert found.woken_by(lambda: found.feed.put(claim(1, "team/first/f"))) == ["first", "waiting"]
    assert found.woken_by(lambda: found.feed.put(claim(2, "team/next/n"))) == ["first", "next", "waiting"]
    assert found.woken_by(lambda: found.feed.put(claim(2, "team/next/n"))) == []
    assert found.woken_by(lambda: found.feed.remove(claim(3, "team/next/n"))) == ["next", "waiting"]
    assert found.woken_by(lambda: found.feed.remove(claim(3, "team/next/n"))) == []


def test_a_claim_that_is_not_in_a_new_list_is_gone() -> None:
    found = Claims()
    found.feed.put(claim(1, "team/first/f"))
    found.woken.clear()
    assert found.woken_by(lambda: found.feed.prune(set(), "5")) == ["first", "waiting"]
    assert found.cache.claims_of("f") == []
    assert found.woken_by(lambda: found.feed.prune(set(), "6")) == []


def test_what_has_only_left_the_selection_can_come_back_as_it_is() -> None:
    found = Claims()
    found.feed.put(claim(1, "team/first/f"))
    found.feed.remove(claim(2, "team/first/f"))
    found.woken.clear()
    assert found.woken_by(lambda: found.feed.put(claim(1, "team/first/f"))) == []
    assert found.woken_by(lambda: found.feed.put(claim(2, "team/first/f"))) == ["first"]


def sessions_in(namespace: str) -> str:
    return f"/apis/whatsapp-operator.io/v1alpha1/namespaces/{namespace}/whatsappsessions"


def paths_in(namespace: str) -> list[str]:
    plurals = ("pods", "persistentvolumeclaims")
    return [sessions_in(namespace), *(f"/api/v1/namespaces/{namespace}/{plural}" for plural in plurals)]


def test_the_others_do_without_a_namespace_that_is_forbidden(caplog: pytest.LogCaptureFixture) -> None:
    found = Trace(("a", "b"))
    for path in paths_in("a"):
        found.trace.opened(path)
    for path in [*paths_in("b"), *paths_in("b")]:
        assert found.trace.refused(path)
    assert found.trace.complete.is_set()
    assert found.trace.unserved == {"b"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for path in paths_in("b"):
        assert found.trace.unserved == {"b"}
        found.trace.opened(path)
    assert found.trace.unserved == set()
    assert found.relists == 3


def test_nobody_does_without_what_is_watched_in_all_namespaces() -> None:
    found = Trace()
    assert not found.trace.refused(SESSIONS)
    assert not found.trace.refused(PODS)
    assert (found.trace.complete.is_set(), found.trace.unserved) == (False, frozenset())


class AnswerStandIn:
    def __init__(self, status: int) -> None:
        self.status = status
        self.released = False

    def release(self) -> None:
        self.released = True


async def ask(trace: WatchTrace, path: str, *statuses: int) -> tuple[AnswerStandIn, list[AnswerStandIn]]:
    """What kopf is answered, and the answers that it is not shown."""
    answers = [AnswerStandIn(status) for status in statuses]
    left = iter(answers)

    async def handler(_: Any) -> AnswerStandIn:
        return next(left)

    request = SimpleNamespace(url=URL(f"https://api.example{path}?watch=true"))
    given = cast(AnswerStandIn, await trace.patience(cast(Any, request), cast(Any, handler)))
    return given, [answer for answer in answers if answer.released]


async def test_kopf_waits_where_it_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    yield_to_others = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await yield_to_others(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    found = Trace(("a",))
    given, held = await ask(found.trace, sessions_in("a"), *[403] * 20, 200)
    assert (given.status, len(held), len(pauses)) == (200, 20, 20)
    assert BACKOFF_LAST / 2 <= max(pauses) <= BACKOFF_LAST
    given, held = await ask(found.trace, sessions_in("a"), 410)
    assert (given.status, held) == (410, [])
    given, held = await ask(Trace().trace, SESSIONS, 403)
    assert (given.status, held) == (403, [])
