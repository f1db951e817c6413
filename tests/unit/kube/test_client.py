"""The requests as a server sees them."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from whatsapp_operator.kube.client import LEASES, NAMESPACES, PODS, SECRETS, SESSIONS, Client
from whatsapp_operator.kube.errors import ConflictError, GoneError, KubeError, NotLeadingError, UnreachableError


@dataclass
class Server:
    """Answers with what the test has put there, and keeps what it was asked."""

    url: str = ""
    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        code, body = self.answers.pop(0) if self.answers else (200, {"kind": "Pod"})
        return web.Response(status=code, text=body if isinstance(body, str) else json.dumps(body))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


def configuration(url: str) -> Configuration:
    found = Configuration(host=url)
    found.api_key["BearerToken"] = "bearer token-1"
    return found


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    found = Client(configuration(server.url))
    yield found
    await found.close()


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (PODS.path("team", "wa-shop"), "/api/v1/namespaces/team/pods/wa-shop"),
        (PODS.path(None), "/api/v1/pods"),
        (NAMESPACES.path(None, "team"), "/api/v1/namespaces/team"),
        (LEASES.path("system"), "/apis/coordination.k8s.io/v1/namespaces/system/leases"),
        (
            SESSIONS.path("team", "shop", "status"),
            "/apis/whatsapp-operator.io/v1alpha1/namespaces/team/whatsappsessions/shop/status",
        ),
    ],
)
def test_paths(resource: str, path: str) -> None:
    assert resource == path


async def test_a_get_is_authenticated(server: Server, client: Client) -> None:
    server.answers.append((200, {"kind": "Pod", "metadata": {"name": "x"}}))
    assert (await client.get(PODS, "team", "x"))["metadata"] == {"name": "x"}
    assert server.asked[0].headers["Authorization"] == "bearer token-1"


async def test_a_token_is_read_again(server: Server) -> None:
    fresh = configuration(server.url)
    tokens = iter(["bearer 1", "bearer 2"])

    def refresh(found: Configuration) -> None:
        found.api_key["BearerToken"] = next(tokens)

    setattr(fresh, "refresh_api_key_hook", refresh)  # noqa: B010 - declared as None by the library
    client = Client(fresh)
    for _ in range(2):
        await client.get(PODS, "team", "x")
    await client.close()
    assert [request.headers["Authorization"] for request in server.asked] == ["bearer 1", "bearer 2"]


async def test_a_list_is_read_in_chunks(server: Server, client: Client) -> None:
    server.answers += [
        (200, {"items": [{"n": 1}], "metadata": {"continue": "more", "resourceVersion": "5"}}),
        (200, {"items": [{"n": 2}], "metadata": {"resourceVersion": "5"}}),
    ]
    found = [page async for page in client.pages(PODS, label_selector="a=b")]
    assert [page.items for page in found] == [[{"n": 1}], [{"n": 2}]]
    assert {page.resource_version for page in found} == {"5"}
    assert [dict(request.query) for request in server.asked] == [
        {"limit": "250", "labelSelector": "a=b"},
        {"limit": "250", "labelSelector": "a=b", "continue": "more"},
    ]


async def test_apply_and_patches(server: Server, client: Client) -> None:
    await client.apply(SESSIONS, "team", "shop", {"a": 1}, subresource="status")
    await client.merge_patch(PODS, "team", "wa-shop", {"b": None})
    applied, patched = server.asked
    assert applied.path.endswith("/whatsappsessions/shop/status")
    assert dict(applied.query) == {"fieldManager": "whatsapp-operator", "force": "true"}
    assert applied.headers["Content-Type"] == "application/apply-patch+yaml"
    assert patched.headers["Content-Type"] == "application/merge-patch+json"
    assert server.bodies == [{"a": 1}, {"b": None}]


async def test_a_delete_has_preconditions(server: Server, client: Client) -> None:
    await client.delete(PODS, "team", "wa-shop", uid="u", resource_version="7")
    await client.delete(SECRETS, "team", "wa-shop")
    assert server.bodies[0]["preconditions"] == {"uid": "u", "resourceVersion": "7"}
    assert "preconditions" not in server.bodies[1]
    assert "gracePeriodSeconds" not in server.bodies[0]


async def test_errors_are_typed_and_counted(server: Server) -> None:
    counted: list[tuple[str, int]] = []
    client = Client(configuration(server.url), on_request=lambda verb, code: counted.append((verb, code)))
    server.answers += [(409, {"reason": "Conflict", "message": "changed"}), (502, "<html>"), (200, "[]")]
    with pytest.raises(ConflictError, match="changed"):
        await client.merge_patch(PODS, "team", "x", {})
    with pytest.raises(KubeError, match="502"):
        await client.get(PODS, "team", "x")
    with pytest.raises(KubeError, match="not a JSON object"):
        await client.get(PODS, "team", "x")
    await client.close()
    assert counted == [("patch", 409), ("get", 502), ("get", 200)]


async def test_nobody_there(server: Server) -> None:
    counted: list[int] = []
    client = Client(configuration("http://127.0.0.1:1"), on_request=lambda _, code: counted.append(code))
    with pytest.raises(UnreachableError):
        await client.get(PODS, "team", "x")
    await client.close()
    assert counted == [0]


async def test_a_process_that_does_not_lead_sends_no_write(server: Server) -> None:
    def refuse() -> None:
        raise NotLeadingError("not leading")

    client = Client(configuration(server.url), before_write=refuse)
    await client.get(PODS, "team", "x")
    for write in (
        client.create(PODS, "team", {}),
        client.apply(PODS, "team", "x", {}),
        client.merge_patch(PODS, "team", "x", {}),
        client.delete(PODS, "team", "x"),
    ):
        with pytest.raises(NotLeadingError):
            await write
    await client.close()
    assert [request.method for request in server.asked] == ["GET"]


async def test_another_library_gets_a_session_with_the_same_identity(server: Server, client: Client) -> None:
    async with client.open_session() as session, session.get(f"{server.url}/version") as response:
        assert response.status == 200
    assert server.asked[0].headers["Authorization"] == "bearer token-1"


class WatchServer:
    """One watch that is answered with these lines."""

    def __init__(self, *lines: str, code: int = 200) -> None:
        self.lines = lines
        self.code = code
        self.query: dict[str, str] = {}
        self.silent = False
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.query = dict(request.query)
        response = web.StreamResponse(status=self.code)
        await response.prepare(request)
        # Cut where no line ends.
        text = "".join(f"{line}\n" for line in self.lines).encode()
        for part in (text[:7], text[7:20], text[20:]):
            await response.write(part)
            await asyncio.sleep(0)
        if self.silent:
            await self.over.wait()
        return response

    async def watched(self) -> list[Any]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client = Client(configuration(f"http://127.0.0.1:{runner.addresses[0][1]}"))
        try:
            events = client.watch(PODS, "team", version="7", seconds=9, label_selector="a=b")
            return [event async for event in events]
        finally:
            self.over.set()
            await client.close()
            await runner.cleanup()


async def test_a_watch_gives_event_by_event() -> None:
    events = [{"type": "ADDED", "object": {"n": number, "name": "ä"}} for number in (1, 2)]
    server = WatchServer(*(json.dumps(event, ensure_ascii=False) for event in events))
    assert await server.watched() == events
    assert server.query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "7",
        "timeoutSeconds": "9",
        "labelSelector": "a=b",
    }


async def test_a_version_that_is_too_old_is_the_same_error_however_it_is_told() -> None:
    status = json.dumps({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
    for server in (WatchServer(f'{{"type": "ERROR", "object": {status}}}'), WatchServer(status, code=410)):
        with pytest.raises(GoneError, match="too old"):
            await server.watched()


async def test_a_watch_that_sends_something_else_has_failed() -> None:
    with pytest.raises(KubeError, match="not a JSON object"):
        await WatchServer("<html>").watched()


async def test_a_watch_that_is_silent_for_too_long_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatsapp_operator.kube.client.WATCH_SILENCE", 0.2)
    server = WatchServer('{"type": "ADDED", "object": {}}')
    server.silent = True
    assert await server.watched() == [{"type": "ADDED", "object": {}}]
