"""What a reflector makes of a list, of a watch, and of everything that breaks."""

from collections.abc import AsyncGenerator, Set
from contextlib import suppress
from typing import Any, cast

import pytest

from whatsapp_operator.kube import watch
from whatsapp_operator.kube.client import PODS, Client, Object, Page, Resource
from whatsapp_operator.kube.errors import (
    ForbiddenError,
    GoneError,
    KubeError,
    ServerError,
    ThrottledError,
    UnreachableError,
)
from whatsapp_operator.kube.watch import Feed, Reflector, read_all


class EndError(Exception):
    """The script is over."""


def pod(name: str, version: int) -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> Object:
    return {"type": kind, "object": pod(name, version)}


class Api:
    """Lists and watches as scripted: a watch gives its events and then ends, or fails with what comes last."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists = lists
        self.watches = watches
        self.asked: list[str] = []

    async def pages(
        self, _: Resource, namespace: str | None = None, *, label_selector: str = ""
    ) -> AsyncGenerator[Page, None]:
        self.asked.append(f"list {namespace} {label_selector}")
        pages = self.lists.pop(0)
        for page in pages:
            if isinstance(page, KubeError):
                raise page
            yield page

    async def watch(
        self, _: Resource, namespace: str | None, *, version: str, seconds: int, label_selector: str, on_open: Any
    ) -> AsyncGenerator[Object, None]:
        assert watch.WATCH_SECONDS <= seconds <= 1.5 * watch.WATCH_SECONDS
        self.asked.append(f"watch {version}")
        if not self.watches:
            raise EndError
        items = self.watches.pop(0)
        if not (items and isinstance(items[0], KubeError)):
            on_open()
        for item in items:
            if isinstance(item, KubeError):
                raise item
            yield item


class Kept:
    """What was fed."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.opened = self.pages = self.refused = 0
        self.feed: Feed[str] = Feed(PODS, "team", self.put, self.remove, self.prune, "a=b")

    def put(self, body: Object) -> str | None:
        metadata = body["metadata"]
        if metadata["name"] == "strange":
            raise ValueError(metadata)
        self.told.append(f"{metadata['name']} {metadata['resourceVersion']}")
        return None if metadata["name"] == "odd" else str(metadata["name"])

    def remove(self, body: Object) -> None:
        self.told.append(f"no {body['metadata']['name']}")

    def prune(self, listed: Set[str], version: str) -> None:
        self.told.append(f"only {','.join(sorted(listed))} at {version}")

    def open(self) -> None:
        self.opened += 1

    def page(self) -> None:
        self.pages += 1

    def refuse(self) -> None:
        self.refused += 1


async def follow(api: Api) -> Kept:
    kept = Kept()
    reflector = Reflector(
        cast(Client, api),
        kept.feed,
        on_open=kept.open,
        on_page=kept.page,
        on_refused=kept.refuse,
        jitter=lambda: 1.0,
    )
    with suppress(EndError):
        await reflector.run()
    return kept


async def test_a_list_is_fed_page_by_page_and_what_it_does_not_hold_is_gone() -> None:
    api = Api([[Page([pod("a", 1), pod("odd", 2)], "7"), Page([pod("b", 3)], "7")]], [])
    kept = Kept()
    assert await read_all(cast(Client, api), kept.feed) == "7"
    assert kept.told == ["a 1", "odd 2", "b 3", "only a,b at 7"]
    assert api.asked == ["list team a=b"]


async def test_a_list_that_breaks_off_removes_nothing() -> None:
    kept = Kept()
    with pytest.raises(ServerError):
        await read_all(cast(Client, Api([[Page([pod("a", 1)], "7"), ServerError("x", code=500)]], [])), kept.feed)
    assert kept.told == ["a 1"]


async def test_a_watch_goes_on_where_the_one_before_it_ended(pauses: list[float]) -> None:
    first = [event("ADDED", "a", 8), event("MODIFIED", "a", 9), event("DELETED", "a", 10), event("BOOKMARK", "", 15)]
    api = Api([[Page([], "7")]], [first, [event("ADDED", "b", 16)]])
    kept = await follow(api)
    assert api.asked == ["list team a=b", "watch 7", "watch 15", "watch 16"]
    assert kept.told == ["only  at 7", "a 8", "a 9", "no a", "b 16"]
    assert pauses == [watch.BACKOFF_FIRST] * 2


async def test_a_version_that_is_too_old_means_a_new_list(pauses: list[float]) -> None:
    gone = GoneError("too old", code=410)
    api = Api([[Page([pod("a", 1)], "7")], [Page([], "20")]], [[gone], [event("ADDED", "b", 21)]])
    kept = await follow(api)
    assert api.asked == ["list team a=b", "watch 7", "list team a=b", "watch 20", "watch 21"]
    assert kept.told == ["a 1", "only a at 7", "only  at 20", "b 21"]


async def test_what_fails_again_and_again_is_tried_later_and_later(pauses: list[float]) -> None:
    refused = ForbiddenError("no", code=403)
    api = Api([[refused]] * 10 + [[Page([], "7")]], [])
    await follow(api)
    assert pauses[:4] == [watch.BACKOFF_FIRST * 2**number for number in range(4)]
    assert max(pauses) == watch.BACKOFF_LAST


async def test_a_watch_that_is_refused_again_and_again_begins_with_a_new_list(pauses: list[float]) -> None:
    api = Api([[Page([], "7")], [Page([], "3")]], [[ServerError("too large", code=504)]] * 4)
    await follow(api)
    assert api.asked == ["list team a=b", *["watch 7"] * 4, "list team a=b", "watch 3"]
    assert pauses == sorted(pauses)


async def test_watches_that_end_at_once_are_not_opened_in_a_loop(pauses: list[float]) -> None:
    await follow(Api([[Page([], "7")], [Page([], "8")]], [[]] * 4))
    assert pauses[3] > pauses[0]


async def test_the_server_may_ask_for_a_pause(pauses: list[float]) -> None:
    throttled = ThrottledError("later", code=429, reason="TooManyRequests", retry_after=9.0)
    await follow(Api([[throttled], [Page([], "7")]], []))
    assert pauses == [9.0]


async def test_each_opening_is_told(pauses: list[float]) -> None:
    kept = await follow(Api([[Page([], "7")]], [[event("BOOKMARK", "", 8)], [event("BOOKMARK", "", 9)]]))
    assert kept.opened == 2


@pytest.mark.parametrize(
    ("refusal", "relists"),
    [
        (ForbiddenError("no", code=403), False),
        (ThrottledError("later", code=429, reason="TooManyRequests", retry_after=1.0), False),
        (UnreachableError("away"), False),
        (ServerError("too large", code=504), True),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_only_what_a_version_can_be_guilty_of_leads_to_a_new_list(
    refusal: KubeError, relists: bool, pauses: list[float]
) -> None:
    api = Api([[Page([], "7")]] * 12, [[refusal]] * 12)
    await follow(api)
    assert (len([asked for asked in api.asked if asked.startswith("list")]) > 1) == relists
    assert pauses == sorted(pauses)
    assert pauses[-1] == watch.BACKOFF_LAST


async def test_one_strange_object_does_not_end_the_watch_of_the_others(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    listed = [pod("strange", 1), pod("a", 2)]
    kept = await follow(Api([[Page(listed, "7")]], [[event("MODIFIED", "strange", 8), event("ADDED", "b", 9)]]))
    assert kept.told == ["a 2", "b 9"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "what cannot be read is left out: pods None/strange: ValueError"
    ] * 2


async def test_what_stays_forbidden_is_told_once(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    forbidden, away = ForbiddenError("no", code=403), UnreachableError("away")
    lists = [[forbidden], [forbidden], [away], [forbidden], [Page([], "7"), Page([], "7")]]
    kept = await follow(Api(lists, [[forbidden], [forbidden]]))
    assert [cast(Any, record.args)[1] for record in caplog.records if record.levelname == "WARNING"] == [
        forbidden,
        away,
        forbidden,
    ]
    assert (kept.refused, kept.pages) == (5, 2)
