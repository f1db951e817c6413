"""`list -w` goes on whatever becomes of its watch, and tells what has gone meanwhile."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from whatsapp_operator.cli import listing
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.cli.listing import Wanted
from whatsapp_operator.cli.output import Output
from whatsapp_operator.kube.client import Object
from whatsapp_operator.kube.errors import GoneError, KubeError, ServerError, UnreachableError


class OverError(Exception):
    """The test has seen enough."""


def item(name: str, phase: str) -> Object:
    metadata = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "2"}
    return {"metadata": metadata, "spec": {"tenant": "acme"}, "status": {"phase": phase}}


class Watched(Cluster):
    """Each list and each watch takes the next of what is to come."""

    def __init__(self, lists: list[list[Object] | KubeError], watches: list[list[Object] | KubeError]) -> None:
        self.namespace = "shop"
        self.client: Any = self
        self.lists, self.watches = lists, watches

    async def sessions(self, *, everywhere: bool = False, label_selector: str = "") -> tuple[list[Object], str]:
        found = self.lists.pop(0)
        if isinstance(found, KubeError):
            raise found
        return found, "1"

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Object]:
        if not self.watches:
            raise OverError
        found = self.watches.pop(0)
        if isinstance(found, KubeError):
            raise found
        for event in found:
            yield event

    async def now(self) -> datetime:
        return datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


async def rows(cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(listing, "PAUSE", 0)
    with pytest.raises(OverError):
        await listing.show(cluster, Output(), Wanted(), watch=True)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:]]


async def test_what_was_deleted_unseen_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [item("desk", "Connected"), item("support", "Connected")]
    cluster = Watched([before, ServerError("starting", code=500), [item("support", "Stalled")]], [GoneError("old")])
    assert await rows(cluster, capsys, monkeypatch) == [
        "desk acme - Connected - -",
        "support acme - Connected - -",
        "desk acme - Deleted - -",
        "support acme - Stalled - -",
    ]


@pytest.mark.parametrize("error", [UnreachableError("refused"), UnreachableError("cut", code=200), ServerError("500")])
async def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    error: KubeError, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = {"type": "DELETED", "object": item("support", "Connected")}
    found = await rows(Watched([[item("support", "Connected")]], [error, error, [deleted]]), capsys, monkeypatch)
    assert found == ["support acme - Connected - -", "support acme - Deleted - -"]
