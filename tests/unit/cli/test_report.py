"""What a report has of a log: its end, where the fault is."""

from datetime import UTC, datetime
from typing import Any

import pytest

from whatsapp_operator.cli import report
from whatsapp_operator.cli.cluster import Cluster
from whatsapp_operator.kube.client import PODS, Resource
from whatsapp_operator.kube.errors import NotFoundError

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
# Ten megabytes, as much as a kubelet's file holds; the most of it in the oldest line, as that costs nothing.
LOG = [" " * 10_000_000, *(f'{{"line": {number}}}' for number in range(report.LOG_LINES)), '{"the": "fault"}']


class Logs(Cluster):
    """A cluster of one session and one operator, of which nothing but the logs is there."""

    def __init__(self) -> None:
        self.namespace = "shop"
        self.client: Any = self

    async def get(self, *_: Any) -> Any:
        raise NotFoundError("it is not there")

    async def session(self, name: str) -> Any:
        return {"metadata": {"name": name, "namespace": "shop", "generation": 1}, "spec": {"tenant": "acme"}}

    async def listed(self, resource: Resource, namespace: str | None, *, label_selector: str = "") -> tuple[Any, str]:
        pods = [{"metadata": {"name": "operator-1"}}] if resource is PODS and label_selector else []
        return pods, "1"

    async def may(self, *_: Any, **__: Any) -> bool:
        return True

    async def now(self) -> datetime:
        return NOW

    async def text(self, path: str, **query: str) -> str:
        """As the kubelet does it: it goes back by lines from the end, and then on by bytes."""
        if not path.endswith("/log"):
            raise NotFoundError("it is not there")
        lines = LOG[-int(query["tailLines"]) :] if "tailLines" in query else LOG
        return "\n".join(lines)[: int(query["limitBytes"]) if "limitBytes" in query else None]


async def test_a_session_that_cannot_be_read_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(_: Logs, name: str) -> Any:
        if name == "gone":
            raise NotFoundError("gone is not there")
        return {"metadata": {"name": name, "namespace": "shop", "generation": 1}, "spec": {"tenant": "acme"}}

    monkeypatch.setattr(Logs, "session", read)
    bundle = await report.collect(Logs(), ["gone", "support"], "system")
    assert "sessions/support/session.yaml" in bundle.files
    assert "sessions/gone: it is not there" in bundle.missing
    with pytest.raises(NotFoundError):
        await report.collect(Logs(), ["gone"], "system")


async def test_of_the_operator_it_has_no_line_that_may_be_about_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        '{"message": "ours", "session": "shop/support"}',
        '{"message": "theirs", "session": "other/desk"}',
        '{"message": "nobody in particular"}',
        "INFO other/desk: the form for a console",
    ]
    monkeypatch.setattr(f"{__name__}.LOG", lines)
    bundle = await report.collect(Logs(), ["support"], "system")
    assert bundle.files["operator/operator-1.log"].splitlines() == [lines[0], lines[2]]
    assert "operator/operator-1.log: 1 line without fields, which may be about other sessions" in bundle.missing


async def test_of_a_long_log_it_has_the_end() -> None:
    bundle = await report.collect(Logs(), ["support"], "system")
    for name in ("sessions/support/session.log", "sessions/support/session-before.log", "operator/operator-1.log"):
        assert bundle.files[name].endswith('{"the": "fault"}')
        assert len(bundle.files[name].splitlines()) <= report.LOG_LINES
